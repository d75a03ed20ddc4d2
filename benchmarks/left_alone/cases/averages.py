"""Copies of the model that something holds: averages, twins and pruning masks."""

from __future__ import annotations

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks as lightning
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn

from benchmarks.left_alone.cases.small import Classifier, batches, conv_net
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


@register_case(steerable=False)
def train_ema_callback(training: Training) -> None:
    training.fit(Classifier(), batches(), lightning.EMAWeightAveraging(decay=0.9), max_epochs=2)


@register_case(steerable=False)
def train_weight_averaging(training: Training) -> None:
    averaging = lightning.WeightAveraging(use_buffers=True)
    training.fit(Classifier(), batches(), averaging, validation=batches(2), max_epochs=2)


@register_case(steerable=False, quick=True)
def train_swa_callback(training: Training) -> None:
    swa = lightning.StochasticWeightAveraging(1e-2, swa_epoch_start=1, annealing_epochs=1)
    training.fit(Classifier(), batches(), swa, max_epochs=3)


class OwnEmaNetwork(Classifier):
    """Keeps an average of its network, without optimizing it."""

    def __init__(self) -> None:
        super().__init__()
        self.average = copy.deepcopy(self.net).requires_grad_(False)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for p, q in zip(self.net.parameters(), self.average.parameters(), strict=True):
            q.data.lerp_(p.data, 0.1)


@register_case(steerable=False)
def train_own_ema(training: Training) -> None:
    training.fit(OwnEmaNetwork(), batches())


class EmaModelInCallback(pl.Callback):
    """Keeps an average in the callback."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.average = copy.deepcopy(pl_module).requires_grad_(False)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        values = pl_module.state_dict()
        with torch.no_grad():
            for name, value in self.average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(values[name], 0.1)


@register_case(steerable=False)
def train_ema_in_callback(training: Training) -> None:
    training.fit(Classifier(), batches(), EmaModelInCallback())


class EmaStateInCallback(pl.Callback):
    """Keeps an average as a dict of tensors."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.average = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        for name, parameter in pl_module.named_parameters():
            self.average[name].lerp_(parameter.detach(), 0.1)


@register_case(steerable=False)
def train_ema_of_tensors(training: Training) -> None:
    training.fit(Classifier(), batches(), EmaStateInCallback())


class TorchSwa(Classifier):
    """SWA as torch's documentation shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.averaged = AveragedModel(self.net)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx > 4:
            self.averaged.update_parameters(self.net)

    def on_train_end(self) -> None:
        update_bn(batches(3), self.averaged, device=self.device)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.net.parameters(), 0.1)
        return [optimizer], [SWALR(optimizer, swa_lr=0.05)]


@register_case(steerable=False)
def train_averaged_model(training: Training) -> None:
    training.fit(TorchSwa(), batches(), max_epochs=2)


class FrozenTeacher(Classifier):
    """Distillation from a frozen copy of the same architecture."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = conv_net().requires_grad_(False).eval()

    def loss(self, batch: Any) -> Tensor:
        with torch.no_grad():
            target = self.teacher(batch[0]).softmax(1)
        return nn.functional.cross_entropy(self(batch[0]), target)


@register_case(steerable=False)
def train_frozen_teacher(training: Training) -> None:
    training.fit(FrozenTeacher(), batches())


@register_case(steerable=False)
def train_pruning(training: Training) -> None:
    training.fit(
        Classifier(),
        batches(6),
        lightning.ModelPruning("l1_unstructured", amount=0.2),
        max_epochs=3,
    )


@register_case(steerable=False)
def train_pruning_of_filters(training: Training) -> None:
    module = Classifier()
    pruning = lightning.ModelPruning(
        "ln_structured",
        [(module.net[0], "weight"), (module.net[3], "weight")],
        amount=0.25,
        use_global_unstructured=False,
        pruning_dim=0,
        pruning_norm=1,
    )
    training.fit(module, batches(6), pruning, max_epochs=2)
