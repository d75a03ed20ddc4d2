"""Trainings whose ``training_step`` or ``forward`` has effects: looking leaves them alone.

Each training runs plain and with a client that opens a layer and a filter, and ends with the same
weights, bit by bit. Edits of each are exact, or refused with a reason.
"""

from __future__ import annotations

import copy
import random
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from revacnn_lightning import (
    AddFilters,
    Applied,
    ControlRun,
    EditRefusedError,
    RemoveFilters,
    ReVACNN,
    attach,
)
from revacnn_lightning.protocol.inspections import LayerDetail
from revacnn_lightning.protocol.requests import InspectFilter, InspectLayer
from tests.small import At


def encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU()
    )


class Net(pl.LightningModule):
    """conv -> relu -> conv -> relu -> linear on 6x6 images; Adam."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(*encoder(), nn.Flatten(), nn.Linear(3 * 36, 2))

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class CollectsOutputs(Net):
    def __init__(self) -> None:
        super().__init__()
        self.outputs: list = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.outputs.append(loss.detach())
        self.log("loss", loss)
        assert self.trainer.training
        return loss


class MomentumEncoder(Net):
    def __init__(self) -> None:
        super().__init__()
        self.key = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch, batch_idx):
        for query, key in zip(self.net.parameters(), self.key.parameters(), strict=True):
            key.data = key.data * 0.9 + query.data * 0.1
        return F.mse_loss(self(batch[0]), self.key(batch[0].flip(-1)))


class MomentumEncoderInForward(Net):
    """MoCo updates its key encoder and its queue in ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.key = copy.deepcopy(self.net).requires_grad_(False)
        self.register_buffer("queue", torch.randn(2, 16))

    def forward(self, images):
        with torch.no_grad():
            for query, key in zip(self.net.parameters(), self.key.parameters(), strict=True):
                key.mul_(0.9).add_(query, alpha=0.1)
            keys = self.key(images)
            self.queue = torch.cat([self.queue[:, len(images) :], keys.T], 1)
        return self.net(images) @ self.queue

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()


class NormalizesInPlace(Net):
    def training_step(self, batch, batch_idx):
        batch[0].sub_(0.5).div_(0.25)
        return super().training_step(batch, batch_idx)


class OwnGenerators(Net):
    def __init__(self) -> None:
        super().__init__()
        self.numpy = np.random.default_rng(0)
        self.rest = {"python": [random.Random(0)], "torch": torch.Generator().manual_seed(0)}

    def forward(self, images):
        factor = self.numpy.uniform() + self.rest["python"][0].random()
        return super().forward(images * factor + torch.rand(1, generator=self.rest["torch"]))

    def training_step(self, batch, batch_idx):
        return super().training_step([batch[0] * self.numpy.uniform(), batch[1]], batch_idx)


