from __future__ import annotations

import torch

from revacnn_lightning.telemetry.inspection.responses import ResponseRecorder


def test_maps_are_not_needed_without_selection():
    recorder = ResponseRecorder()
    recorder.begin_batch(True)
    assert not recorder.needs_map("conv")
    recorder.select([("conv", 1)])
    recorder.begin_batch(False)
    assert not recorder.needs_map("conv")


def test_missing_filter_and_empty_batch_are_skipped():
    recorder = ResponseRecorder()
    recorder.select([("conv", 9), ("empty", 0)])
    recorder.begin_batch(True)
    recorder.add_map("conv", torch.ones(2, 3, 4, 4))
    recorder.add_map("empty", torch.ones(0, 3, 4, 4))
    assert recorder.pop_responses() == {}


def test_first_call_of_a_batch_counts():
    recorder = ResponseRecorder()
    recorder.select([("conv", 0)])
    recorder.begin_batch(True)
    recorder.add_map("conv", torch.ones(2, 1, 2, 2))
    recorder.add_map("conv", 2 * torch.ones(2, 1, 2, 2))
    assert recorder.pop_responses()["conv", 0].peaks[0].tolist() == [1, 1]
