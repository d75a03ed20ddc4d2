"""What rank 0 refuses when the others can no longer be reached."""

from __future__ import annotations

from typing import Any

import pytest

from revacnn_lightning.runtime.ranks import rank_zero
from revacnn_lightning.runtime.ranks.all_ranks import StopReasons
from revacnn_lightning.runtime.ranks.rank_watch import RankWatch
from revacnn_lightning.runtime.ranks.rank_zero import RankZero
from revacnn_lightning.runtime.ranks.side_group import LostRankError


class LostGroup:
    """A group whose connections close after the first exchange has begun."""

    def start_broadcast(self, values: Any) -> Any:
        return object()

    def wait(self, work: Any) -> None:
        raise LostRankError("Connection closed by peer [127.0.0.1]:1")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("KeyError: 1", "internal error of ReVACNN in rank 1: KeyError: 1"),
        ("", "Connection closed by peer"),
    ],
)
def test_the_reason_is_the_error_of_the_other_rank(
    monkeypatch: pytest.MonkeyPatch, error: str, reason: str
):
    monkeypatch.setattr(rank_zero, "TROUBLE_SECONDS", 0.0)
    watch = RankWatch([1])
    ranks = RankZero(2, LostGroup(), "", watch)  # type: ignore[arg-type]
    if error:
        watch.report_error(1, error)
    for _ in range(2):
        ranks.begin_batch()
        ranks.resume_all_ranks(StopReasons)
    assert reason in ranks.refusal
    assert not ranks.is_stopped
