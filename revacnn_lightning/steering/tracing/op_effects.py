"""What an operation does to its arguments, according to its schema."""

from __future__ import annotations

import functools
from enum import Enum, auto
from typing import Any

import torch

from revacnn_lightning.steering.tracing.rules.op_families import UNINITIALIZED

__all__ = [
    "UNDETERMINED",
    "MemoryEffect",
    "memory_effect_of",
    "out_of_place_variant",
    "updates_statistics",
]

# What these return is not determined by their arguments, though no tag says so.
UNDETERMINED = UNINITIALIZED | {
    "empty_like",
    "empty_strided",
    "new_empty_strided",
    "empty_permuted",
}


class MemoryEffect(Enum):
    """What a call does.

    - RESULT: it returns new tensors, whose values follow from its arguments alone;
    - VIEW: it returns other views of the memory of its arguments;
    - WRITE: it gives its first argument new values, which follow from its arguments alone;
    - UNKNOWN: anything else, such as drawing random numbers.
    """

    RESULT = auto()
    VIEW = auto()
    WRITE = auto()
    UNKNOWN = auto()


@functools.cache
def memory_effect_of(func: Any) -> MemoryEffect:
    """Return the effect of an operation, according to its schema."""
    schema = getattr(func, "_schema", None)
    if schema is None or torch.Tag.nondeterministic_seeded in func.tags:
        return MemoryEffect.UNKNOWN
    namespace, _, name = schema.name.partition("::")
    if namespace != "aten" or name in UNDETERMINED:  # others may have a state of their own
        return MemoryEffect.UNKNOWN
    aliased = [each for each in schema.arguments if each.alias_info is not None]
    written = [each for each in aliased if each.alias_info.is_write]
    if not aliased:
        is_new = all(each.alias_info is None for each in schema.returns)
        return MemoryEffect.RESULT if is_new else MemoryEffect.UNKNOWN
    if not written:
        return MemoryEffect.VIEW
    is_first = aliased[0].name == schema.arguments[0].name
    is_single = len(aliased) == len(written) == len(schema.returns) == 1
    return (
        MemoryEffect.WRITE
        if is_first and is_single and name.endswith("_")
        else MemoryEffect.UNKNOWN
    )


def updates_statistics(func: Any, args: tuple[Any, ...]) -> bool:
    """Return whether a norm writes to its running statistics, which its schema does not say."""
    if func._schema.name.endswith(("_no_training", "_no_update")):
        return False
    return next((arg for arg in args if isinstance(arg, bool)), True)  # the first flag


@functools.cache
def out_of_place_variant(func: Any) -> Any:
    """Return the operation that returns what ``func`` writes to its first argument; None if none.

    ``relu`` for ``relu_``: with the same arguments.
    """
    schema = func._schema
    packet = getattr(torch.ops.aten, schema.name.partition("::")[2][:-1], None)
    found = getattr(packet, schema.overload_name or "default", None)
    if found is None or memory_effect_of(found) is not MemoryEffect.RESULT:
        return None
    names = [argument.name for argument in schema.arguments]
    is_same = [argument.name for argument in found._schema.arguments] == names
    return found if is_same and len(found._schema.returns) == 1 else None
