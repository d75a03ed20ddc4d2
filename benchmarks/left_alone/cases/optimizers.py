"""Optimizers and schedulers of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import optim
from torch.optim import lr_scheduler as schedulers

from benchmarks.left_alone.cases.small import Classifier, batches
from benchmarks.left_alone.registry import add_case, register_case
from benchmarks.left_alone.training import Training

OPTIMIZERS: dict[str, Any] = {
    "nesterov": lambda p: optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "amsgrad": lambda p: optim.AdamW(p, amsgrad=True),
    "fused_adam": lambda p: optim.Adam(p, fused=True),
    "adam_foreach": lambda p: optim.Adam(p, foreach=True),
    "adafactor": lambda p: optim.Adafactor(p),
    "rmsprop": lambda p: optim.RMSprop(p, centered=True, momentum=0.5),
    "adagrad": lambda p: optim.Adagrad(p),
    "rprop": lambda p: optim.Rprop(p),
    "asgd": lambda p: optim.ASGD(p),
    "radam": lambda p: optim.RAdam(p),
}
SCHEDULERS: dict[str, Any] = {
    "one_cycle": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=20),
    "cosine_restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 4),
    "sequential": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.ExponentialLR(o, 0.9)], [3]
    ),
    "cyclic": lambda o: schedulers.CyclicLR(o, 0.001, 0.1, step_size_up=3),
    "chained": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.5, 3), schedulers.PolynomialLR(o, 20)]
    ),
}


class StepScheduled(Classifier):
    """Steps its scheduler after each batch."""

    def __init__(self, make_scheduler: Any) -> None:
        super().__init__()
        self.make_scheduler = make_scheduler

    def configure_optimizers(self) -> Any:
        optimizer = optim.SGD(self.parameters(), 0.05, momentum=0.9)
        return [optimizer], [{"scheduler": self.make_scheduler(optimizer), "interval": "step"}]


def _add_optimizer(name: str, make: Any) -> None:
    def train(training: Training) -> None:
        training.fit(Classifier(optimizer=make), batches())

    train.__module__ = __name__
    add_case(name, train)


def _add_scheduler(name: str, make: Any) -> None:
    def train(training: Training) -> None:
        training.fit(StepScheduled(make), batches())

    train.__module__ = __name__
    add_case(name, train)


for _name, _make in OPTIMIZERS.items():
    _add_optimizer(_name, _make)
for _name, _make in SCHEDULERS.items():
    _add_scheduler(_name, _make)


class PlateauScheduled(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = optim.SGD(self.parameters(), 0.1)
        scheduler = schedulers.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": scheduler, "monitor": "val_loss"}


@register_case()
def train_plateau(training: Training) -> None:
    training.fit(PlateauScheduled(), batches(6), validation=batches(2), max_epochs=3)


class GroupPerLayer(Classifier):
    """A group per layer, each with its own rate; no decay of biases."""

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [
            {"params": [p], "lr": 0.01 * (i + 1), "weight_decay": 0.0 if p.ndim == 1 else 0.01}
            for i, p in enumerate(self.net.parameters())
        ]
        return optim.AdamW(groups)


@register_case(quick=True)
def train_layer_groups(training: Training) -> None:
    training.fit(GroupPerLayer(), batches())


class TrainsHeadOnly(Classifier):
    """Trains its head only, without freezing the rest."""

    def configure_optimizers(self) -> Any:
        return optim.Adam(self.net[7].parameters(), 0.01)


@register_case()
def train_head_only(training: Training) -> None:
    training.fit(TrainsHeadOnly(), batches())


@register_case()
def train_optimizer_hooks(training: Training) -> None:
    calls: list[str] = []

    class Hooked(Classifier):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
            optimizer.register_step_post_hook(lambda *_: calls.append("post"))
            return optimizer

    training.fit(Hooked(), batches())
    training.compare_also("calls", calls)


@register_case(steerable=False)
def train_sharpness_aware(training: Training) -> None:
    """SAM: an optimizer of the user's own, around another."""

    class Sam(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"rho": 0.05})
            self.inner = optim.SGD(self.param_groups, 0.05, momentum=0.9)

        def step(self, closure: Any = None) -> Any:
            with torch.enable_grad():
                loss = closure()
            moved = []
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            shift = p.grad * group["rho"]
                            p.add_(shift)
                            moved.append((p, shift))
            with torch.enable_grad():
                closure()
            with torch.no_grad():
                for p, shift in moved:
                    p.sub_(shift)
            self.inner.step()
            return loss

    training.fit(Classifier(optimizer=Sam), batches())
