"""Read and control a Lightning Trainer, without importing Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from revacnn_lightning.runtime.batch import Progress
from revacnn_lightning.runtime.batch_images import ImagesOfBatch
from revacnn_lightning.runtime.gradient_clipping import ClippingControl
from revacnn_lightning.runtime.loss_scale import loss_scale_of
from revacnn_lightning.runtime.metric_reader import is_scalar
from revacnn_lightning.runtime.schedulers import find_schedulers
from revacnn_lightning.runtime.step_recording import AddResult
from revacnn_lightning.runtime.validation_data import ValidationData, find_class_names
from revacnn_lightning.steering.holders.object_walk import CopyHolder

__all__ = [
    "TrainerControls",
    "data_class_names",
    "loads_checkpoint_after_start",
    "loss_scale",
    "next_logging_step_and_is_due",
    "other_callbacks_as_copy_holders",
    "progress_of",
    "record_next_step",
    "scalar_metrics",
    "validation_data",
]


class TrainerControls:
    """The `controls.ControllableTraining` of a Trainer.

    Attributes:
        clipping: its gradient clipping.
    """

    def __init__(self, trainer: Any, clipping: ClippingControl) -> None:
        self._trainer = trainer
        self.clipping = clipping

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        return self._trainer.optimizers

    @property
    def schedulers(self) -> Sequence[Any]:
        trainer = self._trainer
        configured = [config.scheduler for config in trainer.lr_scheduler_configs]
        # With manual optimization, the module may step schedulers that it did not return.
        return configured + find_schedulers([trainer.lightning_module, *trainer.callbacks])

    def save_checkpoint(self, name: str) -> str:
        path = Path(self._trainer.default_root_dir) / "revacnn" / f"{name}.ckpt"
        if self._trainer.world_size == 1:
            self._trainer.save_checkpoint(path)
        else:
            with _no_barrier(self._trainer.strategy):
                self._trainer.save_checkpoint(path)
        return str(path)

    def stop(self) -> None:
        self._trainer.should_stop = True


@contextmanager
def _no_barrier(strategy: Any) -> Iterator[None]:
    """Let a process whose checkpoint fails not leave the others behind in the strategy's barrier.

    They would wait there, and meet the next collective of the training. The processes compare their
    outcomes afterwards, which is a barrier as well.
    """
    attributes = vars(strategy)
    before = dict(attributes)
    attributes["barrier"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del attributes["barrier"]
        attributes.update((n, v) for n, v in before.items() if n == "barrier")


def validation_data(
    trainer: Any, get_images: ImagesOfBatch | None = None, class_names: Sequence[str] = ()
) -> ValidationData:
    """Return the (first) validation dataset of a Trainer, as a page shows it.

    Args:
        trainer: a Trainer.
        get_images: the user's function that returns the images of a batch. None searches for them.
        class_names: the class names that the user has given; () uses those of the data.
    """
    return ValidationData(
        lambda: _validation_loader(trainer),
        lambda: trainer.strategy.root_device,
        images=get_images,
        get_class_names=lambda: class_names or data_class_names(trainer),
        convert=lambda image: trainer.precision_plugin.convert_input(image),
        is_expected=lambda: bool(getattr(trainer, "enable_validation", False)),
    )


def data_class_names(trainer: Any) -> Sequence[str]:
    """Return the names of the classes as the datasets or the data module have them; or ()."""
    loaders = (_validation_loader(trainer), _first(getattr(trainer, "train_dataloader", None)))
    return find_class_names(loaders, getattr(trainer, "datamodule", None))


def _validation_loader(trainer: Any) -> Any:
    return _first(trainer.val_dataloaders)


def _first(loaders: Any) -> Any:
    return loaders[0] if isinstance(loaders, (list, tuple)) and loaders else loaders


def next_logging_step_and_is_due(trainer: Any) -> tuple[int, bool]:
    """Return the step at which Lightning logs the next batch, and whether it logs that batch."""
    step = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)
    interval = trainer.log_every_n_steps
    return step, interval > 0 and (step + 1) % interval == 0


def record_next_step(trainer: Any, recording: AbstractContextManager[AddResult]) -> None:
    """Run the next training step inside ``recording``.

    The attribute is set on the strategy, not on the user's module, and removed before the step.
    """
    attributes = vars(trainer.strategy)
    run_step, before = trainer.strategy.training_step, dict(attributes)

    def recorded_step(*args: Any, **kwargs: Any) -> Any:
        if attributes.get("training_step") is recorded_step:
            del attributes["training_step"]
            attributes.update((n, v) for n, v in before.items() if n == "training_step")
        with recording as add_result:
            output = run_step(*args, **kwargs)
            add_result(output)
        return output

    attributes["training_step"] = recorded_step


def other_callbacks_as_copy_holders(trainer: Any) -> list[CopyHolder]:
    """Return the other callbacks: they may hold copies of the model, or optimizers."""
    return [
        CopyHolder(
            type(callback).__name__,
            callback,
            pairs=tuple(_known_pairs(trainer, callback)),
            needed=tuple(module for module, _ in getattr(callback, "_parameters_to_prune", ())),
        )
        for callback in trainer.callbacks
        if not any(
            kind.__module__ == "revacnn_lightning.callback" for kind in type(callback).__mro__
        )
    ]


def _known_pairs(trainer: Any, callback: Any) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield (module, copy) of the copies that Lightning's own callbacks keep."""
    average = getattr(callback, "_average_model", None)
    if isinstance(average, AveragedModel):  # of WeightAveraging
        average = average.module
    if isinstance(average, nn.Module):  # of StochasticWeightAveraging
        yield trainer.lightning_module, average
    # ModelPruning keeps the initial values of each pruned layer, for lottery tickets.
    pruned = getattr(callback, "_parameters_to_prune", ())
    for original in (getattr(callback, "_original_layers", None) or {}).values():
        position, _ = original["names"][0]
        yield pruned[position][0], original["data"]


def loads_checkpoint_after_start(trainer: Any) -> bool:
    """Return whether this Trainer loads a checkpoint after ``on_fit_start``, not before.

    Strategies that split the parameters among the processes do so, such as FSDP2.
    """
    return bool(getattr(trainer.strategy, "restore_checkpoint_after_setup", False))


def progress_of(trainer: Any, step: int, batch_index: int) -> Progress:
    """Return where training is; ``step`` counts batches from the start of the run."""
    batches = trainer.num_training_batches
    return Progress(
        step=step,
        epoch=trainer.current_epoch,
        batch_index=batch_index,
        batches_per_epoch=int(batches) if batches != float("inf") else 0,
        max_epochs=max(0, trainer.max_epochs or 0),
    )


def loss_scale(trainer: Any) -> Tensor | float:
    """Return the factor by which 16-mixed precision multiplies the loss; 1 without a scaler."""
    return loss_scale_of(getattr(trainer.precision_plugin, "scaler", None))


def scalar_metrics(trainer: Any) -> dict[str, Tensor | float]:
    """Return the logged metrics that are single numbers, without reading them from a GPU.

    ``Trainer.callback_metrics`` updates what the Trainer keeps of them, and what it keeps is what
    remains after an exception. That is restored.
    """
    kept = getattr(getattr(trainer, "_logger_connector", None), "_callback_metrics", None)
    before = None if kept is None else dict(kept)
    metrics = {name: one for name, one in trainer.callback_metrics.items() if is_scalar(one)}
    if kept is not None and before is not None:
        kept.clear()
        kept.update(before)
    return metrics
