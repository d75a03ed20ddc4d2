"""Whether removing filters that are certified as dead leaves the output as it was, bit by bit.

A layer of another width sums its inputs up in another order, and a matrix product of another size
may use another kernel: floating-point results may then round differently although the terms that
are left out are zeros. Therefore each removal is measured four ways:

- float32, float64: the output before and after the removal, relative to the largest one. If the
  difference is rounding only, it shrinks with the rounding unit, by about 5e8.
- masked: the filter stays, and what reads it is set to zero instead: the same sizes, float32.
- exact: the same network with weights that are multiples of 1/8, a batch norm that scales by 1, and
  inputs that are multiples of 1/4, in float64: all sums are exact, in whatever order. A removal
  that changes the function in any way shows here.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning import RemoveFilters
from revacnn_lightning.runtime.provably_dead_filters import ProvablyDeadFilters
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.reference_outputs import disconnect_removed_filters
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.telemetry import Recorder

__all__ = ["MeasuredRemoval", "float64_copy", "measure_removals", "removal_output_change"]

Batch = tuple[Tensor, Tensor]
STEPS = 10  # of training before filters are silenced, and after that
SILENCED = 0  # the filter of each layer that is


@dataclass(frozen=True)
class MeasuredRemoval:
    """The removal of one certified filter: how much each output changes, see above."""

    layer: str
    float32: float
    float64: float
    masked: float
    exact: float


def measure_removals(model: nn.Module, batches: list[Batch], held_out: Batch) -> Iterator[
    MeasuredRemoval | str
]:  # fmt: skip
    """Yield the removal of a dead filter of each layer, or the name of a layer without one.

    The filter is silenced in the middle of a training with momentum, which goes on: it must be
    certified then. What is coupled with it is silenced, too.
    """
    for name, conv in list(model.named_modules()):
        if not isinstance(conv, nn.Conv2d) or conv.groups > 1:
            continue
        trained = copy.deepcopy(model)
        if SILENCED not in _train_silenced(trained, name, batches):
            yield name
            continue
        trained.eval()
        images = held_out[0]
        yield MeasuredRemoval(
            name,
            removal_output_change(trained, name, images),
            removal_output_change(copy.deepcopy(trained).double(), name, images.double()),
            _masked_change(trained, name, images),
            removal_output_change(float64_copy(trained), name, (images * 4).round().double() / 4),
        )


def _train_silenced(model: nn.Module, layer: str, batches: list[Batch]) -> list[int]:
    """Train a network whose filter is silenced on the way; return which filters are certified."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    recorder = Recorder(model)
    editor = Editor(model, [optimizer])
    probe = ForwardProbe([functools.partial(model, batches[0][0][:2])])
    groups = editor.channel_groups(probe)
    recorder.attach()
    for step, (images, labels) in enumerate(batches[: 2 * STEPS]):
        if step == STEPS:
            request = RemoveFilters(layer, [SILENCED])
            for change in editor.plan(request, probe).filter_changes:
                _silence(model, optimizer, change.layer, change.filters, groups)
        recorder.begin_batch()
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        recorder.end_batch()
    certified, _ = ProvablyDeadFilters(recorder, editor, lambda: [optimizer]).find_in_layer(layer)
    recorder.detach()
    return certified


def _silence(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    layer: str,
    filters: list[int],
    groups: ChannelGroups,
) -> None:
    """Set all that filters consist of to zero, with their batch norms and their momentum."""
    for name in (layer, *groups.norm_after.get(layer, ())):
        module: Any = model.get_submodule(name)
        for values in (module.weight, module.bias):
            if values is not None:
                values.data[filters] = 0
                optimizer.state[values]["momentum_buffer"][filters] = 0


def removal_output_change(
    model: nn.Module, layer: str, images: Tensor, index: int = SILENCED
) -> float:
    """Return by how much the output changes if the filter is removed from a copy, relatively."""
    edited = copy.deepcopy(model)
    with torch.no_grad():
        before = model(images)
        probe = ForwardProbe([functools.partial(edited, images[:2])])
        Editor(edited).apply(RemoveFilters(layer, [index]), probe)
        return _difference(before, edited(images))


def _masked_change(model: nn.Module, layer: str, images: Tensor) -> float:
    """Return by how much the output changes if nothing reads the filter any more, relatively."""
    editor = Editor(model)
    plan = editor.plan(
        RemoveFilters(layer, [SILENCED]), ForwardProbe([functools.partial(model, images[:2])])
    )
    with torch.no_grad(), Transaction() as tx:
        before = model(images)
        disconnect_removed_filters(tx, model, plan, Initializer(torch.Generator()))
        after = model(images)
        tx.rollback()
    return _difference(before, after)


def _difference(before: Tensor, after: Tensor) -> float:
    if torch.equal(before, after):
        return 0.0
    return float((before - after).abs().max() / before.abs().max())


def float64_copy(model: nn.Module) -> nn.Module:
    """Return a copy whose sums are exact in float64."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        for module in exact.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_var is not None
                assert module.running_mean is not None
                module.running_var.fill_(0.75)
                module.eps = 0.25
                module.running_mean.mul_(8).round_().div_(8)
                module.weight.copy_((module.weight != 0).double())
                module.bias.mul_(8).round_().div_(8)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                for parameter in module.parameters():
                    parameter.mul_(32).round_().div_(8)
    return exact
