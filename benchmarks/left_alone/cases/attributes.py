"""What modules hold beside their layers."""

from __future__ import annotations

import collections
import logging
import tempfile
import threading
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.left_alone.cases.small import Classifier, batches, conv_net
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class HoldsUncopiableObjects(Classifier):
    """Holds a lock, a file, a generator, a logger, a thread's local, and a lambda."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the module
        self.numbers = iter(range(1000))
        self.log_to = logging.getLogger("user")
        self.local = threading.local()
        self.scale = lambda x: x * 2

    def forward(self, images: Tensor) -> Tensor:
        with self.lock:
            return self.scale(self.net(images))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert next(self.numbers) == batch_idx
        self.file.write(b"x")
        return self.loss(batch)


@register_case()
def train_uncopied_attributes(training: Training) -> None:
    module = HoldsUncopiableObjects()
    training.fit(module, batches())
    training.compare_also("written", module.file.tell())
    module.file.close()


class ChangesContainersInForward(Classifier):
    """Changes containers of all kinds in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.recent: collections.deque[float] = collections.deque(maxlen=3)
        self.counts: collections.Counter[str] = collections.Counter()
        self.by_shape: collections.defaultdict[Any, list[int]] = collections.defaultdict(list)
        self.known: set[int] = set()
        self.array = np.zeros(3)
        self.nested = {"a": [{"b": 0}]}

    def forward(self, images: Tensor) -> Tensor:
        self.recent.append(float(images.mean()))
        self.counts["calls"] += 1
        self.by_shape[tuple(images.shape)].append(1)
        self.known.add(len(self.known))
        self.array += 1
        self.nested["a"][0]["b"] += 1
        return self.net(images)


@register_case()
def train_containers(training: Training) -> None:
    module = ChangesContainersInForward()
    training.fit(module, batches())
    training.compare_also("array", module.array)
    training.compare_also(
        "counts", (dict(module.counts), sorted(module.known), list(module.recent))
    )


class ForwardsUnknownAttributes(Classifier):
    """Forwards unknown attributes, as wrappers do, and has properties that raise."""

    def __getattr__(self, name: str) -> Any:
        if name == "alias":
            return self.net
        return super().__getattr__(name)

    @property
    def unavailable(self) -> Any:
        raise RuntimeError("only available after training")

    def forward(self, images: Tensor) -> Tensor:
        return self.alias(images)


@register_case()
def train_own_getattr(training: Training) -> None:
    training.fit(ForwardsUnknownAttributes(), batches())


class CachesTensors(Classifier):
    """Caches a tensor of the size of its input, and a plain tensor per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.grid: Tensor | None = None
        self.gain = torch.ones(1, 4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        if self.grid is None or self.grid.shape != images.shape:
            row = torch.linspace(-1, 1, images.shape[-1], device=images.device)
            self.grid = row.expand_as(images)
        x = self.net[2](self.net[1](self.net[0](images + self.grid)))
        return self.net[3:](x * self.gain.to(x))


@register_case(steerable=False)
def train_cached_tensors(training: Training) -> None:
    training.fit(CachesTensors(), batches())


class LargeBuffers(Classifier):
    """Has statistics of the data as buffers, also of other types, and sparse ones."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.1))
        self.register_buffer("mask", torch.ones(8, 8, dtype=torch.bool), persistent=False)
        self.register_buffer("counts", torch.zeros(3, dtype=torch.long))
        self.register_buffer("graph", torch.eye(4).to_sparse())

    def forward(self, images: Tensor) -> Tensor:
        output = self.net((images - self.mean) * self.mask)
        self.counts.add_(torch.bincount(output.argmax(1), minlength=3))
        return output


@register_case()
def train_many_buffers(training: Training) -> None:
    training.fit(LargeBuffers(), batches())


class SharedByReference(Classifier):
    """Reaches one network by several paths, and holds its trainer's data module."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = self.net[:3]
        self.parts = nn.ModuleDict({"encoder": self.encoder, "head": self.net[3:]})
        self.plain_list = [self.net[0], self.net[3]]

    def forward(self, images: Tensor) -> Tensor:
        return self.parts["head"](self.encoder(images))


@register_case()
def train_shared_by_reference(training: Training) -> None:
    training.fit(SharedByReference(), batches())


class LogsInForward(Classifier):
    """Logs in its forward, and keeps text."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and self._trainer is not None:
            self.log("mean_input", images.mean(), on_step=True, on_epoch=True)
        return self.net(images)


@register_case()
def train_logs_in_forward(training: Training) -> None:
    training.fit(LogsInForward(), batches())


class InitializesFromFirstBatch(Classifier):
    """Initializes itself from its first batch (as ActNorm and k-means heads do)."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 1, 1, 1))
        self.is_ready = False

    def forward(self, images: Tensor) -> Tensor:
        if not self.is_ready:
            self.shift.data.fill_(float(images.mean()))
            self.is_ready = True
        return self.net(images - self.shift)


@register_case()
def train_initialized_from_data(training: Training) -> None:
    training.fit(InitializesFromFirstBatch(), batches())


class SkipsBlockAtRandom(Classifier):
    """Skips a block by Python's and torch's random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        if self.training and float(torch.rand(())) < 0.5:
            return self.net(images)
        return self.net(images + self.block(images))


@register_case()
def train_random_depth(training: Training) -> None:
    training.fit(SkipsBlockAtRandom(), batches())


class KeepsNormInEvalMode(Classifier):
    """Overrides train() to keep its batch norm in evaluation mode."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.net[1].eval()
        return self


@register_case()
def train_own_train_mode(training: Training) -> None:
    training.fit(KeepsNormInEvalMode(), batches())


class WrapperModule(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


@register_case()
def train_wrapped_network(training: Training) -> None:
    training.fit(Classifier(WrapperModule(WrapperModule(conv_net()))), batches())


class KeywordsOnly(Classifier):
    """Takes its images and options by name."""

    def forward(self, *, images: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Any:
        return {"logits": self.net(images * scale), "extra": (mask, "text")}

    def loss(self, batch: Any) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images=images, scale=0.5)["logits"], labels)


@register_case(output=lambda module, batch: module(images=batch[0])["logits"])
def train_keywords_only(training: Training) -> None:
    training.fit(KeywordsOnly(), batches())


class LightningModuleInside(pl.LightningModule):
    """Has a LightningModule inside a LightningModule."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Classifier()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return self.inner.configure_optimizers()


@register_case()
def train_module_in_module(training: Training) -> None:
    training.fit(LightningModuleInside(), batches())
