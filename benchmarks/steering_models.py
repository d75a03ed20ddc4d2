"""Networks the steering benchmarks edit, and how one trains for a step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.densenet import DenseNet
from torchvision.models.googlenet import GoogLeNet
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.shufflenetv2 import ShuffleNetV2

__all__ = ["SMALL", "randomized", "seeded", "train_step"]

# Small members of ten families; 10 classes, for inputs of 32 x 32 pixels and more.
SMALL: dict[str, Callable[[], nn.Module]] = {
    "resnet": partial(ResNet, BasicBlock, [1, 1, 1, 1], num_classes=10),
    "resnext": partial(
        ResNet, Bottleneck, [1, 1, 1, 1], num_classes=10, groups=4, width_per_group=8
    ),
    "densenet": partial(
        DenseNet, growth_rate=8, block_config=(2, 3, 2), num_init_features=16, num_classes=10
    ),
    "mobilenet_v2": partial(torchvision.models.mobilenet_v2, width_mult=0.25, num_classes=10),
    "mobilenet_v3": partial(torchvision.models.mobilenet_v3_small, width_mult=0.5, num_classes=10),
    "shufflenet": partial(ShuffleNetV2, [2, 2, 2], [16, 32, 64, 128, 128], num_classes=10),
    "squeezenet": partial(torchvision.models.squeezenet1_1, num_classes=10),
    "googlenet": partial(GoogLeNet, num_classes=10, aux_logits=False, init_weights=False),
    "regnet_y": lambda: RegNet(
        BlockParams.from_init_params(
            depth=6, w_0=24, w_a=20.0, w_m=2.2, group_width=8, se_ratio=0.25
        ),
        num_classes=10,
    ),
    "efficientnet": partial(torchvision.models.efficientnet_b0, num_classes=10),
}


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network with weights drawn from this seed."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of initialisations to come
        return make()


def randomized(model: nn.Module, x: Tensor) -> nn.Module:
    """The network with statistics of ``x`` and random affine values, so that every index shows.

    A fresh batch norm has ones and zeros, and a fresh layer scale is all but zero: columns could
    be swapped there without anything changing.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # cumulative: the statistics of the batches below
                module.reset_running_stats()
        model.train()
        for _ in range(2):
            model(x)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)):
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.1
                if module.weight is not None:
                    module.weight.mul_(torch.empty_like(module.weight).uniform_(0.7, 1.3))
                    module.bias.add_(torch.empty_like(module.bias).uniform_(-0.1, 0.1))
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                parameter.uniform_(0.5, 1.5)
    return model


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """One step of classification; returns the loss."""
    model.train()
    optimizer.zero_grad()
    out = model(x)
    outs = [t for t in out if t is not None] if isinstance(out, tuple) else [out]
    loss = torch.stack([F.cross_entropy(t, y) for t in outs]).sum()
    loss.backward()
    optimizer.step()
    return loss.item()
