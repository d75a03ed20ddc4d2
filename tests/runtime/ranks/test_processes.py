"""What a rank does when ReVACNN fails in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from revacnn_lightning.runtime.ranks.processes import FitProcessCoordinator


class Group:
    """A group whose first rank receives no heartbeats."""

    def __init__(self) -> None:
        self.is_closed = False

    def receive_bytes(self) -> bytes:
        return b""

    def close(self) -> None:
        self.is_closed = True


def test_a_rank_that_fails_before_the_first_batch_leaves_the_group(monkeypatch: pytest.MonkeyPatch):
    """Else rank 0 would wait for it in the first exchange."""
    group = Group()

    def connect(self: FitProcessCoordinator) -> str:
        self._group = group  # type: ignore[assignment]
        return ""

    monkeypatch.setattr(FitProcessCoordinator, "_connect", connect)
    processes = FitProcessCoordinator(SimpleNamespace(world_size=2, is_global_zero=False))
    assert not group.is_closed
    processes.report_error("KeyError: 'conv1'")
    assert group.is_closed
    processes.begin_batch(lambda: pytest.fail("no batch is needed"))
