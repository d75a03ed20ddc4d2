"""Small networks whose layers are not 2D convolutions: linear layers, signals and volumes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["OTHERS", "resnet_1d"]


class ResidualSignal(nn.Module):
    """Two 1D convolutions around a shortcut, which is strided if the block is."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 7, stride, padding=3, bias=False)
        self.norm1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 7, padding=3, bias=False)
        self.norm2 = nn.BatchNorm1d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv1d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet_1d() -> nn.Sequential:
    """Return a residual network for signals of two channels."""
    return nn.Sequential(
        nn.Conv1d(2, 16, 15, 2, padding=7), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        ResidualSignal(16, 16, 1), ResidualSignal(16, 24, 2), ResidualSignal(24, 32, 2),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def autoencoder_1d() -> nn.Sequential:
    """Return an autoencoder of signals with transposed convolutions."""
    return nn.Sequential(
        nn.Conv1d(1, 12, 4, 2, 1), nn.GELU(), nn.Conv1d(12, 16, 4, 2, 1), nn.GELU(),
        nn.ConvTranspose1d(16, 12, 4, 2, 1), nn.GELU(), nn.ConvTranspose1d(12, 1, 4, 2, 1),
    )  # fmt: skip


def mlp() -> nn.Sequential:
    """Return hidden linear layers on a flattened image, with and without a batch norm."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(48, 32), nn.SiLU(), nn.Linear(32, 24, bias=False), nn.LeakyReLU(),
        nn.Linear(24, 10),
    )  # fmt: skip


class Mixer(nn.Module):
    """Linear layers on sequences: over the features, with a residual sum, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.up, self.down = nn.Linear(16, 40), nn.Linear(40, 16)
        self.squeeze, self.excite = nn.Linear(16, 4), nn.Linear(4, 16)
        self.hidden, self.head = nn.Linear(16, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.gelu(self.up(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(1)))))
        return self.head(F.relu(self.hidden((x * gate[:, None]).amax(1))))


class TextReader(nn.Module):
    """CRNN (Shi et al. 2017) in small: the columns of a map are the steps of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 16, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(16), nn.ReLU(),
            nn.MaxPool2d((2, 1)), nn.Conv2d(16, 20, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.recurrent = nn.LSTM(20 * 2, 14, num_layers=2, bidirectional=True, batch_first=True)
        self.hidden, self.head = nn.Linear(28, 18), nn.Linear(18, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.features(x).permute(0, 3, 1, 2).flatten(2)
        return self.head(F.relu(self.hidden(self.recurrent(steps)[0])))


class SmallVideoNet(nn.Module):
    """torchvision's r3d_18 and mc3_18 in small: 3D convolutions with residual sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 7, 7), (1, 2, 2), (1, 3, 3))
        self.conv1, self.norm1 = nn.Conv3d(8, 12, 3, padding=1), nn.BatchNorm3d(12)
        self.conv2, self.norm2 = nn.Conv3d(12, 8, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(8)
        self.depthwise = nn.Conv3d(8, 16, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose3d(16, 10, 2, 2)
        self.hidden, self.head = nn.Linear(80, 14), nn.Linear(14, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        x = F.adaptive_avg_pool3d(F.relu(self.up(F.relu(self.depthwise(x)))), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


class Gan(nn.Module):
    """A generator, whose linear layer computes maps, and the discriminator of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(16, 12 * 16), nn.BatchNorm1d(12 * 16), nn.ReLU(), nn.Unflatten(1, (12, 4, 4)),
            nn.ConvTranspose2d(12, 10, 4, 2, 1), nn.BatchNorm2d(10), nn.ReLU(),
            nn.ConvTranspose2d(10, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(8, 12, 4, 2, 1), nn.BatchNorm2d(12), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(12 * 16, 1),
        )  # fmt: skip

    def forward(self, noise: Tensor) -> Tensor:
        return self.discriminator(self.generator(noise))


# Name -> what makes it, and the shape of a sample.
OTHERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (3, 8, 8)),
    "mixer": (Mixer, (9, 6)),
    "resnet_1d": (resnet_1d, (2, 96)),
    "autoencoder_1d": (autoencoder_1d, (1, 32)),
    "crnn": (TextReader, (1, 8, 16)),
    "video_net": (SmallVideoNet, (3, 4, 16, 16)),
    "gan": (Gan, (16,)),
    "r3d_18": (partial(torchvision.models.video.r3d_18, num_classes=10), (3, 4, 24, 24)),
}
