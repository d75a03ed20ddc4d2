"""Callbacks: finetuning, accumulation, checkpoints, monitors, copies; and the tuner."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.tuner.tuning import Tuner
from torch import Tensor, nn

from benchmarks.left_alone.cases.small import Classifier, batches
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class BackboneClassifier(Classifier):
    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 3)))
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.backbone(images))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], 0.01)


@register_case(quick=True)
def train_backbone_finetuning(training: Training) -> None:
    finetuning = lightning.BackboneFinetuning(1, lambda epoch: 1.5, verbose=False)
    training.fit(BackboneClassifier(), batches(6), finetuning, max_epochs=3)


class UnfreezesInSecondEpoch(lightning.BaseFinetuning):
    """Freezes one layer until the second epoch."""

    def freeze_before_training(self, pl_module: pl.LightningModule) -> None:
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module, epoch, optimizer) -> None:  # type: ignore[no-untyped-def]
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.001)


class FreezableClassifier(Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], 0.01)


@register_case()
def train_own_finetuning(training: Training) -> None:
    training.fit(FreezableClassifier(), batches(6), UnfreezesInSecondEpoch(), max_epochs=3)


class ReplacesOptimizers(pl.Callback):
    """Makes new optimizers after the first epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.strategy.setup_optimizers(trainer)


@register_case()
def train_new_optimizers(training: Training) -> None:
    training.fit(Classifier(), batches(5), ReplacesOptimizers(), max_epochs=3)


@register_case()
def train_accumulation(training: Training) -> None:
    training.fit(Classifier(), batches(14), accumulate_grad_batches=2)


@register_case()
def train_accumulation_scheduler(training: Training) -> None:
    scheduler = lightning.GradientAccumulationScheduler({0: 1, 1: 3})
    training.fit(Classifier(), batches(9), scheduler, max_epochs=2)


@register_case()
def train_early_stopping(training: Training) -> None:
    stopping = lightning.EarlyStopping("val_loss", patience=1)
    training.fit(Classifier(), batches(6), stopping, validation=batches(2), max_epochs=4)


@register_case()
def train_checkpoint_callback(training: Training) -> None:
    saving = lightning.ModelCheckpoint(monitor="val_loss", save_top_k=2, save_last=True,
                                       every_n_train_steps=3)  # fmt: skip
    training.fit(
        Classifier(), batches(8), saving, validation=batches(2), max_epochs=2,
        val_check_interval=4, enable_checkpointing=True,
    )  # fmt: skip


@register_case()
def train_logger_and_monitors(training: Training) -> None:
    training.fit(
        Classifier(), batches(), lightning.LearningRateMonitor(),
        lightning.Timer(timedelta(hours=1)), lightning.LambdaCallback(on_train_start=_nothing),
        logger=CSVLogger(training.folder, version="one"), log_every_n_steps=2,
    )  # fmt: skip


def _nothing(*args: Any) -> None:
    """Do nothing."""


class CopiesModel(pl.Callback):
    """Deep-copies the model in the middle of the run."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx % 5 == 4:
            self.copy = copy.deepcopy(pl_module)
            self.state = copy.deepcopy(trainer.model.state_dict())


@register_case()
def train_deep_copy_of_model(training: Training) -> None:
    training.fit(Classifier(), batches(), CopiesModel())


class PicklesModel(pl.Callback):
    """Saves the whole network, not only its state."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx == 9:
            torch.save(pl_module.net, "net.pt")
            self.loaded = torch.load("net.pt", weights_only=False)


@register_case()
def train_pickled_model(training: Training) -> None:
    training.fit(Classifier(), batches(), PicklesModel())


class RestoresStartWeights(pl.Callback):
    """Loads the weights of the start of the run in its middle."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.before = copy.deepcopy(pl_module.state_dict())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx == 1:
            pl_module.load_state_dict(self.before)


@register_case()
def train_weights_restored(training: Training) -> None:
    training.fit(Classifier(), batches(), RestoresStartWeights())


class HasLearningRate(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.lr, self.batch_size = 0.01, 2

    def train_dataloader(self) -> Any:
        loader = batches(12)
        return torch.utils.data.DataLoader(loader.dataset, batch_size=self.batch_size)

    def val_dataloader(self) -> Any:
        return batches(2)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr)


@register_case()
def train_rate_finder(training: Training) -> None:
    module = HasLearningRate()
    trainer = training.make_trainer()
    found = Tuner(trainer).lr_find(module, num_training=10)
    training.compare_also("rates", found.results)
    training.fit_with(trainer, module)


@register_case()
def train_batch_size_finder(training: Training) -> None:
    module = HasLearningRate()
    trainer = training.make_trainer()
    Tuner(trainer).scale_batch_size(module, max_trials=2, steps_per_trial=4)
    training.fit_with(trainer, module)
    training.compare_also("batch size", module.batch_size)
