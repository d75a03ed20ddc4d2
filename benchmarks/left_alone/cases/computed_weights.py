"""Networks that compute the weights of their convolutions, or use them in two roles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.left_alone.cases.channels import ClassifiedBody, conv
from benchmarks.left_alone.cases.small import add_networks


class MaskedWeights(ClassifiedBody):
    """Multiplies weights by a mask in its forward, as hand-written pruning does."""

    def __init__(self) -> None:
        super().__init__(5)
        self.first, self.second = conv(1, 4), conv(4, 5)
        self.register_buffer("mask", (torch.rand(4, 1, 3, 3) > 0.3).float())

    def features(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first.weight * self.mask, self.first.bias, padding=1)
        return F.relu(self.second(F.relu(x)))


class EqualizedRate(ClassifiedBody):
    """Scales weights by a number in its forward (StyleGAN)."""

    def __init__(self) -> None:
        super().__init__(5)
        self.first, self.second = conv(1, 4), conv(4, 5)

    def features(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(F.conv2d(x, self.first.weight * 0.5, self.first.bias, padding=1), 0.2)
        return self.second(x)


class GeneratedWeights(ClassifiedBody):
    """The weights of a conv come from another network."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first, self.weights = conv(1, 5), nn.Linear(3, 4 * 5)
        self.code = nn.Parameter(torch.randn(3))

    def features(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(self.first(x)), self.weights(self.code).view(4, 5, 1, 1))


class DynamicKernels(ClassifiedBody):
    """Mixes several kernels by attention, for each image."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first, self.attention = conv(1, 5), nn.Linear(5, 2)
        self.kernels = nn.Parameter(torch.randn(2, 4, 5, 3, 3) / 5)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        share = self.attention(x.mean((2, 3))).softmax(1)
        kernels = torch.einsum("bk,kfcij->bfcij", share, self.kernels)
        maps = F.conv2d(x.flatten(0, 1)[None], kernels.flatten(0, 1), padding=1, groups=len(x))
        return maps.view(len(x), 4, *x.shape[2:])


class TiedDecoder(ClassifiedBody):
    """Decodes with the weights of the encoder."""

    def __init__(self) -> None:
        super().__init__(2)
        self.first, self.encoder = conv(1, 2), conv(2, 5)

    def features(self, x: Tensor) -> Tensor:
        code = F.relu(self.encoder(self.first(x)))
        return F.conv_transpose2d(code, self.encoder.weight, padding=1)


# The weights of the first layer are read outside of it.
REFUSED = {"steerable": False}
NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "dynamic_kernels": (DynamicKernels, {}),
    "equalized": (EqualizedRate, REFUSED),
    "generated_weights": (GeneratedWeights, {}),
    "masked_weights": (MaskedWeights, REFUSED),
    "tied_decoder": (TiedDecoder, {}),
}

add_networks(__name__, NETWORKS)
