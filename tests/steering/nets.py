"""Small networks, one per pattern that an edit must handle or refuse, and helpers for tests."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.steering import Editor, ForwardProbe


def conv_bn(inputs: int, outputs: int, **kwargs: int) -> nn.Sequential:
    kwargs = {"kernel_size": 3, "padding": 1, **kwargs}
    return nn.Sequential(nn.Conv2d(inputs, outputs, **kwargs), nn.BatchNorm2d(outputs), nn.ReLU())


class Plain(nn.Module):
    """conv, bn, relu, conv, pool, flatten (4 columns per filter), linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.adaptive_avg_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


class Residual(nn.Module):
    """A stem and two blocks on one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.a = nn.Sequential(conv_bn(8, 6), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.b = nn.Sequential(conv_bn(8, 6), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.a(x))
        x = F.relu(x + self.b(x))
        return self.fc(x.mean((2, 3)))


class Grouped(nn.Module):
    """A group conv between two convs, then a depthwise conv with two filters per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn(3, 8)
        self.grouped = conv_bn(8, 12, groups=4)
        self.depthwise = conv_bn(12, 24, groups=12)
        self.head = nn.Conv2d(24, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.depthwise(self.grouped(self.conv(x))))
        return self.fc(F.relu(x).amax((2, 3)))


class Concat(nn.Module):
    """Dense concatenation, squeeze-and-excitation, and a transposed conv (a small U-Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv_bn(3, 6)
        self.deep = conv_bn(6, 8, stride=2)
        self.squeeze = nn.Conv2d(8, 2, 1)
        self.excite = nn.Conv2d(2, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.mix = conv_bn(10, 6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        y = self.deep(x)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        y = self.up(y * gate)
        return self.fc(self.mix(torch.cat([x, y], 1)).mean((2, 3)))


class Shuffle(nn.Module):
    """Channel shuffle over two groups: columns depend on which channel arrives, not on position."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv_bn(3, 8)
        self.left = conv_bn(8, 8, groups=2)
        self.right = conv_bn(8, 6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.left(self.first(x))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.fc(self.right(x).mean((2, 3)))


class Auxiliary(nn.Module):
    """A second head that only runs in training mode, and a conv that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.aux = nn.Conv2d(8, 5, 1)
        self.drop = nn.Dropout2d(0.5)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x)
        x = F.relu(self.shared(F.relu(self.shared(x))))
        out = self.fc(self.drop(x).mean((2, 3)))
        return (out, self.aux(x).mean((2, 3))) if self.training else out


NETS = {net.__name__: net for net in (Plain, Residual, Grouped, Concat, Shuffle, Auxiliary)}


def build(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return a network in double precision without zeros, ones or equal values in its norms."""
    torch.manual_seed(seed)
    model = kind().double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.2, 0.3)
                module.running_mean.normal_(0.0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


def images(count: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)


def probe_of(model: nn.Module, x: Tensor | None = None) -> ForwardProbe:
    batch = images() if x is None else x
    return ForwardProbe([lambda: model(batch)])


def editor_of(kind: type[nn.Module], **optimizer: object) -> tuple[nn.Module, Editor, ForwardProbe]:
    model = build(kind)
    chosen = torch.optim.Adam(model.parameters(), lr=1e-3)
    return model, Editor(model, [chosen]), probe_of(model)


def output(model: nn.Module, x: Tensor | None = None) -> Tensor:
    training = model.training
    model.eval()
    with torch.no_grad():
        y = model(images() if x is None else x)
    model.train(training)
    return y


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 5) -> None:
    """Train one step on random images."""
    model.train()
    optimizer.zero_grad()
    y = model(images(4, seed))
    y = y[0] + y[1] if isinstance(y, tuple) else y
    torch.manual_seed(seed)
    F.cross_entropy(y, torch.randint(y.shape[1], (4,))).backward()
    optimizer.step()


def checksum(model: nn.Module, *optimizers: torch.optim.Optimizer, journal: object = None) -> str:
    """Return a checksum of a model, its gradients, modes and sizes, optimizer state and journal."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(str((value.dtype, tuple(value.shape), value.stride())).encode())
            digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key, each in sorted(value.items(), key=lambda item: str(item[0])):
                digest.update(str(key).encode())
                add(each)
        elif isinstance(value, (list, tuple)):
            for each in value:
                add(each)
        else:
            digest.update(repr(value).encode())

    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        add([name, tensor, tensor.grad, tensor.requires_grad])
    for name, module in model.named_modules():
        add([name, type(module).__name__, module.training])
        add({k: v for k, v in vars(module).items() if isinstance(v, (int, tuple))})
    for optimizer in optimizers:
        add(optimizer.state_dict())
    if journal is not None:
        add(journal.to_data())  # type: ignore[attr-defined]
    add(torch.get_rng_state())
    return digest.hexdigest()
