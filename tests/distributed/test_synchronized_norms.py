"""A training in two processes whose batch norms average over both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed import synchronized_training
from tests.distributed.test_two_processes import reports, run


@pytest.mark.slow
def test_synchronized_norms_are_edited_as_those_of_one_process(tmp_path: Path):
    run(tmp_path, "tests.distributed.synchronized_training", str(tmp_path))
    first, second = reports(tmp_path)
    assert first["outcomes"] == [["Applied", ""]] * len(synchronized_training.EDITS)
    for report in (first, second):
        assert report["different"] == []
        assert report["step"] == first["step"] < synchronized_training.BATCHES  # both have stopped
    assert first["names"][0] == first["names"][1]
    assert first["shapes"] == []
    assert first["difference"] < 1e-6
