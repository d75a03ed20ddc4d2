"""The image that a filter responds to most, by gradient ascent with priors.

Where the inputs are signals or volumes, it is one of those: the priors are the same along each of
the one to three dimensions of positions.

Plain ascent ends in noise that no image resembles. The priors are those of Yosinski et al. 2015,
"Understanding Neural Networks Through Deep Visualization" (section 3): decay, blur, and clipping of
pixels with a small norm or a small contribution. Two additions: the image is moved at random by a
few pixels before each step (Mordvintsev, Olah and Tyka 2015, "Inceptionism"), and its values stay
in the range of those of real images.

The response is that of one unit, in the middle of the map, before its non-linearity: behind a ReLU,
a filter that is inactive at first would have no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from revacnn_lightning.telemetry.conv import device_of
from revacnn_lightning.telemetry.inspection.attribution import TracedActivation
from revacnn_lightning.telemetry.inspection.receptive_field import PixelBox, as_volume
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from revacnn_lightning.telemetry.recording.following_nonlinearity import is_nonlinearity
from revacnn_lightning.telemetry.unit_layers import to_maps

__all__ = ["ImageAscent", "PixelStatistics"]

STEP = 0.1  # root mean square of a step, in standard deviations of the data
INITIAL = 0.1  # standard deviation of the noise that the ascent starts with, in the same unit
DECAY = 0.04  # of all values, per step: a pixel with a mean gradient ends at STEP / DECAY
BLUR = 0.5  # standard deviation of the Gaussian blur, in pixels
BLUR_INTERVAL = 4  # steps between two blurs
SMALL_NORM = 0.1  # share of the pixels, those with the smallest norm, that are clipped
SMALL_CONTRIBUTION = 0.05  # the same, of those that contribute least to the response
MIN_CLIPPED_PIXELS = 100  # in the receptive field; of fewer, each counts
JITTER = 1 / 24  # of the receptive field: by how much the image is moved at most
MAX_JITTER = 4  # pixels

Forward = Callable[[Tensor], Any]  # (1, channels, ...) -> whatever the model returns


@dataclass(frozen=True)
class PixelStatistics:
    """The values of the pixels of real inputs, per channel, float32 (channels, 1, 1, 1)."""

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, images: Sequence[Tensor] | Tensor, device: torch.device) -> PixelStatistics:
        """Return the statistics of images, signals or volumes (channels, ...) of any sizes."""
        rows = [image.detach().to(device).float().flatten(1) for image in images]
        values = torch.nan_to_num(torch.cat(rows, 1), nan=0.0, posinf=0.0, neginf=0.0)
        deviation = values.std(1, correction=0)
        flat = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        found = (values.mean(1), flat, values.amin(1), values.amax(1))
        return cls(*(each[:, None, None, None] for each in found))


class _LayerReachedError(Exception):
    """Ends a forward behind the layer: what follows costs time and changes nothing."""


class ImageAscent:
    """Searches for the image that a filter responds to most, a few steps at a time.

    Args:
        model: the network.
        forward: runs it on a batch of one input.
        traced: the filter's layer.
        index: the index of the filter in its layer.
        like: an input whose size and type the image gets: an image (channels, H, W), a signal
            (channels, L) or a volume (channels, D, H, W).
        statistics: statistics of the pixels of real inputs.
        seed: the seed of the noise that the ascent starts with.

    Attributes:
        steps: the number of steps so far.
        response: the unit's response to the image before the last step; None before the first.
        box: the receptive field of the unit.
        shape: the shape of the input.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Forward,
        traced: TracedActivation,
        index: int,
        like: Tensor,
        statistics: PixelStatistics,
        seed: int = 0,
    ) -> None:
        self.steps = 0
        self.response: float | None = None
        self._model, self._forward, self._traced, self._index = model, forward, traced, index
        self._statistics = statistics
        self._dtype = like.dtype if like.is_floating_point() else torch.float32
        self._unit = traced.middle
        self.box: PixelBox = traced.box(*self._unit)
        self.shape = like.shape
        self._random = torch.Generator().manual_seed(seed)
        noise = as_volume(INITIAL * torch.randn(like.shape, generator=self._random))
        self._z = torch.zeros_like(noise).to(device_of(traced.conv))  # deviations from the mean
        self.box.crop(self._z).copy_(self.box.crop(noise))

    def advance(self, steps: int) -> bool:
        """Make some steps; return whether the response depends on the image.

        The model runs in evaluation mode and without side effects. No gradient of a parameter is
        computed.
        """
        with side_effect_free(self._model, training=False):
            for _ in range(steps):
                gradient = self._gradient()
                if gradient is None:
                    return False
                inside = self.box.crop(self._z)
                inside.copy_(self._regularized(inside, self.box.crop(gradient)))
                self.steps += 1
        return True

    def image(self) -> Tensor:
        """Return the image in the receptive field of the unit, float32 (channels, d, h, w).

        A signal has one row, a signal or an image one slice.
        """
        return self.box.crop(self._pixels(self._z))

    def _pixels(self, z: Tensor) -> Tensor:
        known = self._statistics
        return (known.mean + known.deviation * z).clamp(known.low, known.high)

    def _gradient(self) -> Tensor | None:
        """Return the gradient of the response, (channels, D, H, W); None if there is none."""
        moves = self._moves()
        moved = self._z.roll(moves, (1, 2, 3)).requires_grad_()
        known = self._statistics
        with torch.enable_grad():
            # Not clamped: at the end of the range, the gradient would vanish.
            pixels = (known.mean + known.deviation * moved).to(self._dtype)
            response = self._run(pixels.reshape(1, *self.shape))
            if response is None or not response.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(response, moved, allow_unused=True)
        self.response = float(response)
        if gradient is None or not gradient.isfinite().all() or not gradient.any():
            return None
        return gradient.roll([-move for move in moves], (1, 2, 3))

    def _moves(self) -> list[int]:
        limits = [min(MAX_JITTER, int(size * JITTER)) for size in self.box.sizes]
        draw = torch.randint
        return [int(draw(-n, n + 1, (), generator=self._random)) for n in limits]

    def _run(self, images: Tensor) -> Tensor | None:
        """Return the response of the unit; None if the forward does not reach the layer."""
        found: list[Tensor] = []
        calls = 0
        traced = self._traced
        is_before = is_nonlinearity(traced.module)

        def keep(maps: Tensor | None) -> None:
            if maps is not None:  # a copy: the module may overwrite what it receives
                row, column = self._unit
                found.append(maps[0, self._index, row, column].clone())

        def before(module: nn.Module, args: Any) -> None:
            if is_before and module is traced.module and calls == traced.call_index:
                keep(to_maps(traced.conv, args[0]))

        def behind(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal calls
            if module is not traced.module:
                return
            calls += 1
            if calls == traced.call_index + 1:
                if not is_before:
                    keep(to_maps(traced.conv, output))
                raise _LayerReachedError

        handles = [register_module_forward_pre_hook(before), register_module_forward_hook(behind)]
        try:
            self._forward(images)
        except _LayerReachedError:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return found[0] if found else None

    def _regularized(self, z: Tensor, gradient: Tensor) -> Tensor:
        """Return the image in the receptive field after a step, (channels, d, h, w)."""
        z = z + STEP * gradient / gradient.square().mean().sqrt()
        z = (1 - DECAY) * z
        if z[0].numel() >= MIN_CLIPPED_PIXELS:
            if self.steps % BLUR_INTERVAL == BLUR_INTERVAL - 1:
                z = _blurred(z)
            z = _without_smallest(z, z.square().sum(0), SMALL_NORM)
            z = _without_smallest(z, (z * gradient).sum(0).abs(), SMALL_CONTRIBUTION)
        known = self._statistics
        return z.clamp(
            (known.low - known.mean) / known.deviation, (known.high - known.mean) / known.deviation
        )


def _without_smallest(z: Tensor, sizes: Tensor, share: float) -> Tensor:
    """Return the image with the pixels set to zero whose sizes (d, h, w) are the smallest."""
    count = max(1, int(share * sizes.numel()))
    limit = sizes.flatten().kthvalue(count).values
    return torch.where(sizes > limit, z, 0.0)


def _blurred(z: Tensor) -> Tensor:
    """Return the image (channels, d, h, w) blurred by a Gaussian, whose border repeats."""
    offsets = torch.arange(-2, 3, device=z.device, dtype=z.dtype)
    kernel = (-offsets.square() / (2 * BLUR**2)).exp()
    kernel /= kernel.sum()
    for dim in range(1, z.dim()):
        if z.shape[dim] > 1:  # else there is nothing to blur along it
            rows = z.movedim(dim, -1)
            lines = nn.functional.pad(rows.flatten(1, 2), (2, 2), mode="replicate")
            blurred = nn.functional.conv1d(lines.flatten(0, 1)[:, None], kernel[None, None])
            z = blurred.reshape(rows.shape).movedim(-1, dim)
    return z
