"""Heartbeats over a connection, in one process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from revacnn_lightning.protocol.rank_messages import TroubledRank
from revacnn_lightning.runtime.ranks.rank_heartbeats import HeartbeatReceiver, HeartbeatSender
from revacnn_lightning.runtime.ranks.rank_watch import RankWatch

TIMEOUT = 20.0  # of a condition that is waited for


class Published:
    """What the thread of rank 0 publishes."""

    def __init__(self) -> None:
        self.states: list[TroubledRank] = []
        self.changed = threading.Condition()

    def __call__(self, states: list[TroubledRank]) -> None:
        with self.changed:
            self.states = states
            self.changed.notify_all()

    def wait_for(self, *problems: tuple[int, str]) -> None:
        def is_so() -> bool:
            return [(state.rank, state.problem) for state in self.states] == list(problems)

        with self.changed:
            assert self.changed.wait_for(is_so, TIMEOUT), self.states


@pytest.fixture
def receiver() -> Iterator[HeartbeatReceiver]:
    receiver = HeartbeatReceiver(RankWatch([1]), lambda: 3, is_local=True)
    yield receiver
    receiver.close()


def connect(receiver: HeartbeatReceiver) -> tuple[Published, HeartbeatSender]:
    published = receiver.publish = Published()
    return published, HeartbeatSender(receiver.address, 1, lambda: 3)


def test_a_rank_whose_process_ends_is_published(receiver: HeartbeatReceiver):
    published, sender = connect(receiver)
    published.wait_for()
    sender._socket.shutdown(socket.SHUT_RDWR)  # as the kernel does
    published.wait_for((1, "ended"))
    sender.close(None)


def test_a_rank_publishes_why_it_fails(receiver: HeartbeatReceiver):
    published, sender = connect(receiver)
    sender.close("ValueError: two\nlines")
    published.wait_for((1, "failed"))
    assert published.states[0].detail == "ValueError: two lines"


def test_an_internal_error_arrives_in_one_line(receiver: HeartbeatReceiver):
    _, sender = connect(receiver)
    sender.report_error("ValueError: two\nlines " + "ü" * 400)
    text = receiver._watch.describe_first_trouble(TIMEOUT)
    assert text.startswith("internal error of ReVACNN in rank 1: ValueError: two lines ü")
    sender.close(None)


def test_a_connection_without_the_token_changes_nothing(receiver: HeartbeatReceiver):
    with socket.create_connection(("127.0.0.1", receiver.address.port)) as stranger:
        stranger.settimeout(TIMEOUT)
        stranger.sendall(b"token 1\nfailed by a stranger\n")
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""  # closed
    published, sender = connect(receiver)
    published.wait_for()
    sender.close(None)
