"""Training loops with timed steps: a plain one, and one that ReVACNN monitors."""

from __future__ import annotations

import contextlib
import itertools
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.other_networks import resnet_1d
from revacnn_lightning import RequestTimeoutError, ReVACNN
from revacnn_lightning.runtime.session import Session

__all__ = ["BATCH", "FURTHER_MODELS", "MODELS", "MonitoredTraining", "PlainTraining", "convnet"]

BATCH = 64  # images of 3×32×32 pixels
ATTACH_SECONDS = 120

# A client that receives every message, 30 times a second, until the run ends.
CLIENT = """
import sys, time
from revacnn_lightning import attach
with attach(sys.argv[1], timeout=120) as run:
    print("attached", flush=True)
    while not run.has_ended():
        run.poll()
        time.sleep(1 / 30)
"""


def convnet() -> nn.Module:
    """Return the CIFAR-10 network of the original ReVACNN: three 5×5 convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 20, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(320, 10),
    )


def resnet18() -> nn.Module:
    """Return a ResNet-18 with the usual stem for 32×32 images."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def vgg11_bn() -> nn.Module:
    """Return a VGG-11 with the usual head for 32×32 images.

    torchvision's own head holds 90 % of the parameters.
    """
    model = torchvision.models.vgg11_bn(num_classes=10)
    model.avgpool = nn.Identity()
    model.classifier = nn.Linear(512, 10)
    return model


def mobilenet_v2() -> nn.Module:
    """Return torchvision's MobileNetV2 with 10 classes."""
    return torchvision.models.mobilenet_v2(num_classes=10)


def mlp() -> nn.Module:
    """Return four hidden linear layers of 512 units on the pixels of an image."""
    widths = [3 * 32 * 32, 512, 512, 512, 512]
    hidden = [
        layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())
    ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))


def vgg16_head() -> nn.Module:
    """Return a VGG-16 with its head of 4,096 + 4,096 units, for 32×32 images."""
    model = torchvision.models.vgg16_bn(num_classes=10)
    model.avgpool = nn.Identity()
    model.classifier[0] = nn.Linear(512, 4096)
    return model


def signal_resnet() -> nn.Module:
    """Return a 1D ResNet that reads an image as a signal of 3 channels and 1,024 steps."""
    return nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 2, 1), resnet_1d())


def r3d_18() -> nn.Module:
    """Return torchvision's r3d_18, which reads an image as a video of 4 frames of 16×16 pixels."""
    video = nn.Unflatten(2, (4, 16, 16))
    return nn.Sequential(nn.Flatten(2), video, torchvision.models.video.r3d_18(num_classes=10))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "convnet": convnet,
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "vgg11_bn": vgg11_bn,
}
# Networks with other layers than 2D convolutions, for the overhead alone.
FURTHER_MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "vgg16_head": vgg16_head,
    "resnet_1d": signal_resnet,
    "r3d_18": r3d_18,
}


class Classifier(pl.LightningModule):
    """A network trained with the cross-entropy loss."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)


class PlainTraining:
    """A training loop without monitoring. Subclasses add theirs in the hooks.

    A benchmark times blocks of steps, so hooks of the model can be attached for a block only.
    """

    def __init__(self, net: nn.Module) -> None:
        self.module = Classifier(net)
        device = next(net.parameters()).device
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-3, momentum=0.9)
        self.images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.images = self.images.to(device)
        self.labels = torch.arange(BATCH, device=device) % 10

    def begin_block(self) -> None:
        """Run before a block of steps."""

    def end_block(self) -> None:
        """Run after a block of steps."""

    def close(self) -> None:
        """Run after the last block."""

    def on_step_start(self) -> None:
        """Run at the start of a step."""

    def before_optimizer_step(self) -> None:
        """Run between the backward pass and the optimizer step."""

    def on_step_end(self, loss: Tensor) -> None:
        """Run at the end of a step."""

    def training_step(self) -> Tensor:
        """Return the loss of the batch."""
        return self.module.training_step((self.images, self.labels), 0)

    def step(self) -> None:
        """Train on one batch."""
        self.on_step_start()
        self.optimizer.zero_grad()
        loss = self.training_step()
        loss.backward()
        self.before_optimizer_step()
        self.optimizer.step()
        self.on_step_end(loss)


class Strategy:
    """The part of Lightning's strategy that the callback replaces for the step that it records."""

    def __init__(self, module: Classifier) -> None:
        self._module = module

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return self._module.training_step(batch, index)


