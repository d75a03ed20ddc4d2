"""Layers and edges of well-known networks, for the fake training."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["CONCATENATING", "NETS", "Conv"]


@dataclass
class Conv:
    """One layer of a fake network. Layers of one ``group`` must keep the same width."""

    name: str
    width: int
    kernel: int = 3
    stride: int = 1
    group: str = ""
    feeds: list[int] = field(default_factory=list)
    refused: str = ""


def digits() -> list[Conv]:
    return [Conv("conv1", 8), Conv("conv2", 16), Conv("conv3", 16)]


def alexnet() -> list[Conv]:
    widths = [(64, 11, 4), (192, 5, 1), (384, 3, 1), (256, 3, 1), (256, 3, 1)]
    places = [0, 3, 6, 8, 10]
    return [
        Conv(f"features.{place}", width, kernel, stride)
        for place, (width, kernel, stride) in zip(places, widths, strict=True)
    ]


def alexnet_with_head() -> list[Conv]:
    """Return AlexNet with the 4,096 + 4,096 units of its hidden linear layers."""
    return [*alexnet(), Conv("classifier.1", 4096, 1, 1), Conv("classifier.4", 4096, 1, 1)]


def resnet(blocks: list[int], bottleneck: bool, edges: bool = True) -> list[Conv]:
    """Return a ResNet with torchvision's names, and its shortcuts as edges."""
    layers = [Conv("conv1", 64, 7, 2, group="layer1")]
    outputs = [0]  # layers whose sum is the current feature map
    for stage, n_blocks in enumerate(blocks, start=1):
        width = 32 * 2**stage
        for block in range(n_blocks):
            path = f"layer{stage}.{block}"
            stride = 2 if block == 0 and stage > 1 else 1
            kernels = [1, 3, 1] if bottleneck else [3, 3]
            final = width * (4 if bottleneck else 1)
            start = len(layers)
            for k, kernel in enumerate(kernels):
                last = k == len(kernels) - 1
                group = f"layer{stage}" if last else ""
                layers.append(
                    Conv(f"{path}.conv{k + 1}", final if last else width, kernel, group=group)
                )
            layers[start + (1 if bottleneck else 0)].stride = stride
            for source in outputs:
                layers[source].feeds.append(start)
            for k in range(len(kernels) - 1):
                layers[start + k].feeds.append(start + k + 1)
            end = len(layers) - 1
            if block == 0 and (stage > 1 or bottleneck):
                layers.append(Conv(f"{path}.downsample.0", final, 1, stride, group=f"layer{stage}"))
                for source in outputs:
                    layers[source].feeds.append(len(layers) - 1)
                outputs = [end, len(layers) - 1]
            else:
                outputs = [*outputs, end]
    if not edges:
        for layer in layers:
            layer.feeds = []
    return layers


def densenet(blocks: list[int]) -> list[Conv]:
    """Return a DenseNet with torchvision's names: layers read all previous ones of their block."""
    layers = [Conv("features.conv0", 64, 7, 2)]
    width, before = 64, [0]

    def add(conv: Conv, sources: list[int]) -> int:
        for source in sources:
            layers[source].feeds.append(len(layers))
        layers.append(conv)
        return len(layers) - 1

    for b, n_layers in enumerate(blocks, start=1):
        for k in range(1, n_layers + 1):
            path = f"features.denseblock{b}.denselayer{k}"
            inner = add(Conv(f"{path}.conv1", 128, 1), before)
            before = [*before, add(Conv(f"{path}.conv2", 32), [inner])]
            width += 32
        if b < len(blocks):
            width //= 2
            before = [add(Conv(f"features.transition{b}.conv", width, 1), before)]
    return layers


def inception() -> list[Conv]:
    """Return a stem and two modules of four parallel branches with concatenated outputs."""
    layers = [Conv("stem.conv", 64, 7, 2)]
    before = [0]
    for module in ("mixed_a", "mixed_b"):
        ends = []
        for branch, chain in (
            ("branch1", [(64, 1)]),
            ("branch3", [(48, 1), (128, 3)]),
            ("branch5", [(16, 1), (32, 3), (32, 3)]),
            ("pool", [(32, 1)]),
        ):
            feeding = before
            for k, (width, kernel) in enumerate(chain):
                for source in feeding:
                    layers[source].feeds.append(len(layers))
                feeding = [len(layers)]
                layers.append(Conv(f"{module}.{branch}.{k}", width, kernel))
            ends += feeding
        before = ends
    return layers


class _Builder:
    """Adds layers to a network, each with the layers that it reads."""

    def __init__(self) -> None:
        self.layers: list[Conv] = []

    def add(self, conv: Conv, *sources: int) -> int:
        """Return the index of the added layer."""
        for source in sources:
            self.layers[source].feeds.append(len(self.layers))
        self.layers.append(conv)
        return len(self.layers) - 1


