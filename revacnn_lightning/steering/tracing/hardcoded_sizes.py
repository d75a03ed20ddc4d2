"""Finds sizes that are written as numbers in the calls of the model's code: ``x.view(-1, 64)``.

An operation receives the value of a size only. Whether it is written in the code or read from a
shape is in the source of the frame that called it. Without that source, nothing is found.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch

import revacnn_lightning

__all__ = ["HardcodedSize", "find_hardcoded_size"]

METHODS = ("view", "reshape", "unflatten")
MAX_TEXT = 60  # characters of a call in a message
_SKIPPED = tuple(str(Path(str(each.__file__)).parent) for each in (torch, revacnn_lightning))
Position = tuple[int | None, int | None, int | None, int | None]


class HardcodedSize(NamedTuple):
    """Where a size is written as a number in a call.

    Attributes:
        call: the text of the call.
        place: the name of its file and its line.
    """

    call: str
    place: str


def find_hardcoded_size(dim: int, ndim: int, size: int) -> HardcodedSize | None:
    """Return where the calling code of the model writes this size of a result as a number.

    Args:
        dim: the dimension of the result that has the size.
        ndim: the number of dimensions of the result.
        size: the length of ``dim``.

    Returns:
        None if no number of that value is written there, or the source is not known.
    """
    frame = _calling_frame()
    call = None if frame is None else _call_at(frame)
    if frame is None or call is None:
        return None
    written = _argument(call, dim, ndim)
    if written is None or _value(written, frame.f_globals, frame.f_locals) != size:
        return None
    text = ast.unparse(call)
    text = text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
    return HardcodedSize(text, f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}")


def _calling_frame() -> FrameType | None:
    """Return the innermost frame that runs code of neither torch nor this package."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_SKIPPED):
        frame = frame.f_back
    return frame


def _call_at(frame: FrameType) -> ast.Call | None:
    """Return the call of a view or reshape that the frame performs."""
    calls = _calls_in(frame.f_code.co_filename)
    if sys.version_info >= (3, 11):
        position = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
        return calls.get(position)
    line = frame.f_lineno
    around = [c for (a, b, *_), c in calls.items() if a is not None and a <= line <= (b or a)]
    return around[0] if len(around) == 1 else None


@functools.lru_cache(maxsize=64)
def _calls_in(path: str) -> Mapping[Position, ast.Call]:
    """Return the calls of views and reshapes in a source file by their position."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except SyntaxError:
        return {}
    return {
        (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset): node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in METHODS
    }


def _argument(call: ast.Call, dim: int, ndim: int) -> ast.expr | None:
    """Return the expression of the size of one dimension of the result."""
    assert isinstance(call.func, ast.Attribute)
    args: Sequence[ast.expr] = call.args
    if isinstance(call.func.value, ast.Name) and call.func.value.id == "torch":
        args = args[1:]  # torch.reshape(x, shape)
    if call.func.attr == "unflatten":
        first = args[0] if args else None
        offset = _value(first, {}, {}) if first is not None else None
        if offset is None or offset < 0 or len(args) < 2:
            return None
        args, dim = args[1:], dim - offset
        ndim = -1
    if len(args) == 1 and isinstance(args[0], (ast.Tuple, ast.List)):
        args = args[0].elts
    if 0 <= dim < len(args) and not any(isinstance(each, ast.Starred) for each in args[: dim + 1]):
        return args[dim]
    behind = args[dim - ndim :] if 0 < ndim - dim <= len(args) else []
    return behind[0] if behind and not any(isinstance(a, ast.Starred) for a in behind) else None


_OPERATIONS: dict[type[ast.operator], Any] = {
    ast.Add: int.__add__,
    ast.Sub: int.__sub__,
    ast.Mult: int.__mul__,
}


def _value(
    node: ast.expr, constants: Mapping[str, Any], variables: Mapping[str, Any]
) -> int | None:
    """Return the integer that an expression of numbers and global constants has; else None."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.Name) and node.id not in variables:
        found = constants.get(node.id)
        return found if type(found) is int else None
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = (_value(each, constants, variables) for each in (node.left, node.right))
        return None if left is None or right is None else _OPERATIONS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = _value(node.operand, constants, variables)
        return None if operand is None else -operand
    return None
