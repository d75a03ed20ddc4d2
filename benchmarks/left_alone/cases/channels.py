"""Networks whose channels travel in unusual ways."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.left_alone.cases.small import add_networks


def conv(inputs: int, filters: int, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, filters, size, padding=size // 2, **options)


class ClassifiedBody(nn.Module):
    """Averages the maps of a body and classifies them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 3)

    def features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class MaxoutNet(ClassifiedBody):
    def __init__(self) -> None:
        super().__init__(3)
        self.first, self.second = conv(1, 6), conv(3, 3)

    def features(self, x: Tensor) -> Tensor:
        maps = self.first(x)
        return self.second(maps.view(len(x), 3, 2, *maps.shape[2:]).amax(2))


class GatedChannels(ClassifiedBody):
    """Half of the channels gates the other half."""

    def __init__(self) -> None:
        super().__init__(3)
        self.first, self.second = conv(1, 6), conv(3, 3)

    def features(self, x: Tensor) -> Tensor:
        value, gate = self.first(x).chunk(2, 1)
        return self.second(value * gate.sigmoid())


class SplitChannels(ClassifiedBody):
    """Some channels skip a block (CSPNet, GhostNet)."""

    def __init__(self) -> None:
        super().__init__(6)
        self.first, self.second = conv(1, 6), conv(2, 2)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return torch.cat([x[:, :4], F.relu(self.second(x[:, 4:]))], 1)


class AffineCoupling(nn.Module):
    """An affine coupling, which can be inverted (RealNVP)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(conv(2, 6), nn.ReLU(), conv(6, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, 2)
        kept, changed = x[:, :2], x[:, 2:]
        scale, shift = self.net(kept).chunk(2, 1)
        x = torch.cat([kept, changed * scale.tanh().exp() + shift], 1)
        return self.head(x.mean((2, 3)))


class VectorQuantizer(ClassifiedBody):
    """Replaces each pixel by the nearest entry of a code book (VQ-VAE)."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first, self.encoder, self.codes = conv(1, 5), conv(5, 4, 1), nn.Embedding(8, 4)

    def features(self, x: Tensor) -> Tensor:
        x = self.encoder(F.relu(self.first(x)))
        flat = x.permute(0, 2, 3, 1)
        nearest = torch.cdist(flat.reshape(-1, 4), self.codes.weight).argmin(1)
        codes = self.codes(nearest).view_as(flat).permute(0, 3, 1, 2)
        return x + (codes - x).detach()


