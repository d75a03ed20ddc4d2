"""Attributes that count channels must go on counting them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.steering.planning.plan import AttributeEdit
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.records import SizeUse
from revacnn_lightning.steering.tracing.traced_int import SizeAttribute

__all__ = ["attribute_edits"]


def attribute_edits(
    model: nn.Module, channels: ChannelGroups, classes: Sequence[int], per_atom: int
) -> list[AttributeEdit]:
    """What has to change if each atom of the classes becomes ``1 + per_atom`` atoms.

    Raises:
        Refused: an attribute would have to be two numbers at once, or what it would have to be
            cannot be told.
    """
    uses = {
        (use.expression, len(use.atoms) + change): use
        for use in channels.uses
        for change in [per_atom * channels.count_in(classes, use.atoms.numpy())]
    }
    found: dict[SizeAttribute, int] = {}
    for (expression, count), use in uses.items():
        if expression.linear and len(expression.terms) == 1:
            ((attribute, factor),) = expression.terms
            needed = (count - expression.constant) / factor
            if needed.denominator != 1 or found.setdefault(attribute, int(needed)) != needed:
                raise EditRefusedError(_two_numbers(model, attribute, use))
    for (expression, count), use in uses.items():
        if not expression.linear:
            _check_unchanged(model, expression.terms, count == len(use.atoms), found, use)
        elif expression.value(lambda a: found.get(a, value_of(model, a))) != count:
            names = " and ".join(str(attribute) for attribute, _ in expression.terms)
            raise EditRefusedError(f"{names} together count these channels in {use.where}; which of them "
                          "would have to change is not known")  # fmt: skip
    return [
        AttributeEdit(a.module, a.name, value_of(model, a), new, a.entry)
        for a, new in sorted(found.items())
        if new != value_of(model, a)
    ]


def _check_unchanged(
    model: nn.Module,
    terms: Sequence[tuple[SizeAttribute, Fraction]],
    same_count: bool,
    found: dict[SizeAttribute, int],
    use: SizeUse,
) -> None:
    """A product or quotient may count channels as long as nothing of it changes.

    If both its value and its attributes change, verification tells whether they change alike.
    """
    moved = [a for a, _ in terms if found.get(a, value_of(model, a)) != value_of(model, a)]
    if not same_count and not moved:
        names = " and ".join(str(attribute) for attribute, _ in terms)
        raise EditRefusedError(f"the number of these channels is computed from {names} in {use.where}; "
                      "how it would have to change is not known")  # fmt: skip


def _two_numbers(model: nn.Module, attribute: SizeAttribute, use: SizeUse) -> str:
    return (
        f"{attribute} = {value_of(model, attribute)} counts channels in {use.where} and elsewhere "
        "that would no longer be equally many"
    )


def value_of(model: nn.Module, attribute: SizeAttribute) -> int:
    value = getattr(model.get_submodule(attribute.module), attribute.name)
    return int(value if attribute.entry < 0 else value[attribute.entry])
