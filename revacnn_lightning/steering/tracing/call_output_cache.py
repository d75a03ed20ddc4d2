"""Outputs that the forwards of one edit have in common.

An edit runs the model before the change, with the removed filters silenced, after the change, and
traced. Up to the edited layer all of these compute the same. `CallOutputCache` computes it once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.steering.tracing.compared_calls import (
    CachedCallResult,
    ExpensiveCallCache,
    Place,
)
from revacnn_lightning.steering.tracing.content_numbers import ContentNumbers, can_be_numbered
from revacnn_lightning.steering.tracing.op_effects import (
    MemoryEffect,
    memory_effect_of,
    out_of_place_variant,
    updates_statistics,
)
from revacnn_lightning.steering.tracing.tensor_snapshots import (
    CopyOnWriteSnapshots,
    have_same_layout,
)

__all__ = ["CallOutputCache"]

# As much as the activations of two samples of a large network; training keeps those of a batch.
_MAX_BYTES = 1 << 29


class CallOutputCache:
    """The outputs of calls of the forwards of one edit. Call `begin` before each forward.

    The output of a call is reused

    - if its arguments are known to have the same contents as those of an earlier call, by their
      numbers (`ContentNumbers`), or if it is expensive and they are equal, bit by bit
      (`ExpensiveCallCache`). So it is what the operation would have returned;
    - in a forward that is only traced, also if it is expensive and its arguments have the same
      shapes. What a trace needs are shapes, and values as the network has them. (A new weight
      is at another address. What a pooling returns shows whether a new filter is silent.)

    An operation in place on a tensor that is the only one in its memory gives the tensor other
    memory instead, so what was there before is kept without a copy.

    If the outputs need too much memory, only those of expensive calls are kept. Of the last
    forward, none are.

    Between two forwards, the values of weights may only be changed by replacing their data, or by
    operations that count up their versions. Outputs on a GPU are not reused.
    """

    def __init__(self) -> None:
        self._numbers = ContentNumbers()
        self._results: dict[Hashable, CachedCallResult] = {}
        self._written: dict[Hashable, int] = {}  # what operations in place have written
        self._kept = CopyOnWriteSnapshots()
        self._calls = ExpensiveCallCache(self._kept)
        self._produced: set[int] = set()  # addresses of the results of this forward
        self._forward = 0
        self._is_exact = True
        self._is_last = False
        self._bytes = 0  # of all results
        self._is_full = False

    def begin(self, *, exact: bool, is_last: bool = False) -> None:
        """Begin a forward, in which each output is returned at most once.

        Args:
            exact: whether the values that the forward computes matter.
            is_last: whether no other forward is expected; if one comes, it computes more itself.
        """
        self._forward += 1
        self._is_exact = exact
        self._is_last = is_last
        self._produced.clear()
        self._calls.begin()
        self._numbers.begin()

    def run(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], written: Sequence[Tensor]
    ) -> Any:
        """Run an operation, or return the output it would have.

        Args:
            written: the tensors that it may write to.
        """
        effect = memory_effect_of(func)
        if written and effect is MemoryEffect.RESULT and updates_statistics(func, args):
            effect = MemoryEffect.UNKNOWN
        if self._is_full:
            return self._run_full(effect, func, args, kwargs, written)
        if effect is MemoryEffect.UNKNOWN or torch.is_grad_enabled():
            return self._run_unknown(func, args, kwargs, written)
        key = self._numbers.call_key(func, args, kwargs)
        if key is None and self._is_last:
            return self._run_last(effect, func, args, kwargs, written)
        if key is None:
            return self._run_unknown(func, args, kwargs, written)
        if effect is MemoryEffect.VIEW:
            return func(*args, **kwargs)
        if effect is MemoryEffect.WRITE:
            return self._write(key, func, args, kwargs)
        return self._compute(key, func, args, kwargs)

    def _run_unknown(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], written: Sequence[Tensor]
    ) -> Any:
        """Run an operation that may do anything that its schema says."""
        for tensor in written:
            self._prepare_write(tensor)
        output = func(*args, **kwargs)
        for tensor in (*written, *_tensors_in((output,))):
            if can_be_numbered(tensor):
                self._numbers.record_and_hold(tensor)
        return output

    def _run_last(
        self,
        effect: MemoryEffect,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: Sequence[Tensor],
    ) -> Any:
        """Run an operation on tensors of the last forward, or return the output it would have."""
        for tensor in written:
            self._prepare_write(tensor)
        if effect is MemoryEffect.RESULT and _are_numbered(args, kwargs):
            place = self._calls.next_place(func, args)
            found = place and self._calls.find(place, args, kwargs, exact=True)
            if found and found.forward != self._forward:
                return self._returned(found)
        return self._ignored(func(*args, **kwargs), written)

    def _ignored(self, output: Any, written: Sequence[Tensor] = ()) -> Any:
        """Return the output of an operation of the last forward, and keep nothing of it."""
        for tensor in (*written, *_tensors_in((output,))):
            if can_be_numbered(tensor):
                self._numbers.mark_unnumbered(tensor)
        return output

    def _write(
        self, key: Hashable, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operation in place, or give its first argument the memory of an equal result."""
        target = args[0]
        variant = out_of_place_variant(func)
        if variant is not None and self._may_move(target):
            moved = self._numbers.call_key(variant, args, kwargs)
            result = self._compute(moved, variant, args, kwargs)
            if have_same_layout(result, target):
                target.data = result
                return target
        self._prepare_write(target)
        output = func(*args, **kwargs)
        if key not in self._written:
            self._written[key] = self._numbers.new_number()
        self._numbers.record_and_hold(target, self._written[key])
        return output

    def _prepare_write(self, tensor: Tensor) -> None:
        """Copy what is kept in the memory that an operation is about to write to."""
        self._kept.copy_before_write(tensor)
        if can_be_numbered(tensor):
            self._numbers.forget_number(tensor)

    def _may_move(self, tensor: Tensor) -> bool:
        """Return whether nobody notices if a tensor of this forward gets other memory."""
        is_produced = tensor.untyped_storage().data_ptr() in self._produced
        return is_produced and not tensor.requires_grad and self._kept.is_all_of(tensor)

    def _compute(
        self, key: Hashable, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return the output of an operation that writes to nothing, reused or computed."""
        place = self._calls.next_place(func, args)
        known = self._results.get(key)
        found = known
        if known is None and place is not None:
            found = self._calls.find(place, args, kwargs, exact=self._is_exact)
            if found is not None and self._is_exact:
                self._results[key] = found
        if found is not None and found.forward != self._forward:
            return self._returned(found)
        output = func(*args, **kwargs)
        outputs = output if isinstance(output, tuple) else (output,)
        if not all(isinstance(each, Tensor) and can_be_numbered(each) for each in outputs):
            return output
        if any(self._numbers.has_number(each) for each in outputs):  # another view of an argument
            return output
        if found is None and self._is_last:
            return self._ignored(output)
        if found is None:
            self._keep(key, place, args, kwargs, output)
            return output
        # It was returned in this forward already, and the model may overwrite what it was given.
        for each, number in zip(outputs, found.numbers, strict=True):
            self._numbers.record_and_hold(each, number if self._is_exact or found is known else 0)
        return output

    def _returned(self, result: CachedCallResult) -> Any:
        """Return the output of an earlier call."""
        result.forward = self._forward
        self._record(result)
        return result.tensor_or_tuple()

    def _record(self, result: CachedCallResult) -> None:
        """Record that the outputs of a call exist in this forward."""
        for kept, number in zip(result.outputs, result.numbers, strict=True):
            self._numbers.record_number(kept.address, number)
            self._produced.add(kept.address)

    def _keep(
        self,
        key: Hashable,
        place: Place | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> CachedCallResult:
        """Keep the output of a call."""
        outputs = output if isinstance(output, tuple) else (output,)
        kept = [self._kept.keep(each) for each in outputs]
        numbers = [self._numbers.new_number() for _ in outputs]
        result = CachedCallResult(kept, numbers, isinstance(output, tuple), self._forward)
        self._record(result)
        self._results[key] = result
        if place is not None:
            self._calls.keep(place, args, kwargs, result)
        self._bytes += sum(each.numel() * each.element_size() for each in outputs)
        if self._bytes > _MAX_BYTES:
            self._release_all()
        return result

    # ---------------------------------------------------------------- without memory

    def _release_all(self) -> None:
        """Keep the outputs of expensive calls only, from now on."""
        self._is_full = True
        self._results.clear()
        self._kept = CopyOnWriteSnapshots()
        self._calls = self._calls.restarted(self._kept)

    def _run_full(
        self,
        effect: MemoryEffect,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        written: Sequence[Tensor],
    ) -> Any:
        """Run an operation, or return the output of an expensive one with equal arguments."""
        for tensor in written:
            self._kept.copy_before_write(tensor)
        is_kept = (
            effect is MemoryEffect.RESULT
            and not torch.is_grad_enabled()
            and _are_numbered(args, kwargs)
        )
        place = self._calls.next_place(func, args) if is_kept else None
        if place is None:
            return func(*args, **kwargs)
        found = self._calls.find(place, args, kwargs, exact=self._is_exact)
        if found is not None:
            return found.tensor_or_tuple()
        output = func(*args, **kwargs)
        if self._is_last:
            return output
        outputs = output if isinstance(output, tuple) else (output,)
        kept = [self._kept.keep(each) for each in outputs]
        result = CachedCallResult(kept, [], isinstance(output, tuple), self._forward)
        replaced = self._calls.keep(place, args, kwargs, result)
        for each in () if replaced is None else replaced.outputs:
            self._kept.release(each)
        return output


def _are_numbered(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether the memory of all tensors among arguments determines their values."""
    return all(map(can_be_numbered, _tensors_in((*args, *kwargs.values()))))


def _tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors among arguments or results, and those in lists of them."""
    found: list[Tensor] = []
    for each in values:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found += [part for part in each if isinstance(part, Tensor)]
    return found
