"""Networks for the steering benchmarks and tests, how to train them, and what to compare."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.googlenet import GoogLeNet
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.shufflenetv2 import ShuffleNetV2

from revacnn_lightning.steering import EditPlan

__all__ = ["SMALL", "eval_output", "make_seeded", "randomize_norms", "train_step", "zeroed_output"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

# Small members of ten families, with 10 classes, for images of at least 32×32 pixels.
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
    "efficientnet": lambda: EfficientNet(
        [
            MBConvConfig(1, 3, 1, 16, 8, 1),
            MBConvConfig(4, 3, 2, 8, 16, 2),
            MBConvConfig(4, 5, 2, 16, 24, 1),
            MBConvConfig(4, 3, 2, 24, 32, 2),
        ],
        dropout=0.2,
        num_classes=10,
        last_channel=64,
    ),
}


def make_seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return the network with initial weights drawn from this seed."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about new default initializations
        return make()


def randomize_norms(model: nn.Module, x: Tensor) -> nn.Module:
    """Give the network batch-norm statistics of ``x`` and random affine values. Return it.

    A new batch norm holds only ones and zeros, and a new layer scale is nearly zero. Swapped
    indices would not change the output of either.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, NORMS):
                module.momentum = None  # a cumulative average over the batches below
                module.reset_running_stats()
        model.train()
        for _ in range(2):
            model(x)
        for module in model.modules():
            if isinstance(module, (*NORMS, nn.LayerNorm, nn.GroupNorm)):
                if isinstance(module, NORMS):
                    module.momentum = 0.1
                if module.weight is not None:
                    module.weight.mul_(torch.empty_like(module.weight).uniform_(0.7, 1.3))
                    module.bias.add_(torch.empty_like(module.bias).uniform_(-0.1, 0.1))
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                parameter.uniform_(0.5, 1.5)
    return model


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    """Train the classifier on one batch, its auxiliary heads included, and return the loss."""
    model.train()
    optimizer.zero_grad()
    output = model(x)
    logits = [t for t in output if t is not None] if isinstance(output, tuple) else [output]
    loss = torch.stack([F.cross_entropy(t, y) for t in logits]).sum()
    loss.backward()
    optimizer.step()
    return loss.item()


def eval_output(model: nn.Module, x: Tensor) -> Tensor:
    """Return the output in evaluation mode, and restore the mode of every module."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    with torch.no_grad():
        y = model(x)
    for module, training in modes:
        module.training = training
    return y


def zeroed_output(model: nn.Module, plan: EditPlan, x: Tensor) -> Tensor:
    """Return the unedited model's output with the columns set to zero that the plan removes."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = []
    with torch.no_grad():
        for edit in plan.tensors:
            if edit.fill == "zero":
                tensor = named[edit.tensor]
                survivors = {i for a, b in edit.runs for i in range(a, b)}
                removed = torch.tensor([i for i in range(edit.size) if i not in survivors])
                kept.append((tensor, tensor.clone()))
                tensor.index_fill_(edit.dim, removed, 0.0)
        y = eval_output(model, x)
        for tensor, value in reversed(kept):
            tensor.copy_(value)
    return y
