"""Read and control a Lightning Trainer, without importing Lightning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch import Progress
from revacnn_lightning.runtime.batch_images import ImagesOfBatch, find_image, find_images
from revacnn_lightning.runtime.image_class import class_names, find_class
from revacnn_lightning.runtime.image_predictions import ImageTruth
from revacnn_lightning.runtime.metric_reader import is_scalar
from revacnn_lightning.runtime.picture_fitting import Preprocessing, dataset_preprocessing
from revacnn_lightning.runtime.schedulers import find_schedulers
from revacnn_lightning.steering.holders.object_walk import Holder
from revacnn_lightning.telemetry.inspection.side_effects import loading_restored

__all__ = [
    "TrainerControls",
    "data_class_names",
    "learning_rates",
    "logging_step",
    "loss_scale",
    "model_holders",
    "progress_of",
    "record_next_step",
    "scalar_metrics",
    "validation_image",
    "validation_preprocessing",
    "validation_truth",
]

log = logging.getLogger(__name__)


class TrainerControls:
    """The `controls.TrainingControls` of a Trainer."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

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


def validation_image(trainer: Any, index: int, images: ImagesOfBatch | None = None) -> Tensor:
    """Return image ``index`` of the (first) validation dataset, on the model's device.

    It has the type of those in a batch, such as bfloat16 with ``precision="bf16-true"``.

    Args:
        trainer: a Trainer.
        index: of the sample in the dataset.
        images: the user's function that returns the images of a batch; None: they are searched for.

    Raises:
        EditRefusedError: there is no validation data, or no such image in it.
    """
    loader = _validation_loader(trainer)
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise EditRefusedError(
            "this training has no validation images to choose from; show the first of the batch "
            "instead"
        )
    if not 0 <= index < len(dataset):
        raise EditRefusedError(
            f"there is no validation image {index}; choose one of 0 to {len(dataset) - 1}"
        )
    device = trainer.strategy.root_device
    image = _load_image(loader, index, images, device)
    if image is None:
        raise EditRefusedError(
            f"item {index} of the validation data holds no image (channels, H, W); pass "
            "ReVACNN(images=lambda batch: ...) to say where the images of a batch are"
        )
    converted: Tensor = trainer.precision_plugin.convert_input(image.to(device, copy=True))
    return converted


def _load_image(
    loader: Any, index: int, images: ImagesOfBatch | None, device: torch.device
) -> Tensor | None:
    """Return the image of one item of a loader's dataset; None if the item holds none."""
    try:
        with loading_restored(loader.dataset, device):
            sample = loader.dataset[index]
            if images is None:
                return find_image(sample)
            return next(iter(find_images(loader.collate_fn([sample]), images) or ()), None)
    except EditRefusedError:  # of the user's function of images
        raise
    except Exception as error:  # the user's dataset may raise anything
        detail = f"{type(error).__name__}: {error}"
        raise EditRefusedError(
            f"item {index} of the validation data cannot be loaded ({detail}); choose another one"
        ) from error


def validation_truth(trainer: Any, index: int, names: Sequence[str] = ()) -> ImageTruth:
    """Return the class of item ``index`` of the (first) validation dataset, as far as known.

    Args:
        names: of all classes, as the user says; (): those of the data.
    """
    dataset: Any = getattr(_validation_loader(trainer), "dataset", None)
    try:
        with loading_restored(dataset, trainer.strategy.root_device):
            return ImageTruth(find_class(dataset[index]), names or data_class_names(trainer))
    except Exception:  # the user's dataset may raise anything
        log.info("Cannot read the class of item %d of the validation data", index, exc_info=True)
        return ImageTruth()


def validation_preprocessing(trainer: Any) -> Preprocessing | None:
    """Return what prepares the images of the (first) validation dataset, if it is known."""
    dataset: Any = getattr(_validation_loader(trainer), "dataset", None)
    return dataset_preprocessing(dataset, trainer.strategy.root_device)


def data_class_names(trainer: Any) -> Sequence[str]:
    """Return the names of the classes as the datasets or the data module have them; or ()."""
    loaders = (_validation_loader(trainer), _first(getattr(trainer, "train_dataloader", None)))
    datasets = [getattr(loader, "dataset", None) for loader in loaders]
    holders = (*datasets, getattr(trainer, "datamodule", None))
    return next((names for names in map(class_names, holders) if names), ())


def _validation_loader(trainer: Any) -> Any:
    return _first(trainer.val_dataloaders)


def _first(loaders: Any) -> Any:
    return loaders[0] if isinstance(loaders, (list, tuple)) and loaders else loaders


def logging_step(trainer: Any) -> tuple[int, bool]:
    """Return the step by which Lightning logs the next batch, and whether it logs that step."""
    step = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", trainer.global_step)
    interval = trainer.log_every_n_steps
    return step, interval > 0 and (step + 1) % interval == 0


def record_next_step(trainer: Any, record: Callable[[Callable[[], Any]], Any]) -> None:
    """Let ``record`` run the next training step: it calls its argument and returns the result.

    The attribute is set on the strategy, not on the user's module, and removed before the step.
    """
    attributes = vars(trainer.strategy)
    run_step, before = trainer.strategy.training_step, dict(attributes)

    def recorded_step(*args: Any, **kwargs: Any) -> Any:
        if attributes.get("training_step") is recorded_step:
            del attributes["training_step"]
            attributes.update((n, v) for n, v in before.items() if n == "training_step")
        return record(lambda: run_step(*args, **kwargs))

    attributes["training_step"] = recorded_step


def model_holders(trainer: Any) -> list[Holder]:
    """Return the other callbacks: they may hold copies of the model, or optimizers."""
    return [
        Holder(
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


def learning_rates(trainer: Any) -> list[float]:
    """Return the learning rate of every parameter group of all optimizers."""
    return [
        float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups
    ]


def loss_scale(trainer: Any) -> Tensor | float:
    """Return the factor by which 16-mixed precision multiplies the loss; 1 without a scaler.

    It is the scaler's own tensor, because `get_scale` would wait for the device.
    """
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not scaler.is_enabled():
        return 1.0
    scale: Tensor | None = scaler._scale  # None before the first use
    return float(scaler.get_scale()) if scale is None else scale


def scalar_metrics(trainer: Any) -> dict[str, Tensor | float]:
    """Return those of the module's logged metrics that are single numbers, unread.

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
