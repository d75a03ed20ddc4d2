"""The trainings whose steps are timed: plain ones, and those that the callback watches."""

from __future__ import annotations

import contextlib
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

from revacnn_lightning import ReVACNN
from revacnn_lightning.errors import RequestTimeoutError
from revacnn_lightning.runtime.session import Session

__all__ = ["BATCH", "MODELS", "Network", "Ours", "Plain"]

BATCH = 64
ATTACH_SECONDS = 120

# A client that reads everything, 30 times a second, until the run has ended.
READER = """
import sys, time
from revacnn_lightning import attach
with attach(sys.argv[1], timeout=120) as run:
    print("reading", flush=True)
    while not run.has_ended():
        run.poll()
        time.sleep(1 / 30)
"""


def convnet() -> nn.Module:
    """The CIFAR-10 network of the original system: three convolutions of 5×5."""
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
    """With the stem that is usual for 32×32 images."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def vgg11_bn() -> nn.Module:
    """With the head that is usual for 32×32 images: its own has 90 % of the parameters."""
    model = torchvision.models.vgg11_bn(num_classes=10)
    model.avgpool = nn.Identity()
    model.classifier = nn.Linear(512, 10)
    return model


def mobilenet_v2() -> nn.Module:
    return torchvision.models.mobilenet_v2(num_classes=10)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "convnet": convnet,
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "vgg11_bn": vgg11_bn,
}


class Network(pl.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)


class Plain:
    """A training without anything that watches it."""

    name = "plain"

    def __init__(self, net: nn.Module) -> None:
        self.module = Network(net)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-3, momentum=0.9)
        self.images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.labels = torch.arange(BATCH) % 10

    def begin(self) -> None:
        """Before a block of steps."""

    def end(self) -> None:
        """After it."""

    def close(self) -> None:
        """After the last block."""

    def before(self) -> None:
        """The first thing in a step."""

    def before_step(self) -> None:
        """Between the backward pass and the optimizer's step."""

    def after(self, loss: Tensor) -> None:
        """The last thing in a step."""

    def step(self) -> None:
        self.before()
        self.optimizer.zero_grad()
        loss = self.module.training_step((self.images, self.labels), 0)
        loss.backward()
        self.before_step()
        self.optimizer.step()
        self.after(loss)


class Ours(Plain):
    """The callback, its hooks called as Lightning calls them."""

    def __init__(self, net: nn.Module, readers: int = 1, **options: Any) -> None:
        super().__init__(net)
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "connection.json"
        # Without a budget, or a busy machine would have statistics thinned out.
        self.callback = ReVACNN(connection_file=self.file, max_overhead=None, **options)
        self.trainer: Any = SimpleNamespace(
            accumulate_grad_batches=1,
            callback_metrics={},
            current_epoch=0,
            is_global_zero=True,
            max_epochs=1,
            num_training_batches=100_000,
            optimizers=[self.optimizer],
            precision_plugin=SimpleNamespace(train_step_context=contextlib.nullcontext),
            world_size=1,
        )
        self.index = 0
        self.callback.on_fit_start(self.trainer, self.module)
        self.begin()
        self.step()  # the structure is published after the first batch
        self.readers = [
            subprocess.Popen([sys.executable, "-c", READER, str(self.file)], stdout=subprocess.PIPE)
            for _ in range(readers)
        ]
        self._wait_for_readers()
        self.end()

    def _wait_for_readers(self) -> None:
        waited_for = {reader.stdout for reader in self.readers}
        deadline = time.monotonic() + ATTACH_SECONDS
        while waited_for:
            self.step()  # answers who asks
            waited_for -= set(select.select(waited_for, [], [], 0)[0])  # it has said something
            if time.monotonic() > deadline:
                raise RequestTimeoutError(f"no client has attached within {ATTACH_SECONDS} s")

    @property
    def session(self) -> Session:
        session = self.callback._session
        if session is None:
            raise RuntimeError("the callback met an error of its own; see the log above")
        return session

    def begin(self) -> None:
        self.session.recorder.attach()

    def end(self) -> None:
        self.session.recorder.detach()

    def before(self) -> None:
        batch = (self.images, self.labels)
        self.callback.on_train_batch_start(self.trainer, self.module, batch, self.index)

    def after(self, loss: Tensor) -> None:
        batch = (self.images, self.labels)
        self.callback.on_train_batch_end(
            self.trainer, self.module, {"loss": loss}, batch, self.index
        )
        self.index += 1
        assert self.session  # else it raises: the callback has let go of the run

    def close(self) -> None:
        self.callback.on_train_end(self.trainer, self.module)
        for reader in self.readers:
            with contextlib.suppress(ProcessLookupError):
                reader.send_signal(signal.SIGCONT)
            reader.kill()
            reader.wait()
        self.folder.cleanup()
