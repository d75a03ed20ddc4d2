"""The trainer's flags, precision plugins, resuming, ends of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from benchmarks.left_alone.cases.small import Classifier, batches, conv_net
from benchmarks.left_alone.registry import add_case, register_case
from benchmarks.left_alone.training import Training

FLAGS: dict[str, dict[str, Any]] = {
    "fast_dev_run": {"fast_dev_run": 8},
    "overfit_batches": {"overfit_batches": 4, "max_epochs": 3},
    "limited_batches": {"limit_train_batches": 0.8, "limit_val_batches": 1, "max_epochs": 2},
    "val_check_interval": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "detect_anomaly": {"detect_anomaly": True},
    "deterministic": {"deterministic": True},
    "no_inference_mode": {"inference_mode": False},
    "barebones": {"barebones": True, "logger": None, "enable_checkpointing": None,
                  "enable_progress_bar": None, "enable_model_summary": None},
    "no_sanity_check": {"num_sanity_val_steps": 0},
    "whole_sanity_check": {"num_sanity_val_steps": -1},
    "reload_dataloaders": {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2},
    "max_steps": {"max_steps": 9, "max_epochs": -1},
    "clip_norm": {"gradient_clip_val": 0.1},
    "clip_value": {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"},
    "simple_profiler": {"profiler": "simple"},
    "progress_bar": {"enable_progress_bar": True, "enable_model_summary": True},
    "bf16_mixed": {"precision": "bf16-mixed"},
    "bf16_true": {"precision": "bf16-true"},
    "float64_true": {"precision": "64-true"},
    "float16_mixed": {"precision": "16-mixed"},
}  # fmt: skip


def _add(name: str, options: dict[str, Any]) -> None:
    def train(training: Training) -> None:
        training.fit(Classifier(), batches(), validation=batches(3), **options)

    train.__module__ = __name__
    add_case(name, train, output=lambda m, b: m(b[0].to(next(m.parameters()).dtype)))


for _name, _options in FLAGS.items():
    _add(_name, _options)


# ---------------------------------------------------------------------- resuming


@register_case(quick=True)
def train_resumed(training: Training) -> None:
    training.fit(Classifier(), batches(10), max_epochs=1).save_checkpoint("first.ckpt")
    training.fit(Classifier(), batches(10), max_epochs=2, resume="first.ckpt")


@register_case()
def train_resumed_from_last(training: Training) -> None:
    saving = [ModelCheckpoint(save_last=True, dirpath=training.folder) for _ in range(2)]
    training.fit(Classifier(), batches(10), saving[0], enable_checkpointing=True)
    training.fit(
        Classifier(), batches(10), saving[1], enable_checkpointing=True, max_epochs=2, resume="last"
    )


@register_case()
def train_resumed_in_epoch(training: Training) -> None:
    saving = ModelCheckpoint(
        every_n_train_steps=8,
        dirpath=training.folder,
        filename="middle",
        save_on_train_epoch_end=False,
    )
    training.fit(
        Classifier(), batches(8), saving, enable_checkpointing=True, max_steps=9, max_epochs=-1
    )
    training.fit(Classifier(), batches(16), resume=training.folder / "middle.ckpt", max_epochs=2)


@register_case()
def train_weights_loaded_only(training: Training) -> None:
    """Resumes with the state dict of the module only, in a module that never ran with edits."""
    module = Classifier()
    training.fit(module, batches(10))
    training.fit(module, batches(10))


@register_case()
def train_two_fits_of_one_trainer(training: Training) -> None:
    module = Classifier()
    trainer = training.fit(module, batches(10))
    trainer.fit_loop.max_epochs = 2
    training.fit_with(trainer, module, batches(10))


@register_case()
def train_fits_of_two_modules(training: Training) -> None:
    trainer = training.fit(Classifier(), batches(10))
    trainer.fit_loop.max_epochs = 2
    training.fit_with(trainer, Classifier(conv_net()), batches(10))


@register_case()
def train_validated_and_tested(training: Training) -> None:
    module = Classifier()
    trainer = training.make_trainer()
    training.compare_also("before", trainer.validate(module, batches(2), verbose=False)[0].keys())
    training.fit_with(trainer, module, batches(10), batches(2))
    trainer.validate(module, batches(2), verbose=False)
    trainer.test(module, batches(2), verbose=False)
    trainer.predict(module, torch.utils.data.DataLoader(batches(1).dataset[0][0][None]))
    trainer.save_checkpoint("end.ckpt")
    trainer.test(module, batches(2), ckpt_path="end.ckpt", verbose=False)


@register_case()
def train_best_tested(training: Training) -> None:
    saving = ModelCheckpoint(monitor="val_loss", dirpath=training.folder, filename="best")
    trainer = training.fit(
        Classifier(), batches(10), saving, validation=batches(2), enable_checkpointing=True,
        max_epochs=2,
    )  # fmt: skip
    trainer.test(dataloaders=batches(2), ckpt_path="best", verbose=False)


# ---------------------------------------------------------------------- ends


class RaisesError(pl.Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx == 9:
            raise self.error


@register_case(raises=True)
def train_exception(training: Training) -> None:
    training.fit(Classifier(), batches(), RaisesError(RuntimeError("out of memory")))


@register_case(raises=True)
def train_keyboard_interrupt(training: Training) -> None:
    training.fit(Classifier(), batches(), RaisesError(KeyboardInterrupt()))


class RaisesInStep(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 9:
            raise ValueError("a bad sample")
        return super().training_step(batch, batch_idx)


@register_case(raises=True)
def train_exception_in_step(training: Training) -> None:
    training.fit(RaisesInStep(), batches())


class StopsTrainer(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.trainer.should_stop = batch_idx == 9
        return super().training_step(batch, batch_idx)


@register_case()
def train_should_stop(training: Training) -> None:
    training.fit(StopsTrainer(), batches())


class ConfiguresModel(Classifier):
    """Creates its network in ``configure_model``."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.net = None

    def configure_model(self) -> None:
        if self.net is None:
            self.net = conv_net()


@register_case()
def train_configure_model(training: Training) -> None:
    training.fit(ConfiguresModel(), batches(10)).save_checkpoint("first.ckpt")
    training.fit(ConfiguresModel(), batches(10), max_epochs=2, resume="first.ckpt")


class SavesHyperparameters(Classifier):
    def __init__(self, folder: Path, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()


@register_case()
def train_hyperparameters(training: Training) -> None:
    training.fit(SavesHyperparameters(Path("data")), batches(10)).save_checkpoint("first.ckpt")
    module = SavesHyperparameters(Path("data"))
    training.fit(module, batches(10), max_epochs=2, resume="first.ckpt", weights_only=False)


class CreatesLayerInSetup(Classifier):
    """Creates a layer in ``setup``."""

    def setup(self, stage: str) -> None:
        if isinstance(self.net, nn.Identity):
            self.net = conv_net()


@register_case()
def train_net_from_setup(training: Training) -> None:
    training.fit(CreatesLayerInSetup(nn.Identity()), batches())
