"""Training steps: their effects, several optimizers, manual optimization, overridden hooks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.left_alone.cases.small import Classifier, batches
from benchmarks.left_alone.registry import add_case, register_case
from benchmarks.left_alone.training import Training


class CollectsOutputs(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.by_batch: dict[int, float] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.outputs.append(loss.detach())
        self.by_batch[batch_idx] = float(loss)
        return {"loss": loss, "predictions": self(batch[0]).argmax(1)}


class MomentumEncoder(Classifier):
    """MoCo and BYOL: the target network follows the trained one within the step."""

    def __init__(self) -> None:
        super().__init__()
        self.target = copy.deepcopy(self.net).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(16, 3))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            for p, q in zip(self.net.parameters(), self.target.parameters(), strict=True):
                q.data = q.data * 0.9 + p.data * 0.1
            keys = self.target(batch[0].flip(-1))
        loss = F.mse_loss(self(batch[0]), keys) + self.queue.mean()
        size = len(keys)
        start = int(self.position)
        self.queue[start : start + size] = keys
        self.position.add_(size).remainder_(len(self.queue))
        return loss


class ChangesBatchInPlace(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch[0].sub_(0.5).div_(0.25)
        return super().training_step(batch, batch_idx)


class MixupWithOwnGenerator(Classifier):
    """Mixup with a generator of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.generator = torch.Generator().manual_seed(0)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        share = self.rng.beta(1, 1)
        order = torch.randperm(len(batch[0]), generator=self.generator)
        mixed = share * batch[0] + (1 - share) * batch[0][order]
        return share * self.loss((mixed, batch[1])) + (1 - share) * self.loss(
            (mixed, batch[1][order])
        )


class CountsCalls(Classifier):
    """Counts its calls in plain attributes and in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.history: dict[str, list[int]] = {"calls": []}
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.history["calls"].append(self.calls)
        self.seen += len(images)
        return self.net(images * min(1.0, self.calls / 10))


class AdversarialExamples(Classifier):
    """FGSM: gradients within the training step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images = batch[0].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.loss((images, batch[1])), images)
        return self.loss(((images + 0.1 * gradient.sign()).detach(), batch[1]))


class GradientPenalty(Classifier):
    """WGAN-GP: a gradient of a gradient."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images = batch[0].clone().requires_grad_()
        scores = self(images)
        (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        return F.cross_entropy(scores, batch[1]) + penalty


class ReturnsNoneSometimes(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 4 == 1 else super().training_step(batch, batch_idx)


class ForwardTakesBatch(Classifier):
    """The forward takes the whole batch."""

    def forward(self, batch: Any) -> Tensor:
        return self.net(batch[0])

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch), batch[1])


class FixedBatchSize(Classifier):
    """The loss is only defined for the whole batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        weights = torch.linspace(0, 1, 8, device=self.device)
        losses = F.cross_entropy(self(batch[0]), batch[1], reduction="none")
        return (losses * weights).mean()


class HasNoForward(Classifier):
    """Runs its networks in the training step only."""

    forward = pl.LightningModule.forward  # the empty one

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])


class OwnZeroGrad(Classifier):
    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)


class OwnBackward(Classifier):
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        (2 * loss).backward(retain_graph=True)


class WarmUp(Classifier):
    """Sets the learning rate in its own optimizer step, as Lightning's documentation shows."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:  # type: ignore[no-untyped-def]
        optimizer.step(closure=optimizer_closure)
        if self.trainer.global_step < 5:
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (self.trainer.global_step + 1) / 5


class EverySecondStep(Classifier):
    """Runs the closure, but steps only every second time."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:  # type: ignore[no-untyped-def]
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


class StopsEpoch(Classifier):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 9 else None


class OwnClipping(Classifier):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, **options) -> None:  # type: ignore[no-untyped-def]
        self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="value")


class GradientNorms(Classifier):
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        norms = {n: float(p.grad.norm()) for n, p in self.named_parameters() if p.grad is not None}
        self.log("norm", sum(norms.values()))


class TwoTaskHeads(Classifier):
    """Several tasks on one trunk, with an auxiliary head in training only."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))
        self.a, self.b, self.auxiliary = nn.Linear(4, 3), nn.Linear(4, 1), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net(images).mean((2, 3))
        return self.a(features), self.b(features)

    def loss(self, batch: Any) -> Tensor:
        classes, value = self(batch[0])
        extra = self.auxiliary(self.net[0](batch[0]).mean((2, 3)))
        return (
            F.cross_entropy(classes, batch[1])
            + F.mse_loss(value[:, 0], batch[1].float())
            + 0.3 * F.cross_entropy(extra, batch[1])
        )


def _add(name: str, module: Any, **options: Any) -> None:
    def train(training: Training) -> None:
        training.fit(module(), batches())

    train.__module__ = __name__
    add_case(name, train, **options)


for _name, _module in {
    "collects_outputs": CollectsOutputs,
    "in_place_batch": ChangesBatchInPlace,
    "mixup": MixupWithOwnGenerator,
    "fgsm": AdversarialExamples,
    "gradient_penalty": GradientPenalty,
    "step_returns_none": ReturnsNoneSometimes,
    "fixed_batch_size": FixedBatchSize,
    "zero_grad_to_zero": OwnZeroGrad,
    "own_backward": OwnBackward,
    "warm_up_in_step": WarmUp,
    "every_second_step": EverySecondStep,
    "stops_epoch": StopsEpoch,
    "own_clipping": OwnClipping,
    "gradient_norms": GradientNorms,
    "heads": TwoTaskHeads,
}.items():
    _add(_name, _module, quick=_name in ("collects_outputs", "in_place_batch"))
_add("momentum_encoder", MomentumEncoder, layer="net.0")  # the target runs first
# The forward depends on its calls, and those of the comparison would count.
_add("counts_calls", CountsCalls, output=lambda m, b: m.net(b[0]))
_add("batch_forward", ForwardTakesBatch, output=lambda m, b: m(b))
_add("no_forward", HasNoForward, output=lambda m, b: m.net(b[0]))


@register_case(quick=True)
def train_plain(training: Training) -> None:
    training.fit(Classifier(), batches(), validation=batches(2))


@register_case()
def train_sgd_without_norm(training: Training) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten())
    head = nn.Sequential(net, nn.Linear(48, 3))
    training.fit(Classifier(head, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)), batches())