class MonitoredTraining(PlainTraining):
    """A training loop that calls all hooks of the callback in Lightning's order.

    Args:
        net: The network to train.
        clients: The number of client processes that receive everything.
        options: Options of `ReVACNN`.
    """

    def __init__(self, net: nn.Module, clients: int = 1, **options: Any) -> None:
        super().__init__(net)
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "connection.json"
        # With an overhead limit, a busy machine would sample statistics less often.
        options = {"max_overhead": None, **options}
        self.callback = ReVACNN(connection_file=self.file, **options)
        self.trainer: Any = SimpleNamespace(
            accumulate_grad_batches=1,
            callback_metrics={},
            callbacks=[self.callback],
            current_epoch=0,
            default_root_dir=self.folder.name,
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=0)),
            global_step=0,
            gradient_clip_algorithm=None,
            gradient_clip_val=None,
            is_global_zero=True,
            lightning_module=self.module,
            log_every_n_steps=50,
            loggers=[],
            lr_scheduler_configs=[],
            max_epochs=1,
            num_training_batches=100_000,
            optimizers=[self.optimizer],
            precision_plugin=SimpleNamespace(train_step_context=contextlib.nullcontext),
            strategy=Strategy(self.module),
            train_dataloader=None,
            val_dataloaders=None,
            world_size=1,
        )
        self.index = 0
        self.callback.on_fit_start(self.trainer, self.module)
        self.begin_block()
        self.step()  # the first batch publishes the structure
        self.clients = [
            subprocess.Popen([sys.executable, "-c", CLIENT, str(self.file)], stdout=subprocess.PIPE)
            for _ in range(clients)
        ]
        self._wait_for_clients()
        self.end_block()

    def _wait_for_clients(self) -> None:
        detached = {client.stdout for client in self.clients}
        deadline = time.monotonic() + ATTACH_SECONDS
        while detached:
            self.step()  # replies to the clients' requests
            detached -= set(select.select(detached, [], [], 0)[0])  # these have printed "attached"
            if time.monotonic() > deadline:
                raise RequestTimeoutError(f"no client attached within {ATTACH_SECONDS} s")

    def skip_first_batches(self) -> None:
        """Go on as after a million batches.

        Without a viewer, the history samples many of the first hundreds of batches, and one of
        thousands later.
        """
        self.callback._continuation.step = 10**6

    @property
    def session(self) -> Session:
        """The callback's session.

        Raises:
            RuntimeError: The callback stopped monitoring after an internal error.
        """
        session = self.callback._session
        if session is None:
            raise RuntimeError("internal error in ReVACNN: monitoring stopped; see the log above")
        return session

    def begin_block(self) -> None:
        self.session.recorder.attach()

    def end_block(self) -> None:
        self.session.recorder.detach()

    def training_step(self) -> Tensor:
        return self.trainer.strategy.training_step((self.images, self.labels), self.index)

    def on_step_start(self) -> None:
        batch = (self.images, self.labels)
        self.callback.on_train_batch_start(self.trainer, self.module, batch, self.index)

    def on_step_end(self, loss: Tensor) -> None:
        batch = (self.images, self.labels)
        self.callback.on_train_batch_end(
            self.trainer, self.module, {"loss": loss}, batch, self.index
        )
        self.index += 1
        assert self.session  # raises if monitoring has stopped: the step would be timed without it

    def close(self) -> None:
        self.callback.on_train_end(self.trainer, self.module)
        for client in self.clients:
            with contextlib.suppress(ProcessLookupError):
                client.send_signal(signal.SIGCONT)
            client.kill()
            client.communicate()  # closes the pipe
        self.folder.cleanup()