class SpatialTransformer(ClassifiedBody):
    """A spatial transformer turns the image before it is convolved."""

    def __init__(self) -> None:
        super().__init__(4)
        self.where = nn.Sequential(conv(1, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.angle, self.first = nn.Linear(3, 6), conv(1, 4)

    def features(self, x: Tensor) -> Tensor:
        theta = self.angle(self.where(x)).view(-1, 2, 3) + torch.eye(2, 3, device=x.device)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.relu(self.first(F.grid_sample(x, grid, align_corners=False)))


class QueryAttention(ClassifiedBody):
    """Learned queries read the map by attention (DETR)."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first, self.project = conv(1, 6), conv(6, 4, 1)
        self.queries = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        keys = self.project(F.relu(self.first(x))).flatten(2).transpose(1, 2)
        queries = self.queries.expand(len(x), -1, -1)
        return self.head(F.scaled_dot_product_attention(queries, keys, keys).mean(1))


class MlpMixer(nn.Module):
    """Mixes positions, then channels (MLP-Mixer)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.patches = conv(1, 5), nn.Conv2d(5, 6, 2, 2)
        self.positions, self.channels = nn.Linear(16, 16), nn.Linear(6, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(F.gelu(self.stem(x))).flatten(2)
        x = (x + self.positions(x)).transpose(1, 2)
        return self.head((x + self.channels(self.norm(x))).mean(1))


class Highway(ClassifiedBody):
    def __init__(self) -> None:
        super().__init__(4)
        self.stem, self.value, self.gate = conv(1, 4), conv(4, 4), conv(4, 4)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.gate(x).sigmoid()
        return gate * F.relu(self.value(x)) + (1 - gate) * x


class CroppedSkip(ClassifiedBody):
    """Concatenates a cropped skip (the first U-Net)."""

    def __init__(self) -> None:
        super().__init__(4)
        self.down, self.deep, self.last = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 4, 3), conv(7, 4)

    def features(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = F.relu(self.deep(skip))
        return self.last(torch.cat([skip[:, :, 1:-1, 1:-1], x], 1))


class PaddingModes(ClassifiedBody):
    """All padding modes, dilation, groups and strides."""

    def __init__(self) -> None:
        super().__init__(6)
        self.body = nn.Sequential(
            conv(1, 4, padding_mode="circular"), nn.ELU(),
            conv(4, 6, padding_mode="reflect", groups=2), nn.Softplus(),
            nn.Conv2d(6, 4, 3, dilation=2, padding="same", padding_mode="replicate"), nn.SELU(),
            nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
        )  # fmt: skip

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


class UnfoldedPatches(ClassifiedBody):
    def __init__(self) -> None:
        super().__init__(4)
        self.first, self.mix = conv(1, 3), nn.Linear(27, 4)

    def features(self, x: Tensor) -> Tensor:
        columns = F.unfold(F.relu(self.first(x)), 3, padding=1).transpose(1, 2)
        return self.mix(columns).transpose(1, 2).unflatten(2, x.shape[2:])


class ShiftedChannels(ClassifiedBody):
    """Shifts channels along the image (temporal shift, ShiftNet)."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first, self.second = conv(1, 4), conv(4, 4)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.second(torch.cat([x[:, :1].roll(1, 2), x[:, 1:2].roll(-1, 2), x[:, 2:]], 1))


class CosineClassifier(nn.Module):
    """Compares features with class vectors by their angle."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(1, 4), nn.ReLU(), conv(4, 5), nn.ReLU())
        self.classes = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        features = F.normalize(self.body(x).mean((2, 3)))
        return 8 * features @ F.normalize(self.classes).t()


class BilinearPooling(nn.Module):
    """Multiplies two sets of features pixel by pixel (bilinear pooling)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = conv(1, 4), conv(4, 3), conv(4, 2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        product = torch.einsum("bihw,bjhw->bij", self.a(x), self.b(x))
        return self.head(product.flatten(1) / x[0, 0].numel())


class FeedbackNet(nn.Module):
    """Feeds its own output back several times, with one set of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.step = conv(1, 4), conv(8, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.stem(x))
        x = torch.zeros_like(first)
        for _ in range(3):
            x = x + 0.5 * F.relu(self.step(torch.cat([first, x], 1)))
        return self.head(x.mean((2, 3)))


class LayersInList(nn.Module):
    """Keeps its layers in a list, and names them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.order = ["block-1", "block-2"]
        for name, layer in zip(self.order, [conv(1, 4), conv(4, 5)], strict=True):
            self.add_module(name, layer)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = F.relu(getattr(self, name)(x))
        return self.head(x.mean((2, 3)))


class AllNorms(ClassifiedBody):
    """All norms, one after the other, and a learned scale per channel."""

    def __init__(self) -> None:
        super().__init__(4)
        self.first, self.second, self.last = conv(1, 4), conv(4, 4), conv(4, 4)
        self.batch, self.instance = nn.BatchNorm2d(4), nn.InstanceNorm2d(4)
        self.group = nn.GroupNorm(2, 4)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.batch(self.first(x)))
        x = F.relu(self.instance(self.second(x)) * self.scale)
        return self.group(self.last(x))


NETWORKS: dict[str, type[nn.Module]] = {
    "bilinear": BilinearPooling,
    "cascade": FeedbackNet,
    "cosine": CosineClassifier,
    "coupling": AffineCoupling,
    "cropped_skip": CroppedSkip,
    "gated": GatedChannels,
    "highway": Highway,
    "maxout": MaxoutNet,
    "mixer": MlpMixer,
    "normalized": AllNorms,
    "padded": PaddingModes,
    "plain_names": LayersInList,
    "queries": QueryAttention,
    "shifted_channels": ShiftedChannels,
    "split_channels": SplitChannels,
    "transformer_of_images": SpatialTransformer,
    "unfolded": UnfoldedPatches,
    "vector_quantized": VectorQuantizer,
}

add_networks(__name__, {name: (make, {}) for name, make in NETWORKS.items()})
