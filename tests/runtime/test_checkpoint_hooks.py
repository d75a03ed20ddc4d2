"""Checkpoints that a strategy loads after the fit has started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from revacnn_lightning import AddFilters
from revacnn_lightning.runtime.checkpoint_hooks import CheckpointHooks
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.checkpoint import add_edits
from tests.small import TwoConvs


def checkpoint_of_edited_model() -> dict[str, Any]:
    model, images = TwoConvs(), torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    Editor(model).apply(AddFilters("conv1"), ForwardProbe([lambda: model(images)]))
    checkpoint: dict[str, Any] = {}
    add_edits(checkpoint, model, [])
    return checkpoint


@pytest.mark.parametrize("is_late", [True, False])
def test_edits_that_cannot_be_adopted_are_logged(is_late: bool, caplog: pytest.LogCaptureFixture):
    strategy = SimpleNamespace(restore_checkpoint_after_setup=is_late)
    model = TwoConvs()
    trainer: Any = SimpleNamespace(strategy=strategy, optimizers=[], callbacks=[])
    CheckpointHooks(model, trainer).install()
    model.on_load_checkpoint(checkpoint_of_edited_model())
    assert ("not adopted" in caplog.text) == is_late
    assert model.conv1.out_channels == (4 if is_late else 5)
