"""Layers that the traced forwards did not run, and that may read the channels of an edit.

A forward may take another branch on another batch. A layer of a branch that was not traced would
not be edited, and training would fail when a batch takes the branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.plan import TensorEdit

__all__ = ["untraced_consumers"]


def untraced_consumers(
    context: PlanningContext, edits: Sequence[TensorEdit]
) -> tuple[list[str], bool]:
    """Return the layers that no forward ran and that may read the edited channels by their width.

    Returns:
        Their names, and whether it is certain that no batch ever runs them: an optimizer trains
        none of them.

    Raises:
        EditRefusedError: other batches run one of them, or it is not known whether they do.
    """
    widths = {edit.size for edit in edits}
    names = {tensor.rpartition(".")[0] for tensor in context.groups.unused}
    layers = [
        name
        for name in sorted(names)
        if not _is_weight_read(context, name)
        and _may_read(context.model.get_submodule(name), widths)
        and not any(f"{name}.".startswith(f"{copy}.") for copy in context.copies)
    ]
    if not layers:
        return [], True
    if not any(_is_trained(context, parameter) for parameter in context.model.parameters()):
        raise EditRefusedError(
            f"{layers[0]} was not run by this forward and may read these filters. No batch has "
            "been trained yet that shows whether it is ever run; repeat the request after the next "
            "batch"
        )
    for layer in layers:
        module = context.model.get_submodule(layer)
        if any(_is_trained(context, each) for each in module.parameters(recurse=False)):
            raise EditRefusedError(
                f"{layer} was not run by this forward and may read these filters, but it was "
                "trained by other batches, which would fail after the edit; repeat the request "
                "with a batch that runs it, or pass the option forward=... with a forward that "
                "runs all branches"
            )
    groups = [group for optimizer in context.optimizers for group in optimizer.param_groups]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    trainable = (
        each
        for layer in layers
        for each in context.model.get_submodule(layer).parameters(recurse=False)
    )
    return layers, not any(id(each) in held and each.requires_grad for each in trainable)


def _is_weight_read(context: PlanningContext, layer: str) -> bool:
    """Return whether a forward has read the weight of a layer, whose bias it did not read."""
    weight = context.model.get_submodule(layer)._parameters.get("weight")
    return weight is not None and f"{layer}.weight" not in context.groups.unused


def _may_read(module: nn.Module, widths: Iterable[int]) -> bool:
    """Return whether the input of a module may have one of these numbers of channels.

    A linear layer may read several values of each channel, after a flatten.
    """
    if isinstance(module, nn.Linear):
        return any(width > 1 and module.in_features % width == 0 for width in widths)
    return not set(_input_sizes(module)).isdisjoint(widths)


def _input_sizes(module: nn.Module) -> Iterator[int]:
    for attribute in ("in_channels", "num_features", "num_channels"):
        size = getattr(module, attribute, None)
        if isinstance(size, int):
            yield size


def _is_trained(context: PlanningContext, parameter: Tensor) -> bool:
    """Return whether some batch has given the parameter a gradient."""
    if parameter.grad is not None:
        return True
    return any(optimizer.state.get(parameter) for optimizer in context.optimizers)
