"""What an opened layer shows beyond one number per filter, a few times a second at most.

Coefficients, their gradients, and the activation maps and their gradients of one image. All is
reduced on the training device and sent as float16: a layer of 512×512×3×3 is 9 MB of float32, its
detail some 300 KB. Nothing of this is computed for a layer that nobody has open, and interest that
is not renewed expires.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.inspection.downsampling import features, maps_of_image, thumbnails
from revacnn_lightning.telemetry.statistics import Conv, filter_rows

__all__ = ["DetailRecorder", "DetailSample", "Packed"]

DETAIL_HZ = 2.0  # details of a layer per second, at most
INTEREST_SECONDS = 10.0  # that interest lasts without being renewed
SMOOTHED_BATCHES = 20  # that a smoothed gradient remembers


@dataclass(frozen=True)
class Packed:
    """Numbers as float16, of at most 1: the true ones are ``values * scale``."""

    values: np.ndarray
    scale: float

    @classmethod
    def of(cls, tensor: Tensor, divisor: float = 1.0) -> Packed:
        """Copies to the host. What is not finite stays so; it does not count for the scale."""
        tensor = tensor.detach().float()
        largest = torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0).abs().amax()
        scale = float(largest) or 1.0
        values = (tensor / scale).half().cpu().numpy()
        return cls(values, scale / divisor)

    def unpacked(self) -> np.ndarray:
        """As float32."""
        return self.values.astype(np.float32) * np.float32(self.scale)


@dataclass
class DetailSample:
    """An opened layer after a batch. C filters; D = min(K, 64) features of K coefficients.

    ``coefficients`` and ``gradients`` are (C, D): the coefficients themselves where there are at
    most 64, else a random projection of them that is the same on every batch, for every layer with
    as many, and keeps distances between filters. ``maps`` and ``map_gradients`` (C, h, w) are of
    one image, averaged down to at most 32×32 pixels, fewer in a wide layer. None: there is none,
    as the gradient of a frozen layer or the gradients of a pinned image.
    """

    layer: str
    coefficients: Packed | None = None
    gradients: Packed | None = None
    smoothed: bool = False  # the gradients are of the last 20 batches, the newest counting most
    maps: Packed | None = None
    map_gradients: Packed | None = None
    pinned: bool = False  # the maps are of the pinned image, in eval mode
    tag: Any = None


@dataclass
class _Interest:
    """What one viewer wants of one layer."""

    hz: float
    smoothed: bool
    until: float


@dataclass(eq=False)
class _Opened:
    """A layer that somebody has open; tensors are of the current batch, on the device."""

    interests: dict[str, _Interest] = field(default_factory=dict)
    sent: float = -math.inf
    due: bool = False
    handle: RemovableHandle | None = None
    gradient: Tensor | None = None  # (C, D)
    smooth: Tensor | None = None  # (C, D), over batches
    maps: Tensor | None = None  # (C, h, w)
    map_gradient: Tensor | None = None

    @property
    def smoothed(self) -> bool:
        return any(interest.smoothed for interest in self.interests.values())

    def begin(self) -> None:
        self.gradient = self.maps = self.map_gradient = None


class DetailRecorder:
    """Which layers are open, and their details.

    Args:
        hz: how often a detail of a layer is made at most, whatever viewers ask for.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, hz: float = DETAIL_HZ, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hz = hz
        self._clock = clock
        self._opened: dict[str, _Opened] = {}
        self._image: Tensor | None = None
        self._forward: Callable[[Tensor], Any] | None = None

    @property
    def layers(self) -> frozenset[str]:
        """The layers that are open."""
        return frozenset(self._opened)

    def open(
        self,
        layer: str,
        viewer: str,
        *,
        hz: float = DETAIL_HZ,
        smoothed: bool = False,
        seconds: float = INTEREST_SECONDS,
    ) -> None:
        """A viewer looks at a layer, for ``seconds`` from now; call again to renew that."""
        opened = self._opened.setdefault(layer, _Opened())
        until = self._clock() + seconds
        opened.interests[viewer] = _Interest(min(hz, self._hz), smoothed, until)

    def close(self, layer: str, viewer: str) -> None:
        """A viewer looks at a layer no more."""
        opened = self._opened.get(layer)
        if opened is not None:
            opened.interests.pop(viewer, None)
            self._expire()

    def close_all(self) -> None:
        """Nobody looks at anything."""
        for opened in self._opened.values():
            _release(opened)
        self._opened.clear()

    def pin(self, image: Tensor | None, forward: Callable[[Tensor], Any] | None = None) -> None:
        """Show the maps of this image, (channels, height, width); None: the first of each batch.

        ``forward`` takes it as a batch of one through the model; None: the model itself.
        """
        self._image, self._forward = image, forward

    def begin(self, convs: dict[str, Conv]) -> None:
        """A batch begins; ``convs``: the observed ones."""
        self._expire()
        now = self._clock()
        for name, opened in list(self._opened.items()):
            if name not in convs:
                _release(opened)
                del self._opened[name]
                continue
            opened.begin()
            rate = max(interest.hz for interest in opened.interests.values())
            opened.due = rate > 0 and now - opened.sent >= 1 / rate
            if opened.due or opened.smoothed:
                _listen(opened, convs[name])

    def wants_map(self, layer: str) -> bool:
        """Whether `saw_map` is of use on this batch."""
        opened = self._opened.get(layer)
        return opened is not None and opened.due and self._image is None

    def saw_map(self, layer: str, maps: Tensor) -> None:
        """The activation maps of a batch, (B, C, H, W): keeps those of the first image."""
        opened = self._opened[layer]
        if opened.maps is not None or len(maps) == 0:
            return
        opened.maps = thumbnails(maps.detach()[0])

        def arrive(gradient: Tensor) -> None:
            opened.map_gradient = thumbnails(gradient.detach()[0])

        if maps.requires_grad:
            maps.register_hook(arrive)

    def end(
        self, model: nn.Module, convs: dict[str, Conv], grad_scale: float, tag: Any = None
    ) -> list[DetailSample]:
        """The batch is over: the details that are due. Waits for the device, if there are any."""
        for opened in self._opened.values():
            _release(opened)
            _smooth(opened)
        due = {name: opened for name, opened in self._opened.items() if opened.due}
        if not due:
            return []
        pinned: dict[str, Tensor] = {}
        if self._image is not None:
            wanted = {name: convs[name] for name in due}
            pinned = maps_of_image(model, self._image, wanted, self._forward)
        return [
            self._detail(name, opened, convs[name], pinned, grad_scale, tag)
            for name, opened in due.items()
        ]

    def between(
        self,
        layers: Iterable[str],
        convs: dict[str, Conv],
        maps: dict[str, Tensor],
    ) -> list[DetailSample]:
        """Details of open layers while no batch is trained, with ``maps`` of whatever image.

        Gradients are those of the last batches; the maps' gradients need a batch.
        """
        details = []
        for name in layers:
            opened, conv = self._opened.get(name), convs.get(name)
            if opened is None or conv is None:
                continue
            opened.begin()
            opened.gradient = _last_gradient(conv)
            if opened.smooth is None or len(opened.smooth) != conv.out_channels:  # edited since
                opened.smooth = opened.gradient
            details.append(self._detail(name, opened, conv, maps, 1.0, None))
        return details

    def _detail(
        self,
        name: str,
        opened: _Opened,
        conv: Conv,
        pinned: dict[str, Tensor],
        grad_scale: float,
        tag: Any,
    ) -> DetailSample:
        opened.sent, opened.due = self._clock(), False
        detail = DetailSample(
            name, tag=tag, pinned=self._image is not None, smoothed=opened.smoothed
        )
        weight = conv.weight.detach()
        detail.coefficients = Packed.of(features(filter_rows(weight, conv)))
        gradients = opened.smooth if opened.smoothed else opened.gradient
        if gradients is not None:
            detail.gradients = Packed.of(gradients, grad_scale)
        maps = pinned.get(name, opened.maps)
        if maps is not None:
            detail.maps = Packed.of(maps)
        if opened.map_gradient is not None and not detail.pinned:
            detail.map_gradients = Packed.of(opened.map_gradient, grad_scale)
        return detail

    def _expire(self) -> None:
        now = self._clock()
        for name, opened in list(self._opened.items()):
            opened.interests = {
                viewer: interest
                for viewer, interest in opened.interests.items()
                if interest.until > now
            }
            if not opened.interests:
                _release(opened)
                del self._opened[name]


def _listen(opened: _Opened, conv: Conv) -> None:
    weight = conv._parameters.get("weight")
    if weight is None or nn.parameter.is_lazy(weight) or not weight.requires_grad:
        return

    def arrive(gradient: Tensor) -> None:
        part = features(filter_rows(gradient.detach(), conv))
        opened.gradient = part if opened.gradient is None else opened.gradient + part

    opened.handle = weight.register_hook(arrive)


def _last_gradient(conv: Conv) -> Tensor | None:
    """Features of the gradient that the last batch has left, (C, D); None: there is none."""
    weight = conv._parameters.get("weight")
    if weight is None or weight.grad is None:
        return None
    return features(filter_rows(weight.grad.detach(), conv))


def _release(opened: _Opened) -> None:
    if opened.handle is not None:
        opened.handle.remove()
        opened.handle = None


def _smooth(opened: _Opened) -> None:
    if not opened.smoothed or opened.gradient is None:
        return
    if opened.smooth is None or opened.smooth.shape != opened.gradient.shape:
        opened.smooth = opened.gradient.clone()
    else:
        opened.smooth.lerp_(opened.gradient, 2 / (SMOOTHED_BATCHES + 1))
