"""Networks of libraries and papers, in small."""

from __future__ import annotations

import math
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint_sequential

from benchmarks.left_alone.cases.small import Classifier, add_networks, batches, conv_net
from benchmarks.left_alone.registry import register_case
from benchmarks.left_alone.training import Training


class VariationalAutoencoder(Classifier):
    """A variational autoencoder draws its code."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.encoder = nn.Sequential(nn.Conv2d(1, 6, 4, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1))
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(4, 6, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 1, 4, 2, 1)
        )

    def forward(self, images: Tensor) -> Any:
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(code), mean, log_variance

    def loss(self, batch: Any) -> Tensor:
        decoded, mean, log_variance = self(batch[0])
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return F.mse_loss(decoded, batch[0]) + 0.1 * divergence


@register_case(output=lambda module, batch: module.encoder(batch[0]))
def train_variational(training: Training) -> None:
    training.fit(VariationalAutoencoder(), batches())


class DiffusionModel(Classifier):
    """Predicts the noise of an image at a random time."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.down = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.time = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 8))
        self.up = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, images: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * torch.arange(1, 3, device=time.device) * math.pi
        code = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        return self.up(F.silu(self.norm(self.down(images)) + code[:, :, None, None]))

    def loss(self, batch: Any) -> Tensor:
        noise = torch.randn_like(batch[0])
        time = torch.rand(len(noise), device=noise.device)
        share = time[:, None, None, None]
        return F.mse_loss(self((1 - share) * batch[0] + share * noise, time), noise)


@register_case(
    output=lambda module, batch: module(batch[0], torch.full((len(batch[0]),), 0.3).to(batch[0]))
)
def train_diffusion(training: Training) -> None:
    training.fit(DiffusionModel(), batches())


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.PReLU(6))
        self.last, self.shuffle = nn.Conv2d(6, 4, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.shuffle(self.last(self.body(images))).mean((2, 3)).expand(-1, 3)


class StyleTransfer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(1, 6, 3), nn.InstanceNorm2d(6, affine=True), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3, padding=1), nn.Tanh(),
        )  # fmt: skip
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).flatten(2).amax(2))


class FeaturePyramid(nn.Module):
    """Sums features of several resolutions (feature pyramids, HRNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 5, 3, 2, 1)
        self.lateral, self.head = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        fine = F.relu(self.fine(images))
        coarse = F.relu(self.coarse(fine))
        up = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
        return self.head(self.lateral(fine) + up).mean((2, 3))


class StandardizedConvolution(nn.Conv2d):
    """A subclass with a forward of its own (standardized weights)."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class FunctionalConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 1, 3, 3) / 3)
        self.conv, self.head = nn.Conv2d(4, 5, 3, padding=1), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(F.conv2d(images, self.kernel, padding=1))
        return self.head(F.relu(self.conv(x)).mean((2, 3)))


class StraightThroughRound(torch.autograd.Function):
    """Rounds in the forward pass, and passes the gradient through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class QuantizedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, images: Tensor) -> Tensor:
        x = StraightThroughRound.apply(self.net[2](self.net[1](self.net[0](images))) * 8) / 8
        return self.net[3:](x)


class CheckpointedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()

    def forward(self, images: Tensor) -> Tensor:
        return checkpoint_sequential(self.net, 2, images, use_reentrant=False)


class MixtureOfExperts(nn.Module):
    """Routes each image to one of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(64, 2)
        self.experts = nn.ModuleList(nn.Conv2d(1, 4, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        gate = self.gate(images.flatten(1)).softmax(1)
        maps = torch.stack([expert(images) for expert in self.experts], 1)
        return self.head((maps * gate[:, :, None, None, None]).sum(1).relu().mean((2, 3)))


class SmallVisionTransformer(nn.Module):
    """A vision transformer in small, with a class token and position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.patches = nn.Conv2d(6, 8, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 17, 8) * 0.02)
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(self.stem(images)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        y = self.norm(x)
        return self.head((x + self.attention(y, y, y, need_weights=False)[0])[:, 0])


class VideoFramesReader(nn.Module):
    """Reads the frames of a video one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv2d(1, 5, 3, padding=1), nn.LSTMCell(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        state = None
        for frame in images.split(4, dim=2):
            state = self.cell(F.relu(self.conv(frame)).mean((2, 3)), state)
        assert state is not None
        return self.head(state[0])


class TwoHeadsInTraining(nn.Module):
    """Has two heads, and returns a tuple while it trains only (GoogLeNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.early, self.head = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Any:
        x = F.relu(self.first(images))
        output = self.head(F.relu(self.second(x)).mean((2, 3)))
        return (output, self.early(x.mean((2, 3)))) if self.training else output


class AuxiliaryLossClassifier(Classifier):
    def loss(self, batch: Any) -> Tensor:
        outputs = self(batch[0])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum(F.cross_entropy(each, batch[1]) for each in outputs)  # type: ignore[return-value]


@register_case()
def train_early_exit(training: Training) -> None:
    training.fit(AuxiliaryLossClassifier(TwoHeadsInTraining()), batches())


NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "super_resolution": (SuperResolution, {}),
    "style_transfer": (StyleTransfer, {}),
    "pyramid": (FeaturePyramid, {}),
    "functional_convolution": (FunctionalConvolution, {"steerable": False}),
    "quantized": (QuantizedNet, {"steerable": False}),
    "checkpoint_sequential": (CheckpointedNet, {}),
    "experts": (MixtureOfExperts, {}),
    "patches": (SmallVisionTransformer, {}),
    "sequence": (VideoFramesReader, {}),
}

add_networks(__name__, NETWORKS)


@register_case(steerable=False)
def train_own_convolution(training: Training) -> None:
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    training.fit(
        Classifier(nn.Sequential(StandardizedConvolution(1, 4, 3, padding=1), *head)), batches()
    )


@register_case()
def train_graph_module(training: Training) -> None:
    training.fit(Classifier(torch.fx.symbolic_trace(conv_net())), batches())


def _small_torchvision(name: str, **options: Any) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=3, **options)


@register_case()
def train_mobilenet(training: Training) -> None:
    net = _small_torchvision("mobilenet_v3_small", width_mult=0.25)
    training.fit(Classifier(net), batches(8, channels=3, size=32))


@register_case()
def train_squeezenet(training: Training) -> None:
    training.fit(Classifier(_small_torchvision("squeezenet1_1")), batches(8, channels=3, size=32))


@register_case()
def train_shufflenet(training: Training) -> None:
    training.fit(
        Classifier(_small_torchvision("shufflenet_v2_x0_5")), batches(8, channels=3, size=32)
    )
