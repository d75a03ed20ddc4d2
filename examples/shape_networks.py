"""Networks for the parts of `06_steering_pays.py` that grow and prune: their shapes and costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

__all__ = ["GROUPS", "WIDTHS", "Widths", "group_widths", "macs_per_image", "new_network"]

Widths = tuple[int, ...]  # filters of each group of layers

WIDTHS: dict[str, Widths] = {"plain": (16, 32, 32), "residual": (16, 16, 32)}
# The layers of a group have the same filters, because their outputs are added up.
GROUPS = {
    "plain": (("0",), ("3",), ("6",)),
    "residual": (("0", "4.layers.3"), ("4.layers.0",), ("6",)),
}


class ResidualBlock(nn.Module):
    """A residual block with batch norm. Its input and its output have ``width`` channels."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normalized(width, inner), nn.ReLU(), *_normalized(inner, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)).relu()


def new_network(architecture: str, image_shape: Sequence[int], widths: Widths) -> nn.Sequential:
    """Return a network with random weights.

    Args:
        architecture: "plain", three convolutions with ReLU and pooling, like the original work;
            "residual", a residual block between two convolutions, all with batch norm.
        image_shape: (channels, side, side).
        widths: of each of its `GROUPS`.
    """
    channels, side, _ = image_shape
    first, second, last = widths
    pools = [nn.MaxPool2d(2) if side > 4 * 2**i else nn.Identity() for i in range(3)]
    if architecture == "plain":
        left = side // 2 ** sum(isinstance(pool, nn.MaxPool2d) for pool in pools)
        return nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1), nn.ReLU(), pools[0],
            nn.Conv2d(first, second, 3, padding=1), nn.ReLU(), pools[1],
            nn.Conv2d(second, last, 3, padding=1), nn.ReLU(), pools[2],
            nn.Flatten(), nn.Linear(last * left**2, 10),
        )  # fmt: skip
    return nn.Sequential(
        *_normalized(channels, first), nn.ReLU(), pools[0],
        ResidualBlock(first, second), pools[1],
        *_normalized(first, last), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(last * 4, 10),
    )  # fmt: skip


def _normalized(channels: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]


def group_widths(network: nn.Module, architecture: str) -> Widths:
    """Return how many filters each group of a network has at present."""
    return tuple(network.get_submodule(names[0]).weight.shape[0] for names in GROUPS[architecture])


@lru_cache(maxsize=4096)
@torch.no_grad()
def macs_per_image(architecture: str, image_shape: tuple[int, ...], widths: Widths) -> int:
    """Return the multiply-accumulates of the convolutions and of the classifier for one image."""
    counts: list[int] = []

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        counts.append(output[0, :1].numel() * module.weight.numel())

    with torch.random.fork_rng(devices=[]):  # the random weights have no effect
        network = new_network(architecture, image_shape, widths).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.zeros(1, *image_shape))
    return sum(counts)