class CountsInForward(Net):
    """The loss depends on counters and containers that forward changes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.history: dict[str, list[float]] = {"norms": []}
        self.recent: deque[float] = deque(maxlen=3)

    def forward(self, images):
        self.calls += 1
        self.history["norms"].append(float(images.norm()))
        self.recent.append(self.calls)
        return self.net(images) / (1 + self.calls + len(self.history["norms"]) + sum(self.recent))


class TakesTheBatch(Net):
    def forward(self, batch):
        return self.net(batch[0])

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch[1])


class Adversarial(Net):
    """Trains on images that a gradient inside training_step has changed (FGSM)."""

    def training_step(self, batch, batch_idx):
        images = batch[0].clone().requires_grad_()
        loss = super().training_step((images, batch[1]), batch_idx)
        (gradient,) = torch.autograd.grad(loss, images)
        return super().training_step(((images + gradient.sign()).detach(), batch[1]), batch_idx)


class FixedBatchLoss(Net):
    """Its loss only accepts batches of eight."""

    def training_step(self, batch, batch_idx):
        assert len(batch[0]) == 8
        weights = torch.linspace(0, 1, 8)
        return (F.cross_entropy(self(batch[0]), batch[1], reduction="none") * weights).mean()


class AuxiliaryLoss(Net):
    """A loss on the output of an intermediate layer, without a forward."""

    forward = pl.LightningModule.forward

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = encoder(), nn.Linear(3, 2)
        self.net = None

    def training_step(self, batch, batch_idx):
        features = self.features(batch[0])
        logits = self.head(F.relu(features).mean((2, 3)))
        return F.cross_entropy(logits, batch[1]) + 0.1 * features.pow(2).mean()


class Autoencoder(Net):
    """A variational autoencoder with methods of its own."""

    forward = pl.LightningModule.forward

    def __init__(self) -> None:
        super().__init__()
        self.net = encoder()
        self.mean, self.log_variance = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
        self.decoder = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def encode(self, images):
        hidden = self.net(images)
        return self.mean(hidden), self.log_variance(hidden)

    def training_step(self, batch, batch_idx):
        mean, log_variance = self.encode(batch[0])
        latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        divergence = -0.5 * (1 + log_variance - mean.pow(2) - log_variance.exp()).mean()
        return F.mse_loss(self.decoder(latent), batch[0]) + 0.1 * divergence


class TwoViews(Net):
    """SimCLR: both views in one batch, and a loss over all pairs."""

    forward = pl.LightningModule.forward

    def __init__(self) -> None:
        super().__init__()
        self.net, self.projection = encoder(), nn.Linear(3, 8)

    def training_step(self, batch, batch_idx):
        views = torch.cat([batch[0], batch[0].flip(-1)])
        projected = F.normalize(self.projection(self.net(views).mean((2, 3))), dim=1)
        similarity = projected @ projected.T / 0.1
        similarity.masked_fill_(torch.eye(len(views), dtype=torch.bool), -1e4)
        return F.cross_entropy(similarity, torch.arange(len(views)).roll(len(views) // 2))


class Gan(Net):
    """Manual optimization of a generator and a discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.ConvTranspose2d(5, 4, 6), nn.ReLU(), nn.Conv2d(4, 1, 1))
        self.discriminator = nn.Sequential(*encoder(), nn.Flatten(), nn.Linear(3 * 36, 1))

    def training_step(self, batch, batch_idx):
        generator, discriminator = self.optimizers()
        noise = torch.randn(len(batch[0]), 5, 1, 1)
        ones, zeros = torch.ones(len(noise), 1), torch.zeros(len(noise), 1)
        loss = F.binary_cross_entropy_with_logits
        self.toggle_optimizer(generator)
        generator.zero_grad()
        self.manual_backward(loss(self.discriminator(self(noise)), ones))
        generator.step()
        self.untoggle_optimizer(generator)
        self.toggle_optimizer(discriminator)
        discriminator.zero_grad()
        real = loss(self.discriminator(batch[0]), ones)
        fake = loss(self.discriminator(self(noise).detach()), zeros)
        self.log("loss", real + fake)
        self.manual_backward(real + fake)
        discriminator.step()
        self.untoggle_optimizer(discriminator)

    def configure_optimizers(self):
        parts = (self.net, self.discriminator)
        return [torch.optim.Adam(part.parameters(), lr=1e-3) for part in parts]


TRAININGS = [
    Net, CollectsOutputs, MomentumEncoder, MomentumEncoderInForward, NormalizesInPlace,
    OwnGenerators, CountsInForward, TakesTheBatch, Adversarial, FixedBatchLoss, AuxiliaryLoss,
    Autoencoder, TwoViews, Gan,
]  # fmt: skip


class Attach(pl.Callback):
    """Lets a client attach before batch 2, and open a layer and a filter."""

    def __init__(self, revacnn: ReVACNN, layer: str) -> None:
        self.revacnn, self.layer = revacnn, layer
        self.run = None
        self.messages: list = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 2:
            thread = threading.Thread(target=self._attach)
            thread.start()
            while thread.is_alive():
                self.revacnn._session.receive_requests()
                time.sleep(0.005)
        elif self.run is not None:
            self.messages += self.run.poll()

    def _attach(self) -> None:
        self.run = attach(self.revacnn.connection_file)
        self.run.request(InspectLayer(self.layer, updates_per_second=100.0))
        self.run.request(InspectFilter(self.layer, 0))

    def on_train_end(self, trainer, pl_module) -> None:
        if self.run is not None:
            self.run.close()


class AttachInPause(Attach):
    """Pauses before batch 2 until the client has received the layer."""

    def __init__(self, revacnn: ReVACNN, layer: str) -> None:
        super().__init__(revacnn, layer)
        self.thread = threading.Thread(target=self._attach_and_resume)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == 2:
            self.revacnn.steer(ControlRun("pause"))
            self.thread.start()
        elif batch_idx == 3:
            self.thread.join()

    def _attach_and_resume(self) -> None:
        self._attach()
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            self.messages += self.run.poll()
            if any(isinstance(message, LayerDetail) for message in self.messages):
                break
            time.sleep(0.005)
        self.run.command(ControlRun("resume"))


