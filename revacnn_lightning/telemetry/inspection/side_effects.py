"""Running a model between training batches without changing anything training depends on."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.inspection.global_hooks import global_hooks_suspended
from revacnn_lightning.telemetry.inspection.index_checks import IndexBoundsMode
from revacnn_lightning.telemetry.inspection.norm_sync import patch_sync_batch_norm
from revacnn_lightning.telemetry.inspection.object_state import ObjectState
from revacnn_lightning.telemetry.inspection.tensor_state import TensorState, are_cheap_to_copy
from revacnn_lightning.telemetry.inspection.user_modes import torch_modes_suspended

__all__ = [
    "dataset_state_restored",
    "inside_side_effect_free",
    "patch_log_methods",
    "random_states_restored",
    "seed_torch_random_states",
    "side_effect_free",
]

_ACTIVE = ContextVar("side_effect_free", default=False)


@contextmanager
def side_effect_free(
    model: nn.Module,
    training: bool | None = None,
    *,
    observe: bool = True,
    objects: ObjectState | None = None,
) -> Iterator[TensorState]:
    """Run forwards of ``model`` and restore its state and all random states afterwards.

    Restored, also after an exception:

    - the values of all parameters, buffers and other tensors of the modules (`TensorState`), their
      ``requires_grad``, and their ``.grad``, which is None inside;
    - the modules, parameters, buffers, hooks, flags and other attributes of every module, with the
      contents of containers, of the user's own objects and of random generators in them
      (`ObjectState`);
    - the random states of torch (CPU, and every CUDA device that holds a parameter), NumPy and
      Python;
    - the gradient mode.

    Inside, ``self.log`` and ``self.log_dict`` of a LightningModule do nothing, and gradients are
    disabled; ``torch.enable_grad()`` enables them again. A `TorchDispatchMode` or
    `TorchFunctionMode` that the user has entered is suspended, and so are hooks registered for all
    modules, so that they do not see what runs inside; the default device stays in effect.

    No batch norm waits for other ranks inside (`patch_sync_batch_norm`).

    On a GPU, an index out of bounds raises an `IndexError` inside instead of stopping the process
    (`IndexBoundsMode`).

    Not restored: what a forward does to the world outside of the model (files, prints, loggers,
    global variables, the trainer, datasets), iterators, NumPy arrays of more than 1 MiB, changes
    within containers of more than 100,000 entries other than what is appended, and objects nested
    more than five levels deep.

    Args:
        training: the mode of all modules inside; None keeps the mode of each.
        observe: find out what the operations inside write to, except in a small model, whose
            tensors are all copied. False: the caller does, and passes what each one writes to to
            `TensorState.copy_before_write`, which saves the time of a second mode.
        objects: the objects of ``model`` as they are now, for several forwards in a row; None: they
            are searched for.

    Yields:
        The tensors that are restored.
    """
    # Inside of another `side_effect_free`, the active modes may be those of a trace.
    with nullcontext() if inside_side_effect_free() else _users_code_suspended():
        yield from _restoring(objects or ObjectState(model), training, observe)


@contextmanager
def _users_code_suspended() -> Iterator[None]:
    """Suspend what the user has registered for all of torch: modes, and hooks of all modules."""
    with torch_modes_suspended(), global_hooks_suspended():
        yield


def _restoring(objects: ObjectState, training: bool | None, observe: bool) -> Iterator[TensorState]:
    """Yield once, and restore the model and all random states afterwards."""
    is_compiled = any("_orig_mod" in module._modules for module in objects.modules)
    token = _ACTIVE.set(True)
    try:
        with random_states_restored(objects.tensors), torch.no_grad():
            is_small = observe and are_cheap_to_copy(objects.tensors)
            tensors = TensorState(objects.tensors, at_once=is_compiled or is_small)
            try:
                for module in objects.modules:
                    patch_log_methods(module)
                    patch_sync_batch_norm(module)
                    if training is not None and module.training != training:
                        vars(module)["training"] = training  # `nn.Module.__setattr__` is slow
                with ExitStack() as stack:
                    if _cuda_devices(objects.tensors):
                        stack.enter_context(IndexBoundsMode())
                    if observe and not tensors.are_all_copied:
                        stack.enter_context(tensors)
                    yield tensors
            finally:
                objects.restore()
                tensors.restore()
    finally:
        _ACTIVE.reset(token)


@contextmanager
def dataset_state_restored(dataset: Any, device: torch.device) -> Iterator[None]:
    """Restore a dataset and all random states after an item has been loaded inside.

    A file that the item opens is closed again, so that workers which are forked later do not
    share it. Restored are the attributes of the dataset, of its transforms and of datasets in it,
    as those of a model in `side_effect_free`.
    """
    objects = ObjectState(dataset)
    try:
        with random_states_restored([torch.empty(0, device=device)]):
            yield
    finally:
        objects.restore()


@contextmanager
def random_states_restored(tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """Restore the random states of torch, also on the devices of ``tensors``, NumPy and Python."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(_cuda_devices(tensors)):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def seed_torch_random_states(seed: int, tensors: Iterable[Tensor] = ()) -> None:
    """Seed torch's random states that `random_states_restored` restores, those and no others.

    ``torch.manual_seed`` also seeds all other devices, and those that torch has yet to initialize.
    For these, it formats a stack trace, which takes longer than a small forward.
    """
    torch.default_generator.manual_seed(seed)
    for index in _cuda_devices(tensors):
        with torch.cuda.device(index):
            torch.cuda.manual_seed(seed)


def inside_side_effect_free() -> bool:
    """Return whether the caller runs inside `side_effect_free`."""
    return _ACTIVE.get()


def patch_log_methods(module: nn.Module) -> None:
    """Make the log methods of a LightningModule do nothing, until its attributes are restored."""
    kind: Any = type(module)
    if _can_log(kind):
        vars(module).update(log=_log_nothing, log_dict=_log_nothing)


@functools.cache
def _can_log(kind: Any) -> bool:
    """Return whether a class of modules has the log methods of a LightningModule."""
    return hasattr(kind, "log_dict") and hasattr(kind, "training_step")


def _log_nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for ``LightningModule.log`` and ``log_dict``."""


def _cuda_devices(tensors: Iterable[Tensor]) -> list[int]:
    """Return the sorted indices of the CUDA devices that hold ``tensors``."""
    if not torch.cuda.is_initialized():  # then no tensor is on one
        return []
    return sorted(
        {
            tensor.device.index
            for tensor in tensors
            if tensor.device.type == "cuda" and tensor.device.index is not None
        }
    )
