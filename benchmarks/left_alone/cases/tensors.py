"""Tensor subclasses, functional calls and copies in the training step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from benchmarks.left_alone.cases.small import Classifier, batches, loader_of, samples
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class LabeledTensor(Tensor):
    """A tensor subclass, as MONAI's MetaTensor and torchvision's tv_tensors."""


@register_case()
def train_tensor_subclass(training: Training) -> None:
    items = [(images.as_subclass(LabeledTensor), labels) for images, labels in batches()]
    training.fit(Classifier(), loader_of(items))


@register_case()
def train_tv_tensor(training: Training) -> None:
    items = [(tv_tensors.Image(images), labels) for images, labels in batches()]
    training.fit(Classifier(), loader_of(items))


class PerSampleGradients(Classifier):
    """Per-sample gradients with torch.func in the step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        parameters = {n: p.detach() for n, p in self.net[7].named_parameters()}
        features = self.net[:7](batch[0])

        def loss(values: Any, sample: Tensor, label: Tensor) -> Tensor:
            output = torch.func.functional_call(self.net[7], values, (sample[None],))
            return nn.functional.cross_entropy(output, label[None])

        per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        norms = per_sample(parameters, features.detach(), batch[1])["weight"].flatten(1).norm(dim=1)
        losses = nn.functional.cross_entropy(self.net[7](features), batch[1], reduction="none")
        return (losses / (1 + norms)).mean()


@register_case()
def train_per_sample_gradients(training: Training) -> None:
    training.fit(PerSampleGradients(), batches())


class MetaLearning(Classifier):
    """MAML: an inner step on a functional copy of the network."""

    def loss(self, batch: Any) -> Tensor:
        weights = dict(self.net.named_parameters())
        inner = torch.func.functional_call(self.net, weights, (batch[0][:4],))
        loss = nn.functional.cross_entropy(inner, batch[1][:4])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        fast = {n: p - 0.1 * g for (n, p), g in zip(weights.items(), gradients, strict=True)}
        output = torch.func.functional_call(self.net, fast, (batch[0][4:],))
        return nn.functional.cross_entropy(output, batch[1][4:])


@register_case()
def train_meta_learning(training: Training) -> None:
    training.fit(MetaLearning(), batches())


class CopiesNetworkInStep(Classifier):
    """Copies its network in the step and runs the copy."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        with torch.no_grad():
            target = copy.deepcopy(self.net)(batch[0])
        return self.loss(batch) + nn.functional.mse_loss(self(batch[0]), target)


@register_case()
def train_deep_copy_in_step(training: Training) -> None:
    training.fit(CopiesNetworkInStep(), batches())


@register_case()
def train_inference_tensors(training: Training) -> None:
    """Batches that were made in inference mode."""
    with torch.inference_mode():
        images, _ = samples()
        images = images + 0
    items = [(images[i : i + 8].clone(), torch.arange(8) % 3) for i in range(0, 96, 8)]
    training.fit(Classifier(), loader_of(items))