def train(
    model: pl.LightningModule, *callbacks: pl.Callback, count: int = 8, **options: object
) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8 * count, 1, 6, 6, generator=generator)
    labels = torch.randint(2, (8 * count,), generator=generator)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    pl.seed_everything(3, verbose=False)
    trainer.fit(model, DataLoader(TensorDataset(images, labels), batch_size=8))


def first_conv(model: nn.Module) -> str:
    return next(name for name, m in model.named_modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("make", TRAININGS, ids=lambda kind: kind.__name__)
def test_a_client_that_opens_a_layer_and_a_filter_changes_nothing(make: Callable[[], Net]):
    plain, inspected = make(), make()
    train(plain)
    revacnn = ReVACNN()
    client = Attach(revacnn, first_conv(inspected))
    train(inspected, client, revacnn)
    assert not revacnn._is_disabled
    assert client.run is not None
    for name, value in inspected.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name
    if isinstance(plain, CollectsOutputs):
        assert len(inspected.outputs) == len(plain.outputs) == 8
    if isinstance(plain, CountsInForward):
        assert inspected.calls == plain.calls == 8


class TrainsHeadOnly(Net):
    """Nothing zeroes the gradients of the convolutions, so they accumulate."""

    def configure_optimizers(self):
        return torch.optim.Adam(self.net[-1].parameters(), lr=1e-3)


class ZeroesGradientsInPlace(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net[2].requires_grad_(False)  # its gradients are None

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.optimizers().zero_grad(set_to_none=False)


@pytest.mark.parametrize(
    ("make", "window"), [(TrainsHeadOnly, 1), (ZeroesGradientsInPlace, 1), (Net, 3), (Net, 5)]
)
def test_gradients_are_the_same_with_a_client_that_opens_a_layer_in_a_pause(
    make: Callable[[], Net], window: int
):
    plain, inspected = make(), make()
    train(plain, accumulate_grad_batches=window)
    revacnn = ReVACNN()
    client = AttachInPause(revacnn, "net.0")
    train(inspected, client, revacnn, accumulate_grad_batches=window)
    assert any(isinstance(message, LayerDetail) for message in client.messages)
    inspected_parameters = dict(inspected.named_parameters())
    for name, parameter in plain.named_parameters():
        other = inspected_parameters[name]
        assert torch.equal(other, parameter), name
        assert (other.grad is None) == (parameter.grad is None), name
        assert parameter.grad is None or torch.equal(other.grad, parameter.grad), name


EDITABLE = {
    **{make: ["net.0", "net.2"] for make in TRAININGS},
    AuxiliaryLoss: ["features.0"],
    Gan: ["net.0", "discriminator.0", "discriminator.2"],
    Autoencoder: ["net.0", "net.2", "decoder.0"],
}


def edit(make: Callable[[], Net], *edits) -> tuple[Net, list]:
    """Train with edits before batch 3; return the model and the replies."""
    model, revacnn, pending = make(), ReVACNN(), []
    submit = At(3, lambda *_: pending.extend(revacnn.steer(each) for each in edits))
    train(model, submit, revacnn)
    assert not revacnn._is_disabled
    return model, [each.result() for each in pending]


@pytest.mark.parametrize(
    ("make", "layer"),
    [(make, layer) for make, layers in EDITABLE.items() for layer in layers],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_edits_are_exact_where_only_training_step_shows_the_network(make, layer: str):
    before = make().get_submodule(layer).out_channels
    model, replies = edit(make, AddFilters(layer, 2), RemoveFilters(layer, [0]))
    assert all(isinstance(reply, Applied) for reply in replies)
    assert replies[0].output_change <= 1e-4
    assert model.get_submodule(layer).out_channels == before + 1


def test_a_loss_on_an_intermediate_layer_is_respected():
    """Its mean over all channels would change with a new filter; one can be removed."""
    model, [reply] = edit(AuxiliaryLoss, RemoveFilters("features.2", [0]))
    assert isinstance(reply, Applied)
    assert model.head.in_features == 2
    with pytest.raises(EditRefusedError, match="mean in the model"):
        edit(AuxiliaryLoss, AddFilters("features.2"))


def test_training_step_runs_once_per_batch_whatever_is_requested():
    class Counting(TakesTheBatch):
        steps = 0

        def training_step(self, batch, batch_idx):
            self.steps += 1
            return super().training_step(batch, batch_idx)

    model, _ = edit(Counting, AddFilters("net.0"), RemoveFilters("net.2", [0]))
    assert model.steps == 8
