"""A run that is resumed from a checkpoint is recognized."""

from __future__ import annotations

import pytest

from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.lineage import Lineage, find_resuming_run


def run(name: str, start: float, lineage: str = "a" * 12) -> Connection:
    return Connection(name, "", "", "", start_time=start, lineage=lineage)


def test_the_newest_later_run_of_the_same_lineage_resumes_a_run():
    killed = run("killed", 10.0)
    others = [run("before", 5.0), run("stranger", 30.0, "b" * 12), killed]
    assert find_resuming_run(killed, others) is None
    resumed = [run("second", 20.0), run("third", 25.0)]
    assert find_resuming_run(killed, [*others, *resumed]) == resumed[1]


def test_runs_without_a_lineage_resume_nothing():
    """Those of releases that did not keep one."""
    assert find_resuming_run(run("a", 1.0, ""), [run("b", 2.0, "")]) is None


@pytest.mark.parametrize("stored", [None, "", 7, "../../etc", "x" * 5000, "a" * 11 + "\n"])
def test_what_a_checkpoint_holds_is_checked(stored: object):
    lineage = Lineage.continue_from(stored, 100)
    assert len(lineage.id) == 12
    assert lineage.id != stored
    assert lineage.first_step == 0


def test_a_lineage_is_continued():
    first = Lineage.begin()
    assert Lineage.continue_from(first.id, 100) == Lineage(first.id, 100)
