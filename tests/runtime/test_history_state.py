from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import torch

from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.runtime.history_state import pack_history, unpack_history
from tests.history.test_history_recorder import STRUCTURE, add


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def test_a_history_survives_a_checkpoint() -> None:
    recorder = HistoryRecorder()
    recorder.update_structure(STRUCTURE)
    for step in range(30):
        add(recorder, step, [1, 0, 2, 3])
    restored = unpack_history(saved_and_loaded(pack_history(recorder)))
    assert restored is not None
    before, after = recorder.to_message(), restored.to_message()
    assert after.scalars.steps == before.scalars.steps == list(range(30))
    assert after.layer_names == before.layer_names
    assert after.start == before.start


def test_without_a_history_nothing_is_stored() -> None:
    assert pack_history(None) == {}
    assert unpack_history({"step": 3}) is None


def test_a_history_that_cannot_be_stored_does_not_stop_a_checkpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = HistoryRecorder()
    recorder.add_metrics(3, {"\ud800": 1.0})  # no valid text
    assert pack_history(recorder) == {}
    assert "without the history" in caplog.text


@pytest.mark.parametrize(
    "packed",
    [
        torch.zeros(9, dtype=torch.uint8),
        torch.zeros(0),
        torch.tensor([0x91, 0xC4, 0]),
        "text",
        5,
        torch.zeros(9, dtype=torch.bfloat16),
    ],
    ids=["zeros", "empty", "no frames", "text", "number", "half precision"],
)
def test_a_damaged_history_is_ignored(packed: object, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert unpack_history({"history": packed}) is None
    assert "a new one begins" in caplog.text
