"""Checkpoints that a strategy loads after the fit has started."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from revacnn_lightning.runtime.checkpoint_hooks import CheckpointHooks
from revacnn_lightning.steering.checkpoint import STATE_KEY


class Module(nn.Module):
    """With the hooks of a LightningModule."""

    def on_load_checkpoint(self, checkpoint: Any) -> None: ...

    def on_save_checkpoint(self, checkpoint: Any) -> None: ...


@pytest.mark.parametrize("is_late", [True, False])
def test_edits_that_are_not_adopted_are_logged(is_late: bool, caplog: pytest.LogCaptureFixture):
    strategy = SimpleNamespace(restore_checkpoint_after_setup=is_late)
    module: Any = Module()
    hooks = CheckpointHooks(module, SimpleNamespace(strategy=strategy, optimizers=[]))
    hooks.install()
    hooks.start([])
    module.on_load_checkpoint({STATE_KEY: {}})
    assert ("freeze its frozen filters again" in caplog.text) == is_late