def googlenet() -> list[Conv]:
    """Return GoogLeNet with torchvision's names."""
    net = _Builder()
    stem = net.add(Conv("conv1.conv", 64, 7, 2))
    stem = net.add(Conv("conv2.conv", 64, 1), stem)
    before = [net.add(Conv("conv3.conv", 192), stem)]
    for name, b1, b2, b3, b4 in (
        ("3a", 64, (96, 128), (16, 32), 32), ("3b", 128, (128, 192), (32, 96), 64),
        ("4a", 192, (96, 208), (16, 48), 64), ("4b", 160, (112, 224), (24, 64), 64),
        ("4c", 128, (128, 256), (24, 64), 64), ("4d", 112, (144, 288), (32, 64), 64),
        ("4e", 256, (160, 320), (32, 128), 128), ("5a", 256, (160, 320), (32, 128), 128),
        ("5b", 384, (192, 384), (48, 128), 128),
    ):  # fmt: skip
        path, ends = f"inception{name}", []
        ends.append(net.add(Conv(f"{path}.branch1.conv", b1, 1), *before))
        for branch, (reduced, width) in (("branch2", b2), ("branch3", b3)):
            inner = net.add(Conv(f"{path}.{branch}.0.conv", reduced, 1), *before)
            ends.append(net.add(Conv(f"{path}.{branch}.1.conv", width), inner))
        ends.append(net.add(Conv(f"{path}.branch4.1.conv", b4, 1), *before))
        before = ends
    return net.layers


def mobilenet() -> list[Conv]:
    """Return MobileNetV3-Large with torchvision's names."""
    net = _Builder()
    outputs = [net.add(Conv("features.0.0", 16, 3, 2))]
    blocks = [
        (16, 16, False), (64, 24, False), (72, 24, False), (72, 40, True), (120, 40, True),
        (120, 40, True), (240, 80, False), (200, 80, False), (184, 80, False), (184, 80, False),
        (480, 112, True), (672, 112, True), (672, 160, True), (960, 160, True), (960, 160, True),
    ]  # fmt: skip
    width_before = 16
    for k, (inner, width, squeezes) in enumerate(blocks, start=1):
        path, sources, part = f"features.{k}.block", outputs, 0
        if k > 1:
            sources, part = [net.add(Conv(f"{path}.0.0", inner, 1), *outputs)], 1
        depthwise = net.add(Conv(f"{path}.{part}.0", inner, 3), *sources)
        sources = [depthwise]
        if squeezes:
            part += 1
            fc1 = net.add(Conv(f"{path}.{part}.fc1", inner // 4, 1), depthwise)
            sources = [depthwise, net.add(Conv(f"{path}.{part}.fc2", inner, 1), fc1)]
        end = net.add(Conv(f"{path}.{part + 1}.0", width, 1), *sources)
        outputs = [*outputs, end] if width == width_before and k > 1 else [end]
        width_before = width
    net.add(Conv("features.16.0", 960, 1), *outputs)
    return net.layers


def unet() -> list[Conv]:
    """Return a U-Net with transposed convolutions, whose decoder reads the encoder's outputs."""
    net = _Builder()

    def double(path: str, width: int, *sources: int) -> int:
        inner = net.add(Conv(f"{path}.double_conv.0", width), *sources)
        return net.add(Conv(f"{path}.double_conv.3", width), inner)

    skips = [double("inc", 16)]
    for k in range(1, 5):
        skips.append(double(f"down{k}.maxpool_conv.1", 16 * 2**k, skips[-1]))
    last = skips.pop()
    for k in range(1, 5):
        width = 16 * 2 ** (4 - k)
        up = net.add(Conv(f"up{k}.up", width, 2, 2), last)
        last = double(f"up{k}.conv", width, skips.pop(), up)
    net.add(Conv("outc.conv", 2, 1), last)
    return net.layers


def gan() -> list[Conv]:
    """Return a generator and a discriminator."""
    widths = {"generator": (64, 32, 16, 3), "discriminator": (16, 32, 64, 1)}
    places = {"generator": (0, 3, 6, 9), "discriminator": (0, 2, 5, 8)}
    return [
        Conv(f"{part}.{place}", width, 4, 2)
        for part in widths
        for place, width in zip(places[part], widths[part], strict=True)
    ]


CONCATENATING = {"densenet", "densenet121", "inception", "googlenet", "unet"}
NETS = {
    "digits": digits,
    "alexnet": alexnet,
    "alexnet_head": alexnet_with_head,
    "resnet18": lambda: resnet([2, 2, 2, 2], bottleneck=False),
    "resnet50": lambda: resnet([3, 4, 6, 3], bottleneck=True),
    "resnet152": lambda: resnet([3, 8, 36, 3], bottleneck=True),
    "chain50": lambda: resnet([3, 4, 6, 3], bottleneck=True, edges=False),
    "densenet": lambda: densenet([6, 6]),
    "densenet121": lambda: densenet([6, 12, 24, 16]),
    "inception": inception,
    "linear": list,  # without a convolution
    "googlenet": googlenet,
    "mobilenet": mobilenet,
    "unet": unet,
    "gan": gan,
}
