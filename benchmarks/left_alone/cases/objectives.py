"""What is trained, and how: losses, several networks, parts of them."""

from __future__ import annotations

import collections
import copy
import itertools
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from benchmarks.left_alone.cases.small import Classifier, batches, conv_net, encoder
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class TripletLoss(Classifier):
    def __init__(self) -> None:
        super().__init__(encoder())

    def loss(self, batch: Any) -> Tensor:
        anchor, other = self(batch[0]), self(batch[0].roll(1, 0))
        return F.triplet_margin_loss(anchor, self(batch[0] + 0.1), other)


@register_case()
def train_triplets(training: Training) -> None:
    training.fit(TripletLoss(), batches())


class CallsPartsOneByOne(Classifier):
    """Calls the parts of its network one by one, as users of torchvision do."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.features, self.classifier = encoder(), nn.Linear(6, 3)

    def loss(self, batch: Any) -> Tensor:
        features = self.features(batch[0])
        features = features / (features.norm(dim=1, keepdim=True) + 1)
        return F.cross_entropy(self.classifier(features), batch[1])


@register_case(output=lambda module, batch: module.classifier(module.features(batch[0])))
def train_parts_one_by_one(training: Training) -> None:
    training.fit(CallsPartsOneByOne(), batches())


class LearnedLossWeights(Classifier):
    """Learns how much each of its losses counts."""

    def __init__(self) -> None:
        super().__init__(encoder())
        self.heads = nn.ModuleDict({"labels": nn.Linear(6, 3), "mean": nn.Linear(6, 1)})
        self.log_variance = nn.Parameter(torch.zeros(2))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.net(images)
        return {name: head(features) for name, head in self.heads.items()}

    def loss(self, batch: Any) -> Tensor:
        outputs = self(batch[0])
        losses = torch.stack(
            [
                F.cross_entropy(outputs["labels"], batch[1]),
                F.mse_loss(outputs["mean"][:, 0], batch[0].mean((1, 2, 3))),
            ]
        )
        return ((-self.log_variance).exp() * losses + self.log_variance).sum()


@register_case(output=lambda module, batch: module(batch[0])["labels"])
def train_learned_loss_weights(training: Training) -> None:
    training.fit(LearnedLossWeights(), batches())


class Segmentation(Classifier):
    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(
                nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Upsample(scale_factor=2),
                nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1),
            )
        )  # fmt: skip

    def loss(self, batch: Any) -> Tensor:
        labels = (batch[0][:, 0] > 0).long()
        labels[:, 0] = 255
        return F.cross_entropy(self(batch[0]), labels, ignore_index=255)


@register_case()
def train_segmentation(training: Training) -> None:
    training.fit(Segmentation(), batches())


class MaskedAutoencoder(Classifier):
    """Restores pixels that a random mask has hidden."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 1, 3, padding=1))
        )
        self.token = nn.Parameter(torch.zeros(1, 1, 1, 1))

    def loss(self, batch: Any) -> Tensor:
        mask = (torch.rand_like(batch[0]) > 0.5).float()
        restored = self(batch[0] * mask + self.token * (1 - mask))
        return ((restored - batch[0]).square() * (1 - mask)).sum() / (1 - mask).sum()


@register_case()
def train_masked_autoencoder(training: Training) -> None:
    training.fit(MaskedAutoencoder(), batches())


