"""Manual optimization and closures: GANs, accumulation and clipping by hand, LBFGS."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.left_alone.cases.small import Classifier, batches
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class ManualOptimization(Classifier):
    """Manual optimization of one network."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


class Gan(ManualOptimization):
    """A generator and a discriminator, as in Lightning's example."""

    toggled = False

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(4, 6, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 1, 5)
        )
        self.judge = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3)
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        generator, judge = self.optimizers()  # type: ignore[attr-defined]
        noise = torch.randn(len(batch[0]), 4, 1, 1, device=self.device)
        self._step(generator, lambda: -self.judge(self(noise)).mean())
        fake = self(noise).detach()
        self._step(judge, lambda: F.softplus(self.judge(fake) - self.judge(batch[0])).mean())

    def _step(self, optimizer: Any, loss: Any) -> None:
        if self.toggled:
            self.toggle_optimizer(optimizer)
        value = loss()
        optimizer.zero_grad()
        self.manual_backward(value)
        optimizer.step()
        if self.toggled:
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.net.parameters(), lr=0.002, betas=(0.5, 0.9)),
            torch.optim.Adam(self.judge.parameters(), lr=0.002, betas=(0.5, 0.9)),
        ]


class ToggledGan(Gan):
    toggled = True


class AccumulatesManually(ManualOptimization):
    """Accumulates, clips and schedules by hand."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        self.manual_backward(self.loss(batch) / 2)
        if batch_idx % 2:
            self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class TwoOptimizersOneNetwork(ManualOptimization):
    """Two optimizers of different kinds share the parameters of one network."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> Any:
        convs = [p for p in self.net.parameters() if p.ndim == 4]
        others = [p for p in self.net.parameters() if p.ndim != 4]
        return torch.optim.SGD(convs, 0.05, momentum=0.9), torch.optim.AdamW(others)


class ClosureByHand(ManualOptimization):
    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(batch)
            self.manual_backward(loss)
            return loss

        optimizer.step(closure=closure)


class ClosureOfNone(Classifier):
    """A closure that skips the backward pass of some batches."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx in (1, 6) else self.loss(batch)


def _lbfgs(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)


@register_case()
def train_manual(training: Training) -> None:
    training.fit(ManualOptimization(), batches())


@register_case(
    output=lambda m, b: (m.judge(b[0]), m.net(b[0][:, :, :4, :1].transpose(1, 2))), quick=True
)
def train_gan(training: Training) -> None:
    training.fit(Gan(), batches())


@register_case(output=lambda m, b: (m.judge(b[0]), m.net(b[0][:, :, :4, :1].transpose(1, 2))))
def train_gan_toggled(training: Training) -> None:
    training.fit(ToggledGan(), batches())


@register_case()
def train_manual_accumulation(training: Training) -> None:
    training.fit(AccumulatesManually(), batches(16))


@register_case()
def train_two_optimizers(training: Training) -> None:
    training.fit(TwoOptimizersOneNetwork(), batches())


@register_case(steerable=False)
def train_lbfgs(training: Training) -> None:
    training.fit(Classifier(optimizer=_lbfgs), batches())


@register_case(steerable=False)
def train_lbfgs_by_hand(training: Training) -> None:
    training.fit(ClosureByHand(optimizer=_lbfgs), batches())


@register_case()
def train_closure_of_none(training: Training) -> None:
    training.fit(ClosureOfNone(), batches())
