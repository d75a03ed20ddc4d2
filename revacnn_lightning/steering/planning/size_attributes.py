"""Plans the new values of module attributes that count channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.steering.planning.plan import AttributeEdit
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.records import AttributesEqualToChannelCount
from revacnn_lightning.steering.tracing.traced_int import (
    LinearExpression,
    SizeAttribute,
    SizeReadFromShape,
    SizeSource,
)

__all__ = ["size_attribute_edits"]


def size_attribute_edits(
    model: nn.Module, channel_groups: ChannelGroups, groups: Sequence[int], copy_count: int
) -> list[AttributeEdit]:
    """Return the edits after which every traced size counts its channels again.

    Args:
        groups: the channel groups that are resized.
        copy_count: how many copies of each of their channels are added; -1 removes the channels.

    Raises:
        EditRefusedError: an attribute would need two values, or its new value is ambiguous.
    """
    uses = {
        (use.expression, len(use.channels) + change): use
        for use in channel_groups.size_uses
        for change in [copy_count * channel_groups.count_in(groups, use.channels.numpy())]
    }
    new_values: dict[SizeSource, int] = {}
    for number, channels in enumerate(channel_groups.shape_sizes):
        change = copy_count * channel_groups.count_in(groups, channels.numpy())
        new_values[SizeReadFromShape(number, len(channels))] = len(channels) + change
    solved = _solve(model, uses)
    for attribute, value in solved.items():
        new_values[attribute] = value
    for (expression, count), use in uses.items():
        _check_divisors(model, expression, new_values, use)
        if not expression.is_linear:
            _check_unchanged(model, expression, count == len(use.channels), new_values, use)
        elif expression.value(lambda a: new_values.get(a, _value(model, a))) != count:
            names = " and ".join(str(attribute) for attribute, _ in expression.terms)
            raise EditRefusedError(
                f"{names} together count these channels in {use.where}; which of them has to "
                "change is ambiguous"
            )
    return [
        AttributeEdit(a.module, a.name, _value(model, a), new, a.entry)
        for a, new in sorted(solved.items())
        if new != _value(model, a)
    ]


def _solve(
    model: nn.Module, uses: dict[tuple[LinearExpression, int], AttributesEqualToChannelCount]
) -> dict[SizeAttribute, int]:
    """Return the values of all attributes that alone determine a count."""
    values: dict[SizeAttribute, int] = {}
    for (expression, count), use in uses.items():
        if expression.is_linear and len(expression.terms) == 1:
            ((attribute, factor),) = expression.terms
            if isinstance(attribute, SizeReadFromShape):
                continue
            needed = (count - expression.constant) / factor
            if needed.denominator != 1 or values.setdefault(attribute, int(needed)) != needed:
                raise EditRefusedError(
                    f"{attribute} = {_value(model, attribute)} counts channels in {use.where} and "
                    "elsewhere whose numbers would no longer be equal"
                )
    return values


def _check_divisors(
    model: nn.Module,
    expression: LinearExpression,
    new_values: dict[SizeSource, int],
    use: AttributesEqualToChannelCount,
) -> None:
    """Check that what a number of channels was divided by keeps its value."""
    for divisor in expression.divisors:
        if new_values.get(divisor, _value(model, divisor)) != _value(model, divisor):
            raise EditRefusedError(
                f"a number of channels is divided by {divisor} in {use.where}, which would change "
                "as well"
            )


def _check_unchanged(
    model: nn.Module,
    expression: LinearExpression,
    same_count: bool,
    new_values: dict[SizeSource, int],
    use: AttributesEqualToChannelCount,
) -> None:
    """Check that a product or quotient of attributes keeps its value, or that attributes change.

    If both its value and its attributes change, verification finds out whether they still agree.
    """
    terms = expression.terms
    changed = [a for a, _ in terms if new_values.get(a, _value(model, a)) != _value(model, a)]
    if not same_count and not changed:
        names = " and ".join(str(attribute) for attribute, _ in terms)
        raise EditRefusedError(
            f"the number of these channels is computed from {names} in {use.where}; how these "
            "have to change is ambiguous"
        )


def _value(model: nn.Module, attribute: SizeSource) -> int:
    if isinstance(attribute, SizeReadFromShape):
        return attribute.size
    value = getattr(model.get_submodule(attribute.module), attribute.name)
    return int(value if attribute.entry < 0 else value[attribute.entry])