class DeepQ(pl.LightningModule):
    """Q-learning with a replay memory, and a target that is copied now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()
        self.target = copy.deepcopy(self.net)
        self.memory: collections.deque[Any] = collections.deque(maxlen=64)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images, rewards = batch
        with torch.no_grad():
            actions = self(images).argmax(1)
        self.memory.extend(zip(images, actions, rewards, images.flip(3), strict=True))
        if batch_idx % 4 == 0:
            self.target.load_state_dict(self.net.state_dict())
        picks = [self.memory[i] for i in torch.randint(len(self.memory), (8,)).tolist()]
        states, actions, rewards, following = map(torch.stack, zip(*picks, strict=True))
        values = self(states).gather(1, actions[:, None])[:, 0]
        with torch.no_grad():
            expected = rewards + 0.9 * self.target(following).amax(1)
        return F.smooth_l1_loss(values, expected)

    def configure_optimizers(self) -> Any:
        return optim.Adam(self.net.parameters(), 0.01)


@register_case()
def train_deep_q(training: Training) -> None:
    training.fit(DeepQ(), batches())


def generator() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 1, 3, padding=1))


def critic() -> nn.Sequential:
    return nn.Sequential(
        parametrizations.spectral_norm(nn.Conv2d(1, 4, 3, padding=1)), nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1),
    )  # fmt: skip


class CycleGan(pl.LightningModule):
    """Two generators with one optimizer, two critics with another, and a pool of images."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.there, self.back = generator(), generator()
        self.critic_a, self.critic_b = critic(), critic()
        self.pool: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.there(images)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        a, b = batch[0], batch[0].flip(2)
        generators, critics = self.optimizers()  # type: ignore[attr-defined]
        fake_b, fake_a = self.there(a), self.back(b)
        cycle = F.l1_loss(self.back(fake_b), a) + F.l1_loss(self.there(fake_a), b)
        fooled = self.critic_b(fake_b).mean() + self.critic_a(fake_a).mean()
        generators.zero_grad()
        self.manual_backward(cycle - 0.1 * fooled)
        generators.step()
        self.pool = [*self.pool, fake_b.detach()][-4:]
        old = self.pool[int(torch.randint(len(self.pool), ()))]
        critics.zero_grad()
        real = self.critic_a(a).relu().mean() - self.critic_a(fake_a.detach()).mean()
        self.manual_backward(real + self.critic_b(old).relu().mean() - self.critic_b(b).mean())
        critics.step()

    def configure_optimizers(self) -> Any:
        generators = itertools.chain(self.there.parameters(), self.back.parameters())
        critics = itertools.chain(self.critic_a.parameters(), self.critic_b.parameters())
        return optim.Adam(generators, 1e-3, betas=(0.5, 0.99)), optim.Adam(critics, 1e-3)


@register_case(layer="there.0")
def train_cycle(training: Training) -> None:
    training.fit(CycleGan(), batches())


class SelfTraining(Classifier):
    """Predicts labels in evaluation mode within the step, then trains on them."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.eval()
        with torch.inference_mode():
            labels = self(batch[0]).argmax(1)
        self.train()
        return F.cross_entropy(self(batch[0] + 0.1), labels.clone())


@register_case()
def train_self_training(training: Training) -> None:
    training.fit(SelfTraining(), batches())


class ActivationPenalty(Classifier):
    """Adds a penalty of weights and of activations that a hook has collected."""

    def __init__(self) -> None:
        super().__init__()
        self.collected: list[Tensor] = []
        self.net[3].register_forward_hook(lambda m, args, out: self.collected.append(out))

    def loss(self, batch: Any) -> Tensor:
        self.collected.clear()
        loss = super().loss(batch)
        weights = sum(p.abs().sum() for p in self.net.parameters())
        return loss + 1e-4 * weights + 1e-3 * self.collected[0].square().mean()


@register_case()
def train_penalties(training: Training) -> None:
    training.fit(ActivationPenalty(), batches())


class NetworkEnsemble(Classifier):
    """Averages the outputs of several networks."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.members = nn.ModuleList(conv_net() for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([member(images) for member in self.members]).mean(0)


@register_case()
def train_ensemble(training: Training) -> None:
    training.fit(NetworkEnsemble(), batches())


class AlternatesTrainedParts(Classifier):
    """Trains another part of the network in every epoch."""

    def on_train_epoch_start(self) -> None:
        for i, part in enumerate((self.net[:3], self.net[3:])):
            part.requires_grad_(i == self.current_epoch % 2)


@register_case()
def train_alternating_parts(training: Training) -> None:
    training.fit(AlternatesTrainedParts(), batches(6), max_epochs=3)


class AutocastsByHand(Classifier):
    def loss(self, batch: Any) -> Tensor:
        images, labels = batch
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            logits = self(images)
        return F.cross_entropy(logits.float(), labels)


@register_case()
def train_autocast_by_hand(training: Training) -> None:
    training.fit(AutocastsByHand(), batches())


@register_case()
def train_two_fits_in_turn(training: Training) -> None:
    """Two modules are trained in turn, an epoch each, by trainers of their own."""
    first, second = Classifier(), Classifier()
    for _ in range(2):
        training.fit(first, batches(4))
        training.fit(second, batches(4))
