"""Opened layers: from what the recorder tells of them to the `LayerDetail` a viewer is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from revacnn_lightning import telemetry
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import messages
from revacnn_lightning.protocol.messages import FilterView
from revacnn_lightning.protocol.requests import InspectLayer, KernelSlice
from revacnn_lightning.telemetry.inspection.filter_images import filter_images
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half
from revacnn_lightning.telemetry.recording.recorder import Recorder

__all__ = ["LayerDetailCollector", "shown_image"]

log = logging.getLogger(__name__)

NOTHING = np.zeros(0, np.float16)
PARTS = 8  # per side of a map, of which the means are its features: 64 of them
LARGEST_IMAGE = 256  # pixels of a side of the input image that is sent

Images = Callable[[int], Tensor]  # index -> (channels, H, W), on the model's device
Forward = Callable[[Tensor], Any]  # (1, channels, H, W) -> whatever the model gives


def no_images(index: int) -> Tensor:
    """`Images` of a training that has none to choose from."""
    raise EditRefusedError("this training has no validation images to choose from")


class LayerDetailCollector:
    """The layers that viewers have open, and the input image whose maps they see.

    All viewers share one interest in a layer, and see the maps of one image and the same slices of
    its filters: those that were asked for last.
    """

    def __init__(
        self, recorder: Recorder, model: nn.Module, images: Images, forward: Forward | None
    ) -> None:
        self._recorder = recorder
        self._model = model
        self._images = images
        self._forward = forward
        self._index: int | None = None
        self._pinned: Tensor | None = None
        self._slices: dict[str, KernelSlice] = {}  # of each layer that was ever watched
        self._asked: set[str] = set()  # layers, since anything was last sent
        self._of_batch: dict[str, messages.LayerDetail] = {}  # the newest whose image is a batch's

    def watch(self, request: InspectLayer) -> None:
        """A viewer looks at a layer, or goes on looking.

        Raises:
            Refused: there is no such layer or image, or no way to show the image's maps.
        """
        if request.layer not in self._recorder.layers:
            raise EditRefusedError(f"there is no convolution {request.layer} (any more)")
        if not 0 < request.updates_per_second < float("inf"):
            raise EditRefusedError(
                f"details can be sent so many times a second, not {request.updates_per_second}"
            )
        if request.image_index != self._index:
            self._pin(request.image_index)
        self._slices[request.layer] = request.kernel_slice
        self._asked.add(request.layer)
        self._recorder.details.open(
            request.layer,
            hz=request.updates_per_second,
            smoothed=request.smooth_gradients,
        )

    def _mean(self, layer: str) -> bool:
        return self._slices.get(layer) == "mean"

    def _pin(self, index: int | None) -> None:
        if index is not None and self._forward is None:
            raise EditRefusedError("the module's forward does not take an image alone, so no image of the "
                          "validation data can be shown; pass ReVACNN(forward=...)")  # fmt: skip
        self._pinned = None if index is None else self._images(index)
        self._recorder.details.pin(self._pinned, self._forward)
        self._index = index

    def read(
        self,
        *,
        run: str,
        version: int,
        step: int,
        image: Callable[[], Tensor | None],
    ) -> list[messages.LayerDetail]:
        """What is due after a batch whose first image is ``image()``."""
        self._asked.clear()
        details = self._recorder.collect_details()
        if not details:
            return []
        shown = image() if self._pinned is None else self._pinned
        sent = self._messages(details, run, version, step, shown)
        if self._pinned is None:
            self._of_batch.update((detail.layer, detail) for detail in sent)
            for closed in self._of_batch.keys() - self._recorder.details.layers:
                del self._of_batch[closed]
        return sent

    def read_between(
        self, *, run: str, version: int, step: int, image: Callable[[], Tensor | None]
    ) -> list[messages.LayerDetail]:
        """While no batch is trained: what is known of the layers that were asked for meanwhile.

        Maps of a batch's image stay; where there are none yet, they are made of ``image()``.
        """
        asked, self._asked = self._asked, set()
        sent = []
        for layer in asked & self._recorder.details.layers:
            kept = self._kept(layer, version)
            shown = self._pinned if kept is not None or self._pinned is not None else image()
            details = self._details_between(layer, shown)
            for detail in self._messages(details, run, version, step, shown):
                sent.append(detail if kept is None else _with_maps_of(detail, kept))
        return sent

    def _kept(self, layer: str, version: int) -> messages.LayerDetail | None:
        """What was last sent of a layer, where its maps are still those to be shown."""
        before = self._of_batch.get(layer)
        stays = self._pinned is None and before is not None and before.version == version
        return before if stays else None

    def _details_between(self, layer: str, image: Tensor | None) -> list[telemetry.DetailSample]:
        if image is None or self._forward is None:
            return self._recorder.collect_details_while_paused([layer])
        try:
            return self._recorder.collect_details_while_paused([layer], image, self._forward)
        except Exception:  # of the user's code: it costs the maps, no more
            log.info("The maps of %s cannot be shown", layer, exc_info=True)
            return self._recorder.collect_details_while_paused([layer])

    def _messages(
        self,
        details: list[telemetry.DetailSample],
        run: str,
        version: int,
        step: int,
        shown: Tensor | None,
    ) -> list[messages.LayerDetail]:
        modules = dict(self._model.named_modules())
        return [
            messages.LayerDetail(
                run=run,
                version=version,
                step=step,
                layer=detail.layer,
                coefficients=_coefficients(detail, modules[detail.layer], self._mean(detail.layer)),
                gradients=_gradients(detail, modules[detail.layer], self._mean(detail.layer)),
                activations=_maps(detail.maps),
                activation_gradients=_maps(detail.map_gradients),
                image=NOTHING if shown is None else shown_image(shown),
                image_index=self._index,
                kernel_slice=self._slices.get(detail.layer, "strongest"),
            )
            for detail in details
        ]


def _with_maps_of(detail: messages.LayerDetail, kept: messages.LayerDetail) -> messages.LayerDetail:
    return replace(
        detail,
        image=kept.image,
        activations=kept.activations,
        activation_gradients=kept.activation_gradients,
    )


def _coefficients(detail: telemetry.DetailSample, conv: Any, mean: bool) -> FilterView:
    images = filter_images(conv.weight.detach(), conv, mean=mean)
    return FilterView(_values(detail.coefficients), images)


def _gradients(detail: telemetry.DetailSample, conv: Any, mean: bool) -> FilterView:
    gradient = conv.weight.grad
    seen = NOTHING if gradient is None else filter_images(gradient.detach(), conv, mean=mean)
    return FilterView(_values(detail.gradients), seen)


def _maps(maps: np.ndarray | None) -> FilterView:
    """Maps are their own pictures; what is embedded are their means over 8x8 parts."""
    if maps is None:
        return FilterView(NOTHING, NOTHING)
    height, width = maps.shape[1:]
    pixels = torch.from_numpy(maps).float()
    parts = (min(PARTS, height), min(PARTS, width))
    pooled = nn.functional.adaptive_avg_pool2d(pixels, parts)
    return FilterView(pooled.flatten(1).half().numpy(), maps)


def _values(values: np.ndarray | None) -> np.ndarray:
    return NOTHING if values is None else values


def shown_image(image: Tensor) -> np.ndarray:
    """An input image (channels, H, W) as it is sent: not too large."""
    image = image.detach().float()
    largest = max(image.shape[-2:])
    if largest > LARGEST_IMAGE:
        factor = LARGEST_IMAGE / largest
        image = nn.functional.interpolate(image[None], scale_factor=factor, mode="area")[0]
    return normalized_half(image)
