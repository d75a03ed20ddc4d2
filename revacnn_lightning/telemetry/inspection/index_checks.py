"""Raises an `IndexError` where a GPU would stop the process.

A forward on fewer samples, or between the steps of an edit, may index out of bounds, such as a
Mixup that permutes the whole batch. On a CPU that raises, and the request is refused. On a GPU the
kernel fails an assertion, after which every call of CUDA fails: the training would end. Therefore
`IndexBoundsMode` compares the indices with the sizes first. It waits for the GPU; training steps do
not run under it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from revacnn_lightning.telemetry.inspection.dispatch_mode import NoCompileDispatchMode

__all__ = ["IndexBoundsMode"]

# Indices, the smallest and the largest that are allowed, and the value that is ignored.
_Bounds = tuple[Tensor, float, float, float | None]
_Arguments = Sequence[Any]


class IndexBoundsMode(NoCompileDispatchMode):
    """A `TorchDispatchMode` that raises an `IndexError` for an index out of bounds.

    It checks the indices of every operation before it runs.

    Args:
        device_type: the device type of the operations that are checked.
    """

    def __init__(self, device_type: str = "cuda") -> None:
        super().__init__()
        self._device_type = device_type

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.partition("::")[2].removesuffix("_")
        bounds_of = _CHECKED.get(name)
        # The first argument decides: its index may be a tensor of the CPU.
        if bounds_of is not None and args[0].device.type == self._device_type:
            for values, low, high, ignored in bounds_of(args):
                if _has_values(values):
                    _check(name, values, low, high, ignored)
        return func(*args, **(kwargs or {}))


def _has_values(tensor: Tensor) -> bool:
    """Return False for a tensor without elements, and for a subclass that stands for others."""
    is_plain = type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__
    return is_plain and not tensor.is_meta and tensor.numel() > 0


def _check(name: str, values: Tensor, low: float, high: float, ignored: float | None) -> None:
    """Raise an error if some values are out of bounds.

    Raises:
        IndexError: some index is out of bounds.
        ValueError: some probability is.
    """
    values = values.detach().as_subclass(Tensor)
    is_inside = (values >= low) & (values <= high)
    if ignored is not None:
        is_inside |= values == ignored
    if bool(is_inside.all()):
        return
    wrong = values[~is_inside].flatten()[0].item()
    kind = ValueError if values.is_floating_point() else IndexError
    raise kind(f"{wrong} is out of the bounds {low:g} to {high:g} of {name}")


def _indexed(args: _Arguments) -> Iterator[_Bounds]:
    """Yield the bounds of ``self[indices]``, where a mask stands for as many dims as it has."""
    dim = 0
    for index in args[1]:
        if index is None:
            dim += 1
        elif index.dtype in (torch.bool, torch.uint8):
            dim += index.ndim
        else:
            size = args[0].shape[dim]
            yield index, -size, size - 1, None
            dim += 1


def _along_dim(args: _Arguments) -> Iterator[_Bounds]:
    """Yield the bounds of operations with ``(self, dim, index, ...)``."""
    tensor, dim, index = args[:3]
    if tensor.ndim:
        yield index, 0, tensor.shape[dim] - 1, None


def _flat(args: _Arguments) -> Iterator[_Bounds]:
    size = args[0].numel()
    yield args[1], -size, size - 1, None


def _rows(args: _Arguments) -> Iterator[_Bounds]:
    yield args[1], 0, args[0].shape[0] - 1, None


def _classes(args: _Arguments) -> Iterator[_Bounds]:
    """Yield the bounds of ``(scores, target, weight, reduction, ignore_index)``."""
    scores, target = args[:2]
    classes = scores.shape[0 if scores.ndim == 1 else 1]
    yield target, 0, classes - 1, args[4] if len(args) > 4 else None


def _margin_classes(args: _Arguments) -> Iterator[_Bounds]:
    yield args[1], 0, args[0].shape[-1] - 1, None


def _probabilities(args: _Arguments) -> Iterator[_Bounds]:
    yield args[0], 0, 1, None


def _unpooled(args: _Arguments) -> Iterator[_Bounds]:
    """Yield the bounds of ``(self, indices, output_size, ...)``."""
    yield args[1], 0, torch.Size(args[2]).numel() - 1, None


# Operations by name, without the "_" of those in place.
_CHECKED: dict[str, Callable[[_Arguments], Iterator[_Bounds]]] = {
    "index": _indexed,
    "index_put": _indexed,
    "_index_put_impl": _indexed,
    **dict.fromkeys(("index_select", "index_add", "index_copy", "index_fill"), _along_dim),
    **dict.fromkeys(("index_reduce", "gather", "scatter", "scatter_add"), _along_dim),
    "scatter_reduce": _along_dim,
    "take": _flat,
    "put": _flat,
    "embedding": _rows,
    "_embedding_bag": _rows,
    "_embedding_bag_forward_only": _rows,
    "nll_loss_forward": _classes,
    "nll_loss2d_forward": _classes,
    "multi_margin_loss": _margin_classes,
    "binary_cross_entropy": _probabilities,
    "max_unpool2d": _unpooled,
    "max_unpool3d": _unpooled,
}
