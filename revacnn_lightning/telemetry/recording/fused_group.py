"""Reduces the filters of many layers with one kernel (`filter_kernels`), where a GPU has it."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.recording.flat_buffer import FlatBuffer

__all__ = ["FilterCopies", "FusedGroup", "is_fusible", "load_filter_kernels"]

log = logging.getLogger(__name__)

MIN_TRITON = (3, 6)

# A program reduces a filter on its own. Longer ones are left to operations that share the work.
MAX_LENGTH = 64 * 1024

_PLAIN = frozenset({Tensor, nn.Parameter})
_ADDRESS = Tensor.data_ptr
_STRIDE = Tensor.stride


@functools.cache
def load_filter_kernels() -> ModuleType | None:
    """Import and return `filter_kernels`; None if Triton is missing or too old."""
    try:
        found = version("triton")
    except PackageNotFoundError:
        return None
    if tuple(int(part) for part in found.split(".")[:2]) < MIN_TRITON:
        log.info("Weights are reduced without Triton %s, which is too old", found)
        return None
    try:
        from revacnn_lightning.telemetry.recording import filter_kernels
    except ImportError as error:
        log.info("Weights are reduced without Triton, with more operations: %s", error)
        return None
    return filter_kernels


def is_fusible(weight: Tensor) -> bool:
    """Return whether a kernel can reduce the filters along the first dimension of this weight."""
    if weight.device.type != "cuda" or type(weight) not in _PLAIN or not weight.numel():
        return False
    kernels = load_filter_kernels()
    return (
        kernels is not None
        and weight.dtype in kernels.TYPES
        and weight[0].numel() <= MAX_LENGTH
        and has_dense_filters(weight)
    )


def has_dense_filters(tensor: Tensor) -> bool:
    """Return whether each filter is a run of memory, in any order of its coefficients.

    Their order does not matter, so that memory formats such as ``channels_last`` qualify.
    """
    (count, *shape), (step, *strides) = tensor.shape, tensor.stride()
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and stride != expected:
            return False
        expected *= size
    return count <= 1 or step == expected


@dataclass(frozen=True)
class FilterCopies:
    """Copies of the weights of a group.

    Attributes:
        values: all coefficients, filter by filter, in the order they have in memory.
        strides: the strides of each weight.
    """

    values: Tensor
    strides: list[tuple[int, ...]]


@dataclass(eq=False)
class _Addresses:
    """The addresses of some tensors, on the device.

    Attributes:
        key: what they were made for.
        table: int64, on the device.
    """

    key: Any = None
    table: Tensor | None = None


class FusedGroup:
    """Writes the norms of the filters of many weights to a `FlatBuffer`, with one kernel.

    The tensors are the weights, or have their shapes. Each method returns False or None if the
    kernel cannot read one of the tensors.

    Args:
        weights: all of one dtype and one device, which are `is_fusible`.
        columns: the filters of each weight in the buffer.
        buffer: receives the norms.
    """

    has_failed = False  # to run a kernel, in this process

    def __init__(
        self, weights: Sequence[Tensor], columns: Sequence[slice], buffer: FlatBuffer
    ) -> None:
        kernels = load_filter_kernels()
        assert kernels is not None
        self._kernels = kernels
        self._dtype, self._device = weights[0].dtype, weights[0].device
        self._type = kernels.TYPES[self._dtype]
        self._shapes = [weight.shape for weight in weights]
        self._columns = columns
        self._buffer = buffer
        self._coefficients = sum(weight.numel() for weight in weights)
        self._filters = sum(shape[0] for shape in self._shapes)
        self._stream: int | None = None  # of the tables
        self._layer_of = self._layers = torch.zeros(0)
        self._addresses: dict[str, _Addresses] = {}

    # ------------------------------------------------------------------ reductions

    def write_norms(self, order: int, tensors: Mapping[str, Sequence[Tensor]]) -> bool:
        """Write the L1 or L2 norm of each filter to the row that its tensors are given for."""
        rows = list(tensors)
        addresses = self._find(" ".join(rows), [each for row in rows for each in tensors[row]])
        if addresses is None:
            return False
        slots = [self._buffer.row_offset(row) for row in rows]
        return self._launch(
            self._kernels.write_filter_norms,
            (self._filters, len(rows)),
            addresses,
            self._layer_of,
            self._layers,
            self._buffer.values,
            len(self._shapes),
            slots[0],
            slots[-1] - slots[0],
            ORDER=order,
        )

    def copy(self, weights: Sequence[Tensor]) -> FilterCopies | None:
        """Return copies for `write_change_norms`."""
        addresses = self._find("weights", weights)
        if addresses is None:
            return None
        values = torch.empty(self._coefficients, dtype=self._dtype, device=self._device)
        copies = FilterCopies(values, list(map(_STRIDE, weights)))
        is_done = self._launch(
            self._kernels.copy_filters,
            (self._filters,),
            addresses,
            self._layer_of,
            self._layers,
            values,
            len(self._shapes),
        )
        return copies if is_done else None

    def write_change_norms(self, weights: Sequence[Tensor], before: FilterCopies) -> bool:
        """Write ‖Δw‖ and ‖w‖ of each filter."""
        addresses = self._find("weights", weights)
        if addresses is None or list(map(_STRIDE, weights)) != before.strides:
            return False
        return self._launch(
            self._kernels.write_norms_of_changes,
            (self._filters,),
            addresses,
            self._layer_of,
            self._layers,
            before.values,
            self._buffer.values,
            len(self._shapes),
            self._buffer.row_offset("update_ratio"),
            self._buffer.row_offset("norm_after_step"),
        )

    def as_tensors(self, before: FilterCopies) -> list[Tensor]:
        """Return the copies in the shapes of the weights."""
        parts = before.values.split([shape.numel() for shape in self._shapes])
        return [
            part.as_strided(shape, strides, part.storage_offset())
            for part, shape, strides in zip(parts, self._shapes, before.strides, strict=True)
        ]

    # ------------------------------------------------------------------ tables

    def _find(self, name: str, tensors: Sequence[Tensor]) -> Tensor | None:
        """Return the table of the addresses of these tensors; None if a kernel cannot read them.

        It is copied to the device only if one has changed.
        """
        is_cuda = self._device.type == "cuda"
        if FusedGroup.has_failed or not _PLAIN.issuperset(map(type, tensors)):
            return None
        if is_cuda and torch.cuda.is_current_stream_capturing():
            return None  # the host would not update the table of a graph
        stream = torch.cuda.current_stream(self._device).cuda_stream if is_cuda else 0
        if stream != self._stream:
            self._make_tables()
            self._stream = stream
        found = self._addresses.setdefault(name, _Addresses())
        key = (
            list(map(_ADDRESS, tensors)),
            list(map(_STRIDE, tensors)),
            [tensor.dtype for tensor in tensors],
        )
        if key != found.key:
            found.key = key
            found.table = self._to_device(key[0]) if self._can_read(tensors) else None
        return found.table

    def _can_read(self, tensors: Sequence[Tensor]) -> bool:
        count = len(self._shapes)
        return all(
            tensor.shape == self._shapes[index % count]
            and tensor.dtype == self._dtype
            and tensor.device == self._device
            and has_dense_filters(tensor)
            for index, tensor in enumerate(tensors)
        )

    def _make_tables(self) -> None:
        """Make the tables of the layers, see `filter_kernels.write_filter_norms`."""
        widths = torch.tensor([shape[0] for shape in self._shapes])
        sizes = torch.tensor([shape.numel() for shape in self._shapes])
        starts = torch.tensor([columns.start for columns in self._columns])
        layers = torch.stack(
            [widths.cumsum(0) - widths, sizes // widths, starts, sizes.cumsum(0) - sizes]
        )
        self._layers = self._to_device(layers)
        index = torch.arange(len(widths), dtype=torch.int32)
        self._layer_of = self._to_device(index.repeat_interleave(widths))
        self._addresses.clear()

    def _to_device(self, values: Any) -> Tensor:
        """Copy numbers to the device. Nothing waits for pinned memory, which is kept until then."""
        table = torch.as_tensor(values)
        if self._device.type != "cuda":
            return table
        return table.pin_memory().to(self._device, non_blocking=True)

    def _launch(self, kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> bool:
        """Run a kernel; return whether it runs on this machine."""
        try:
            with _on_device(self._device):
                kernel[grid](*args, TYPE=self._type, BLOCK=self._kernels.BLOCK, **constants)
        except Exception as error:  # noqa: BLE001 - no compiler, for example; of any type
            FusedGroup.has_failed = True
            log.warning("Weights are reduced with more operations, without Triton: %s", error)
            return False
        return True


def _on_device(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which Triton runs kernels on this device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
