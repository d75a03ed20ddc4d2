"""Where operations move the dimensions of a tensor, by the name of their autograd node."""

from __future__ import annotations

from typing import Any

__all__ = ["drops_exactly_one_dimension", "input_dimension", "to_signed", "unversioned_name"]

INSERTING = ("StackBackward", "UnsqueezeBackward")
DROPPING = ("SelectBackward", "SqueezeBackward")


def unversioned_name(node: Any) -> str:
    """Return the name of an autograd node without its version number, such as ``ReluBackward``."""
    name: str = node.name()
    return name.rstrip("0123456789")


def to_signed(value: int) -> int:
    """Return the signed number that autograd exposes as an unsigned 64-bit one."""
    return value - 2**64 if value >= 2**63 else value


def input_dimension(node: Any, output_dim: int, input_ndim: int, output_ndim: int) -> int | None:
    """Return which dimension of a node's input becomes dimension ``output_dim`` of its output.

    Args:
        node: a node of the autograd graph.
        output_dim: a dimension of the output, as a negative number.
        input_ndim: the number of dimensions of the input.
        output_ndim: the number of dimensions of the output.

    Returns:
        A negative number; None if the input has no such dimension. Dimensions are counted from the
        last one, so that one without a rule stays where it is.
    """
    name, index = unversioned_name(node), output_dim + output_ndim
    if name == "PermuteBackward":
        index = to_signed(node._saved_dims[index]) % input_ndim
    elif name == "TransposeBackward":
        first, second = (to_signed(d) % input_ndim for d in (node._saved_dim0, node._saved_dim1))
        index = {first: second, second: first}.get(index, index)
    elif name in INSERTING and input_ndim == output_ndim - 1:
        inserted = to_signed(node._saved_dim) % output_ndim
        if index == inserted:
            return None
        index -= index > inserted
    elif name in DROPPING and input_ndim == output_ndim + 1 and drops_exactly_one_dimension(node):
        index += index >= to_signed(node._saved_dim) % input_ndim
    else:
        return output_dim if -output_dim <= input_ndim else None
    return index - input_ndim


def drops_exactly_one_dimension(node: Any) -> bool:
    """Return whether a node drops one dimension, not several or none."""
    return isinstance(getattr(node, "_saved_dim", None), int)
