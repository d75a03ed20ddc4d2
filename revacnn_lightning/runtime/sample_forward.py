"""The real forwards of a LightningModule on two samples of the current batch.

Steering traces and verifies with these. Two samples suffice (batch-norm in train mode needs
two), and only the user's own code knows how the network is really called: auxiliary heads,
losses on intermediate layers and the like only show in ``training_step``. Running it here must
leave no mark: nothing is logged, no metric counts the samples, no optimizer steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from revacnn_lightning.errors import EditRefusedError

__all__ = ["SAMPLES", "batch_size", "forward_takes_images", "forwards_of", "images_of", "samples"]

SAMPLES = 2

UserForward = Callable[[Any, Any], Any]


def samples(batch: Any, count: int = SAMPLES) -> Any:
    """The first ``count`` samples of a batch of tensors nested in tuples, lists and dicts.

    Tensors whose first dimension is not the batch's are kept whole.
    """
    size = batch_size(batch)

    def cut(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == size:
            return leaf[:count]
        return leaf

    return tree_map(cut, batch)


def images_of(batch: Any) -> Tensor | None:
    """The first floating-point tensor of at least three dimensions in a batch, if there is one."""
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim >= 3:
            return leaf
    return None


def batch_size(batch: Any) -> int:
    """B of the batch's images; else of its first tensor that has a dimension; else 0."""
    images = images_of(batch)
    if images is not None:
        return images.shape[0]
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor) and leaf.ndim > 0:
            return leaf.shape[0]
    return 0


def forwards_of(
    module: Any,
    batch: Any,
    batch_idx: int,
    *,
    context: Callable[[], Any],
    user_forward: UserForward | None = None,
) -> list[Callable[[], Any]]:
    """Callables that each run the module once, for real, on two samples of ``batch``.

    Args:
        module: a LightningModule.
        batch: the current training batch, on the module's device.
        batch_idx: its index in the epoch, for ``training_step``.
        context: makes the context of a training step (autocast).
        user_forward: ``(module, batch) -> output``, in place of everything found here.

    Raises:
        Refused: there is no way to run the module that leaves no mark.
    """
    small = samples(batch)
    steps: list[Callable[[], Any]] = []
    if user_forward is not None:
        steps.append(lambda: user_forward(module, small))
    else:
        images = images_of(small)
        if images is not None and forward_takes_images(module):
            steps.append(lambda: module(images))
        if module.automatic_optimization:
            steps.append(lambda: _loss(_training_step(module, small, batch_idx)))
    if not steps:
        raise EditRefusedError(
            "how to run the network on a batch is not known: training_step optimizes by hand and "
            "forward does not take the images alone; "
            "pass ReVACNN(forward=lambda module, batch: ...)"
        )

    def in_context(step: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with context(), _unlogged(module), _uncounted(module):
                return step()

        return run

    return [in_context(step) for step in steps]


def forward_takes_images(module: nn.Module) -> bool:
    """Whether the module has a forward of its own that can be called with the images alone."""
    if type(module).forward.__module__.startswith(("pytorch_lightning.", "lightning.")):
        return False  # the LightningModule base's, which does nothing
    try:
        inspect.signature(module.forward).bind(object())
    except TypeError:
        return False
    return True


def _training_step(module: Any, batch: Any, batch_idx: int) -> Any:
    """Call training_step with those of Lightning's arguments that it takes."""
    offered = {"batch": batch, "batch_idx": batch_idx, "dataloader_idx": 0}
    parameters = list(inspect.signature(module.training_step).parameters.values())
    arguments = list(offered.values())[: len([p for p in parameters if p.default is p.empty])]
    return module.training_step(*arguments)


def _loss(output: Any) -> Any:
    return output.get("loss") if isinstance(output, dict) else output


@contextmanager
def _unlogged(module: nn.Module) -> Iterator[None]:
    """``self.log`` does nothing: this forward is not a training step that anybody may see."""
    silenced = ("log", "log_dict")
    mine = {name: module.__dict__[name] for name in silenced if name in module.__dict__}
    for name in silenced:
        module.__dict__[name] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        for name in silenced:
            del module.__dict__[name]
        module.__dict__.update(mine)


@contextmanager
def _uncounted(module: nn.Module) -> Iterator[None]:
    """Metrics (torchmetrics) that training_step updates count as they did before."""
    with ExitStack() as stack:
        for child in module.modules():
            if hasattr(child, "_defaults") and hasattr(child, "_update_count"):
                stack.enter_context(_metric_kept(child))
        yield


@contextmanager
def _metric_kept(metric: nn.Module) -> Iterator[None]:
    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().clone()
        return list(value) if isinstance(value, list) else value

    names = [*metric._defaults, "_update_count", "_computed", "_forward_cache", "_update_called"]  # type: ignore[misc]
    before = {name: copied(getattr(metric, name)) for name in names if name in metric.__dict__}
    try:
        yield
    finally:
        metric.__dict__.update(before)


def to_float(value: Any) -> float | None:
    """A Python float of a scalar tensor or number; None for anything else. Waits for the device."""
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
