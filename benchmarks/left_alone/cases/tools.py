"""Other tools that hold on to the model: parametrizations, hooks, modes, compilers, metrics."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from benchmarks.left_alone.cases.small import Classifier, batches, conv_net
from benchmarks.left_alone.registry import add_case, register_case
from benchmarks.left_alone.training import Training


class SymmetricParametrization(nn.Module):
    """A parametrization of the user's own."""

    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(-1)) / 2


def _with_both(apply: Any) -> Any:
    """Return a network whose convolutions ``apply`` changes."""
    net = conv_net()
    for index in (0, 3):
        apply(net[index])
    return net


def _masked(conv: nn.Module) -> None:
    prune.random_unstructured(conv, "weight", amount=0.3)


PARAMETRIZED: dict[str, Any] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm_old_style": torch.nn.utils.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "spectral_norm_old_style": torch.nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own_parametrization": lambda conv: parametrize.register_parametrization(
        conv, "weight", SymmetricParametrization()
    ),
    "pruning_mask": _masked,
}


def _add(name: str, apply: Any) -> None:
    def train(training: Training) -> None:
        training.fit(Classifier(_with_both(apply)), batches())

    train.__module__ = __name__
    add_case(name, train, steerable=False)


for _name, _apply in PARAMETRIZED.items():
    _add(_name, _apply)


# ---------------------------------------------------------------------- hooks and modes


class HasModuleHooks(Classifier):
    """Hooks of all kinds, which count and change."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.features: list[Tensor] = []
        conv, norm = self.net[3], self.net[1]
        conv.register_forward_hook(self._keep_features)
        conv.register_full_backward_hook(lambda *_: self._count("backward"))
        norm.register_forward_pre_hook(lambda *_: self._count("pre"))
        norm.register_full_backward_pre_hook(lambda *_: self._count("backward pre"))
        self.net[0].weight.register_hook(self._scale)
        self.net[3].bias.register_post_accumulate_grad_hook(lambda p: self._count("accumulated"))

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _keep_features(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        self._count("forward")
        self.features.append(output.detach())
        return output * 1.5

    def _scale(self, gradient: Tensor) -> Tensor:
        self._count("weight")
        return gradient * 0.5


@register_case()
def train_hooks_of_user(training: Training) -> None:
    training.fit(HasModuleHooks(), batches())


class RegistersGlobalHooks(pl.Callback):
    """Counts the calls of all modules."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        register = torch.nn.modules.module.register_module_forward_hook
        self.handle = register(lambda m, *_: self._count(type(m).__name__))

    def _count(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.handle.remove()
        self.handle = None


@register_case()
def train_global_hooks(training: Training) -> None:
    training.fit(Classifier(), batches(), RegistersGlobalHooks())


class CountsFunctions(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function is torch.nn.functional.cross_entropy
        return function(*args, **(kwargs or {}))


class CountsOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += "convolution_backward" in str(function)
        return function(*args, **(kwargs or {}))


@register_case()
def train_function_mode(training: Training) -> None:
    with CountsFunctions() as mode:
        training.fit(Classifier(), batches())
    training.compare_also("calls", mode.count)


@register_case()
def train_dispatch_mode(training: Training) -> None:
    with CountsOperations() as mode:
        training.fit(Classifier(), batches())
    training.compare_also("calls", mode.count)


@register_case()
def train_saved_tensor_hooks(training: Training) -> None:
    with torch.autograd.graph.save_on_cpu():
        training.fit(Classifier(), batches())


class TorchMetricsClassifier(Classifier):
    """Metrics of torchmetrics, updated in the step and logged as objects."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.scores = torchmetrics.MetricCollection(
            [torchmetrics.F1Score("multiclass", num_classes=3), torchmetrics.CatMetric()]
        )
        self.mean = torchmetrics.MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        output = self(batch[0])
        loss = nn.functional.cross_entropy(output, batch[1])
        self.accuracy(output, batch[1])
        self.scores["MulticlassF1Score"].update(output, batch[1])
        self.scores["CatMetric"].update(loss.detach())
        self.mean.update(loss.detach())
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.log_dict({"loss": loss, "mean": self.mean.compute()}, on_step=True)
        return loss


@register_case()
def train_torch_metrics(training: Training) -> None:
    training.fit(TorchMetricsClassifier(), batches(), log_every_n_steps=1)


# ---------------------------------------------------------------------- compilers


@register_case()
def train_compiled_eager(training: Training) -> None:
    training.fit(Classifier(torch.compile(conv_net(), backend="eager")), batches())


@register_case()
def train_compiled_module(training: Training) -> None:
    module = Classifier()
    module.compile(backend="aot_eager")
    training.fit(module, batches())


class CheckpointsActivations(Classifier):
    """Activation checkpointing."""

    def forward(self, images: Tensor) -> Tensor:
        features = checkpoint(self.net[:4], images, use_reentrant=False)
        return checkpoint_sequential(self.net[4:], 2, features, use_reentrant=False)


@register_case()
def train_activation_checkpointing(training: Training) -> None:
    training.fit(CheckpointsActivations(), batches())


class ScriptedPart(nn.Module):
    """A scripted part behind the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
        self.head = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.net(images))


@register_case(steerable=False)
def train_scripted_part(training: Training) -> None:
    training.fit(Classifier(ScriptedPart()), batches())
