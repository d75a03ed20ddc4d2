"""Where operations move the dimensions of a tensor, by the name of their autograd node."""

from __future__ import annotations

from typing import Any

__all__ = ["dimension_before", "drops_one", "rule_name", "to_signed"]

INSERTING = ("StackBackward", "UnsqueezeBackward")
DROPPING = ("SelectBackward", "SqueezeBackward")


def rule_name(node: Any) -> str:
    """Return the name of a node without its version number."""
    name: str = node.name()
    return name.rstrip("0123456789")


def to_signed(value: int) -> int:
    """Undo that autograd exposes negative numbers as unsigned 64-bit ones."""
    return value - 2**64 if value >= 2**63 else value


def dimension_before(node: Any, dim: int, before: int, after: int) -> int | None:
    """Return which dimension of a node's input becomes dimension ``dim`` of its output.

    Args:
        node: of the autograd graph.
        dim: of the output, a negative number.
        before: number of dimensions of the input.
        after: the same of the output.

    Returns:
        A negative number; None if the input has no such dimension. Dimensions are counted from the
        last one, so that one without a rule stays where it is.
    """
    name, index = rule_name(node), dim + after
    if name == "PermuteBackward":
        index = to_signed(node._saved_dims[index]) % before
    elif name == "TransposeBackward":
        first, second = (to_signed(d) % before for d in (node._saved_dim0, node._saved_dim1))
        index = {first: second, second: first}.get(index, index)
    elif name in INSERTING and before == after - 1:
        inserted = to_signed(node._saved_dim) % after
        if index == inserted:
            return None
        index -= index > inserted
    elif name in DROPPING and before == after + 1 and drops_one(node):
        index += index >= to_signed(node._saved_dim) % before
    else:
        return dim if -dim <= before else None
    return index - before


def drops_one(node: Any) -> bool:
    """Return whether a node drops one dimension, not several or none."""
    return isinstance(getattr(node, "_saved_dim", None), int)
