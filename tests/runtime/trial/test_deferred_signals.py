"""Signal handlers wait while the network holds other values than those of the training."""

from __future__ import annotations

import signal
import threading

import pytest

from revacnn_lightning.runtime.trial.deferred_signals import DeferredSignals


@pytest.fixture
def handled() -> list[int]:
    """Return the signals that a handler of the user has received."""
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    yield received
    signal.signal(signal.SIGUSR1, before)


def test_a_handler_runs_once_after_the_context(handled: list[int]) -> None:
    own = signal.getsignal(signal.SIGUSR1)
    with DeferredSignals() as signals:
        assert not signals.have_arrived
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        assert (signals.have_arrived, handled) == (True, [])
    assert handled == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is own


def test_a_handler_runs_also_after_an_exception(handled: list[int]) -> None:
    def fail() -> None:
        with DeferredSignals():
            signal.raise_signal(signal.SIGUSR1)
            raise ValueError("of the network")

    with pytest.raises(ValueError, match="of the network"):
        fail()
    assert handled == [signal.SIGUSR1]


def test_an_interrupt_by_the_keyboard_is_not_delayed() -> None:
    with pytest.raises(KeyboardInterrupt), DeferredSignals():
        signal.default_int_handler(signal.SIGINT, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_leaves_all_handlers(handled: list[int]) -> None:
    own, seen = signal.getsignal(signal.SIGUSR1), []

    def enter() -> None:
        with DeferredSignals():
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [own]
