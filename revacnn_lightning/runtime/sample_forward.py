"""Forwards of a LightningModule on two samples of the current batch.

Steering traces and verifies with them. Two samples suffice: batch norm in train mode needs two.
They run the user's own code, because only that shows how the network is used: auxiliary heads or
losses on intermediate layers appear in ``training_step`` alone. Running it here has no side
effects: nothing is logged, no metric counts the samples and no optimizer steps.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch_images import ImagesOfBatch, find_images
from revacnn_lightning.runtime.batch_samples import first_samples

__all__ = [
    "SAMPLES",
    "UserForward",
    "accepts_images",
    "make_forwards",
    "to_float",
]

SAMPLES = 2

UserForward = Callable[[Any, Any], Any]  # (module, batch) -> output


def make_forwards(
    module: Any,
    batch: Any,
    batch_idx: int,
    *,
    make_context: Callable[[], Any],
    user_forward: UserForward | None = None,
    images: ImagesOfBatch | None = None,
) -> list[Callable[[], Any]]:
    """Return functions that each run the module once on two samples of ``batch``.

    Args:
        module: a LightningModule.
        batch: the current training batch, on the module's device.
        batch_idx: its index in the epoch, for ``training_step``.
        make_context: makes the context of a training step (autocast).
        user_forward: ``(module, batch) -> output``, to be used instead of all others.
        images: the user's function that returns the images of a batch; None: they are searched for.

    Raises:
        EditRefusedError: there is no way to run the module without side effects.
    """
    small = first_samples(batch, SAMPLES, images)
    steps: list[Callable[[], Any]] = []
    if user_forward is not None:
        steps.append(lambda: user_forward(module, small))
    else:
        found = find_images(small, images)
        if found is not None and accepts_images(module):
            steps.append(lambda: module(found))
        if module.automatic_optimization:
            steps.append(lambda: _loss(_call_training_step(module, small, batch_idx)))
    if not steps:
        raise EditRefusedError(
            "cannot run the network on a batch: training_step uses manual optimization and forward "
            "does not accept the images alone; pass ReVACNN(forward=lambda module, batch: ...)"
        )
    return [functools.partial(_run_step, step, module, make_context) for step in steps]


def _run_step(step: Callable[[], Any], module: Any, make_context: Callable[[], Any]) -> Any:
    """Run a step in its context. It logs nothing, and no metric counts its samples."""
    with make_context(), _logging_disabled(module), _metrics_restored(module):
        return step()


def accepts_images(module: nn.Module) -> bool:
    """Return whether the module has a forward of its own that accepts the images alone."""
    if type(module).forward.__module__.startswith(("pytorch_lightning.", "lightning.")):
        return False  # the empty forward of the LightningModule base class
    try:
        inspect.signature(module.forward).bind(object())
    except TypeError:
        return False
    return True


def to_float(value: Any) -> float | None:
    """Return a scalar tensor or number as a float, else None. This waits for the device."""
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _call_training_step(module: Any, batch: Any, batch_idx: int) -> Any:
    """Call training_step with as many of Lightning's arguments as it requires."""
    offered = {"batch": batch, "batch_idx": batch_idx, "dataloader_idx": 0}
    parameters = list(inspect.signature(module.training_step).parameters.values())
    arguments = list(offered.values())[: len([p for p in parameters if p.default is p.empty])]
    return module.training_step(*arguments)


def _loss(output: Any) -> Any:
    return output.get("loss") if isinstance(output, dict) else output


@contextmanager
def _logging_disabled(module: nn.Module) -> Iterator[None]:
    """Make ``self.log`` do nothing: this forward is not a training step of the user."""
    names = ("log", "log_dict")
    overridden = {name: module.__dict__[name] for name in names if name in module.__dict__}
    for name in names:
        module.__dict__[name] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for name in names:
            del module.__dict__[name]
        module.__dict__.update(overridden)


@contextmanager
def _metrics_restored(module: nn.Module) -> Iterator[None]:
    """Restore the metrics (torchmetrics) that training_step updates."""
    with ExitStack() as stack:
        for child in module.modules():
            if hasattr(child, "_defaults") and hasattr(child, "_update_count"):
                stack.enter_context(_metric_restored(child))
        yield


@contextmanager
def _metric_restored(metric: nn.Module) -> Iterator[None]:
    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().clone()
        return list(value) if isinstance(value, list) else value

    names = [*metric._defaults, "_update_count", "_computed", "_forward_cache", "_update_called"]  # type: ignore[misc]
    before = {name: copy(getattr(metric, name)) for name in names if name in metric.__dict__}
    try:
        yield
    finally:
        metric.__dict__.update(before)
