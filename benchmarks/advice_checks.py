"""Checks of `benchmarks.advice` beside the prices: healthy networks, and filters without effect."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning import RemoveFilters
from revacnn_lightning.diagnostics.dead_filters import DeadFilters
from revacnn_lightning.diagnostics.verdict_window import VerdictWindow
from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.telemetry import Recorder

__all__ = ["EPOCHS", "judge_healthy", "removals_without_effect"]

Batch = tuple[Tensor, Tensor]
COMPLAINTS = ("restless", "vanishing", "exploding", "nonfinite")
EPOCHS, JUDGED_EVERY = 3, 10


def judge_healthy(model: nn.Module, batches: Sequence[Batch]) -> tuple[int, int]:
    """Train a network; return how many layers were judged, and how many with a complaint."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    recorder, window, dead = Recorder(model), VerdictWindow(), DeadFilters()
    recorder.attach()
    judged = complaints = 0
    for step, (images, labels) in enumerate(batches):
        optimizer.zero_grad()
        recorder.begin_batch()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        recording = recorder.end_batch()
        assert recording is not None
        if step == 0:
            n = sum(recording.widths)
            offsets = np.cumsum([0, *recording.widths])
            window.update_structure(recording.layers, offsets, np.full(n, -1))
            dead = DeadFilters(n)
        rows = dict(zip(recording.names, recording.values, strict=True))
        window.add(step, rows)
        dead.add(step, rows["activation"])
        if step >= MIN_BATCHES and step % JUDGED_EVERY == 0:
            found = window.verdicts(dead.mask() if dead.is_known else None)
            judged += len(recording.layers)
            complaints += len({one.layer for one in found if one.kind in COMPLAINTS})
    recorder.detach()
    return judged, complaints


def removals_without_effect(model: nn.Module, batch: Batch) -> list[float]:
    """Silence a filter of each layer; return by how much its removal changes the output.

    Relative to the largest output. A layer of another width sums up in another order, so that
    rounding may differ.
    """
    changes = []
    for name, conv in list(model.named_modules()):
        if not isinstance(conv, nn.Conv2d) or conv.groups > 1:
            continue
        silenced = copy.deepcopy(model).eval()
        request = RemoveFilters(name, [0])
        probe = ForwardProbe([functools.partial(silenced, batch[0][:2])])
        editor = Editor(silenced)
        with torch.no_grad():
            for change in editor.plan(request, probe).filter_changes:
                _silence(silenced, change.layer, change.filters, editor.channel_groups(probe))
            before = silenced(batch[0])
            editor.apply(request, probe)
            difference = (before - silenced(batch[0])).abs().max() / before.abs().max()
            changes.append(float(difference))
    return changes


def _silence(model: nn.Module, layer: str, filters: list[int], groups: ChannelGroups) -> None:
    """Set all that filters consist of to zero, with their entries of the batch norms behind."""
    for name in (layer, *groups.norm_after.get(layer, ())):
        module: Any = model.get_submodule(name)
        for values in (module.weight, module.bias):
            if values is not None:
                values[filters] = 0
