"""Users who change a training while it runs: hooks, parameters, optimizers, other trainings."""

from __future__ import annotations

import functools
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn, optim
from torch.func import functional_call
from torch.nn import functional as F

from benchmarks.left_alone.cases.small import Classifier, batches, conv_net
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class ChangesGradients(Classifier):
    """Changes gradients by hooks of tensors and modules, and after the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].weight.register_hook(lambda grad: grad * 0.5)
        self.net[3].register_full_backward_hook(lambda m, grads, _: (grads[0] * 2,))

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad.add_(torch.randn_like(parameter.grad) * 1e-3)


@register_case()
def train_noisy_gradients(training: Training) -> None:
    training.fit(ChangesGradients(), batches())


class ChangesLayerInputs(Classifier):
    """Changes what a layer receives and returns by forward hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].register_forward_pre_hook(lambda m, args: (args[0] + 0.1,))
        self.net[3].register_forward_hook(lambda m, args, output: output * 1.5)


@register_case()
def train_changed_input(training: Training) -> None:
    training.fit(ChangesLayerInputs(), batches())


class AddsParameterGroup(Classifier):
    """Adds a parameter group in the middle of the training, as gradual unfreezing does."""

    def configure_optimizers(self) -> Any:
        self.net[:3].requires_grad_(False)
        return optim.Adam(self.net[3:].parameters(), 0.01)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            self.net[:3].requires_grad_(True)
            self.optimizers().add_param_group({"params": list(self.net[:3].parameters())})


@register_case()
def train_grown_groups(training: Training) -> None:
    training.fit(AddsParameterGroup(), batches())


class ReinitializesWeights(Classifier):
    """Draws weights again and replaces storages while it trains."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 4:
            self.net[3].reset_parameters()
        if batch_idx == 6:
            self.net[0].weight.data = self.net[0].weight.data.clone() * 0.9


@register_case()
def train_reinitialized(training: Training) -> None:
    training.fit(ReinitializesWeights(), batches())


class ReplacesHead(Classifier):
    """Replaces its head and makes a new optimizer."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.net[7] = nn.Linear(self.net[7].in_features, 3, device=self.device)
            self.trainer.optimizers = [optim.Adam(self.parameters(), 0.01)]


@register_case()
def train_replaced_layer(training: Training) -> None:
    training.fit(ReplacesHead(), batches(6), max_epochs=2)


class AddsConvolution(Classifier):
    """Gets one more convolution after a batch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            layer = nn.Conv2d(1, 1, 3, padding=1, device=self.device)
            self.net = nn.Sequential(layer, *self.net)
            self.optimizers().add_param_group({"params": list(layer.parameters())})


@register_case()
def train_added_layer(training: Training) -> None:
    training.fit(AddsConvolution(), batches())


class SkipsEpoch(Classifier):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 4 and self.current_epoch == 0 else None


@register_case()
def train_skipped_epoch(training: Training) -> None:
    training.fit(SkipsEpoch(), batches(6), max_epochs=2)


class Lookahead(Classifier):
    """Slow weights that follow the fast ones, in ``optimizer_step``."""

    def __init__(self) -> None:
        super().__init__()
        self.slow: dict[str, Tensor] = {}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
        optimizer.step(closure=closure)
        if batch_idx % 3 == 2:
            for name, p in self.net.named_parameters():
                slow = self.slow.get(name)
                if slow is not None and slow.shape == p.shape:
                    p.data.copy_(slow + 0.5 * (p.data - slow))
                self.slow[name] = p.data.clone()


@register_case(steerable=False)
def train_lookahead(training: Training) -> None:
    training.fit(Lookahead(), batches())


class DifferentiatesThroughUpdate(Classifier):
    """Evaluates its network with other weights, and differentiates through an update."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, labels = batch
        weights = dict(self.net.named_parameters())
        loss = F.cross_entropy(functional_call(self.net, weights, (images,)), labels)
        grads = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        updated = {name: w - 0.01 * g for (name, w), g in zip(weights.items(), grads, strict=True)}
        return F.cross_entropy(functional_call(self.net, updated, (images,)), labels)


@register_case()
def train_functional(training: Training) -> None:
    training.fit(DifferentiatesThroughUpdate(), batches())


class EvaluatesBetweenBatches(pl.Callback):
    """Evaluates by hand between two batches, as hand-written probes do."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        pl_module.eval()
        with torch.no_grad():
            pl_module.log("probe", pl_module(batch[0]).abs().mean())
        pl_module.train()


@register_case()
def train_evaluated_between_batches(training: Training) -> None:
    training.fit(Classifier(), batches(), EvaluatesBetweenBatches())


class TrainsWithinTraining(pl.Callback):
    """Trains something else within the training."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if batch_idx == 5:
            quiet = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
            other = pl.Trainer(max_epochs=1, enable_progress_bar=False, **quiet)
            other.fit(Classifier(), batches(2))


@register_case()
def train_nested_training(training: Training) -> None:
    training.fit(Classifier(), batches(), TrainsWithinTraining())


class PredictsAfterEpochs(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for images, _ in batches(1):
            trainer.lightning_module.kept = pl_module(images.to(pl_module.device)).detach()


@register_case()
def train_predicts_after_epochs(training: Training) -> None:
    training.fit(Classifier(), batches(6), PredictsAfterEpochs(), max_epochs=2)


@register_case()
def train_lambda_callback(training: Training) -> None:
    calls: list[int] = []
    callback = lightning.LambdaCallback(
        on_train_batch_end=lambda trainer, *_: calls.append(trainer.global_step),
        on_before_zero_grad=lambda *_: calls.append(-1),
    )
    training.fit(Classifier(), batches(), callback)
    training.compare_also("calls", calls)


@register_case()
def train_timer(training: Training) -> None:
    training.fit(Classifier(), batches(), lightning.Timer(duration={"hours": 1}))


@register_case()
def train_rate_monitor(training: Training) -> None:
    monitor = lightning.LearningRateMonitor()
    training.fit(
        Classifier(), batches(), monitor, logger=CSVLogger(training.folder), log_every_n_steps=1
    )


class AccumulatesByHand(Classifier):
    """Accumulates by hand and steps when a threshold is reached."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.total = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.loss(batch)
        self.manual_backward(loss)
        self.total += float(loss)
        if self.total > 3:
            self.optimizers().step()
            self.optimizers().zero_grad()
            self.total = 0.0


@register_case()
def train_own_accumulation(training: Training) -> None:
    training.fit(AccumulatesByHand(), batches())


class StudentAndTeacher(Classifier):
    """Distillation: a trained student, and a teacher that stays in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = conv_net().eval().requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        self.teacher.eval()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, labels = batch
        student = self(images)
        with torch.no_grad():
            teacher = self.teacher(images)
        soft = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
        return F.cross_entropy(student, labels) + soft


@register_case()
def train_distillation(training: Training) -> None:
    training.fit(StudentAndTeacher(), batches())


@register_case()
def train_nadam_and_lambda(training: Training) -> None:
    class Scheduled(Classifier):
        def configure_optimizers(self) -> Any:
            optimizer = optim.NAdam(self.parameters(), 0.01)
            scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
            return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 2}]

        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            scheduler.step()

    training.fit(Scheduled(), batches())


@register_case()
def train_adamax_maximize(training: Training) -> None:
    make = functools.partial(optim.Adamax, lr=0.01, maximize=True)
    training.fit(Classifier(optimizer=make), batches())
