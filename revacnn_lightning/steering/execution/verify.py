"""Is the edited model the one that was asked for? Asked of the model itself, by running it.

Growth must leave the output where it was. Removal must give what the old model gives with the
removed filters' outgoing columns set to zero. Either is compared on the verifying batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.execution import tensor_edits as surgery
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning import index_mapping as placement
from revacnn_lightning.steering.planning.filters import move_of
from revacnn_lightning.steering.planning.plan import EditPlan, FilterMove, order_of
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardProbe,
    evaluate,
    relative_change,
    trace,
)

__all__ = [
    "redraw_silent_filters",
    "check",
    "check_shapes",
    "expected",
    "random_rows",
    "is_mixed",
    "settled",
    "unused",
]

# No rounding is looked for in a difference above this: in double precision the deepest networks
# amplify it to 1e-6, and a channel in the wrong place changes the output by far more.
LARGEST_ROUNDING = 1e-5

# A fresh filter is alive on half of all inputs or so; eight silent draws mean its input is silent.
DRAWS = 8


def expected(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    probe: ForwardProbe,
    was: list[Tensor],
    generator: torch.Generator,
) -> list[Tensor]:
    """The output an exact edit gives: the old model's, with what the plan removes silenced."""
    silenced = [e for e in plan.tensors if not e.new and e.fill == "zero"]
    if not silenced and not plan.values:
        return was
    start = tx.size
    for value in plan.values:
        surgery.change_values(tx, model, value, [], generator)
    for edit in silenced:
        _, tensor = surgery.find(model, edit.tensor)
        kept = np.zeros(edit.size, bool)
        kept[order_of(edit)[0]] = True
        gone = torch.from_numpy(np.flatnonzero(~kept)).to(tensor.device)
        zeroed = tensor.detach().clone().index_fill_(edit.dim, gone, 0.0)
        surgery.replace(tx, tensor, zeroed, tensor.grad)
    output = evaluate(model, probe)
    tx.rollback(keep=start)
    return output


def settled(before: ChannelGroups, after: ChannelGroups, plan: EditPlan) -> EditPlan:
    """The plan with its columns where their labels arrive; the same object if they were right.

    Raises:
        EditFailed: some label arrives where it never did.
    """
    tensors = placement.settle(before, after, plan.tensors, strict=is_mixed(before, plan))
    if tensors == plan.tensors:
        return plan
    by_key = {(edit.tensor, edit.dim): edit for edit in tensors}
    filters = [move_of(m.layer, by_key[m.tensor, m.dim], m.size) for m in plan.filters]
    return msgspec.structs.replace(plan, tensors=tensors, filters=filters)


def removed_filters(move: FilterMove) -> list[int]:
    """The filters a move leaves out, or, for one that adds, the filters they stand behind."""
    order, new = order_of(move)
    if new.any():
        return sorted(set(order[new].tolist()))
    return sorted(set(range(move.size)) - set(order.tolist()))


def is_mixed(channels: ChannelGroups, plan: EditPlan) -> bool:
    """Whether the edited channels are normalised together, so that no output is expected."""
    classes = {c for m in plan.filters for c in channels.classes(m.layer, removed_filters(m))}
    return bool(channels.mixed(classes))


@contextmanager
def unused(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """A layer that was taken out must not be run inside: someone else holds it.

    Raises:
        EditFailed: it was run.
    """
    ran: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, module in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if ran:
        raise EditFailedError(
            f"{ran[0]} is run although it was taken out: the model's code holds it"
        )


def check_shapes(now: Sequence[Tensor], was: Sequence[Tensor]) -> None:
    """The output must have the shape it had.

    Raises:
        EditFailed: it has not.
    """
    shapes = [tuple(t.shape) for t in now], [tuple(t.shape) for t in was]
    if shapes[0] != shapes[1]:
        raise EditFailedError(f"the output's shapes were {shapes[1]} and became {shapes[0]}")


def random_rows(plan: EditPlan) -> list[tuple[str, int, int]]:
    """(tensor, dim, index) of every new row that is drawn at random."""
    return [(e.tensor, e.dim, i) for e in plan.tensors if e.fill == "fresh" for i in e.new]


def redraw_silent_filters(
    tx: Transaction,
    model: nn.Module,
    plan: EditPlan,
    probe: ForwardProbe,
    after: ChannelGroups,
    generator: torch.Generator,
) -> ChannelGroups:
    """Draw new filters again that no consumer ever sees other than zero.

    A filter that is dead behind a ReLU from the start gets no gradient. Returns the last trace.
    """
    fresh = [edit for edit in plan.tensors if edit.fill == "fresh"]
    for _ in range(DRAWS):
        if not len(after.dead):
            return after
        for edit in fresh:
            surgery.redraw(tx, model, edit, generator)
        after = trace(model, probe, random_rows(plan))
    if len(after.dead):
        plan.notes.append("a new filter is silent on the verifying batch, also when drawn again")
    return after


def check(
    tx: Transaction,
    model: nn.Module,
    probe: ForwardProbe,
    now: list[Tensor],
    expected: list[Tensor],
    epsilon: float,
) -> None:
    """Compare the output with the expected one.

    The tolerance is a third of the square root of the rounding unit (5e-9 in double, 1e-4 in
    single precision). A deep network may amplify rounding beyond that, so a larger difference is
    compared with what a perturbation of all weights by one rounding unit does to the output.

    Raises:
        EditFailed: the difference is larger than rounding explains.
    """
    difference = relative_change(now, expected)
    tolerance = math.sqrt(epsilon) / 3
    if difference <= tolerance:
        return
    if difference <= max(min(30 * tolerance, 0.1), LARGEST_ROUNDING):
        noise = relative_change(_perturbed(tx, model, probe, epsilon), now)
        if difference <= 30 * noise:
            return
    raise EditFailedError(
        f"the output differs by {difference:.1e} from what the edit should give (tolerance "
        f"{tolerance:.0e}); it was taken back"
    )


def _perturbed(
    tx: Transaction, model: nn.Module, probe: ForwardProbe, epsilon: float
) -> Sequence[Tensor]:
    """The output with every weight moved by about one rounding unit."""
    generator = torch.Generator().manual_seed(0)
    start = tx.size
    for parameter in model.parameters():
        if parameter.is_floating_point():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            moved = parameter.detach() * (1 + epsilon * noise).to(parameter)
            surgery.replace(tx, parameter, moved, parameter.grad)
    output = evaluate(model, probe)
    tx.rollback(keep=start)
    return output
