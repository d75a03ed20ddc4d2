"""Collect the details of opened layers: from the recorder's samples to `LayerDetail` messages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages, Histogram, LayerDetail
from revacnn_lightning.protocol.requests import InspectLayer, KernelSlice
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.image_predictions import (
    Forward,
    LabelAndClassNames,
    PredictionsBeforeAndAfterEdit,
)
from revacnn_lightning.runtime.input_images import DataAndViewerImages
from revacnn_lightning.telemetry import DetailSample, Recorder
from revacnn_lightning.telemetry.inspection.filter_images import filter_images
from revacnn_lightning.telemetry.inspection.half_precision import normalized_half
from revacnn_lightning.telemetry.inspection.histograms import ValueHistogram
from revacnn_lightning.telemetry.inspection.map_images import MIDDLE, slice_index
from revacnn_lightning.telemetry.unit_layers import kernel_size

__all__ = ["EMPTY", "LayerDetailCollector", "encode_image_as_float16"]

EMPTY = np.zeros(0, np.float16)
FEATURE_GRID = 8  # maps are averaged to at most 8x8 values, the features of an activation
MAX_IMAGE_SIDE = 256  # pixels; larger input images are downsampled


class LayerDetailCollector:
    """Collects the details of the layers that viewers have open.

    All viewers share one input image, and one `InspectLayer` request per layer: the last one.

    Args:
        recorder: samples the layers.
        model: the network.
        images: the images that viewers can choose.
        forward: runs the model on a batch of one image; None if this is not possible.

    Attributes:
        predictions: for the chosen image.
    """

    def __init__(
        self,
        recorder: Recorder,
        model: nn.Module,
        images: DataAndViewerImages,
        forward: Forward | None,
    ) -> None:
        self.predictions = PredictionsBeforeAndAfterEdit(
            model, forward, lambda: bool(recorder.details.layers)
        )
        self._recorder = recorder
        self._model = model
        self._images = images
        self._forward = forward
        self._image_index: int | None = None
        self._pinned_image: Tensor | None = None
        self._kernel_slices: dict[str, KernelSlice] = {}  # per layer that was ever opened
        self._depths: dict[str, float] = {}  # the same: of the slice of volumes
        self._requested: set[str] = set()  # layers selected since the last collection
        self._of_batch: dict[str, LayerDetail] = {}  # per layer, the last with a batch's image

    def select(self, request: InspectLayer) -> None:
        """Collect the details of a layer for the next few seconds.

        Raises:
            EditRefusedError: there is no such layer or image, or the model cannot be run on it.
        """
        if request.layer not in self._recorder.layers:
            raise EditRefusedError(
                f"there is no watched layer {request.layer} in the network (anymore)"
            )
        if not 0 < request.updates_per_second < float("inf"):
            raise EditRefusedError(
                "updates_per_second must be a positive, finite number, not "
                f"{request.updates_per_second}"
            )
        if request.image_index != self._image_index:
            self._pin_image(request.image_index)
        self._kernel_slices[request.layer] = request.kernel_slice
        self._depths[request.layer] = request.depth
        self._requested.add(request.layer)
        self._recorder.details.open(
            request.layer,
            hz=request.updates_per_second,
            smoothed=request.smooth_gradients,
            depth=request.depth,
        )

    def collect(self, context: BatchContext) -> list[LayerDetail]:
        """Return the details that are due."""
        if context.is_paused:
            return self._collect_while_paused(context)
        self._requested.clear()
        samples = self._recorder.collect_details()
        if not samples:
            return []
        if self._pinned_image is not None:
            return self._build_messages(samples, context, self._pinned_image)
        details = self._build_messages(samples, context, _first_image(context))
        self._of_batch.update((detail.layer, detail) for detail in details)
        for closed in self._of_batch.keys() - self._recorder.details.layers:
            del self._of_batch[closed]
        return details

    def reset(self) -> None:
        """Discard the maps of the old network."""
        self._of_batch.clear()

    def _pin_image(self, index: int | None) -> None:
        if index is not None and self._forward is None:
            raise EditRefusedError(
                "a chosen image cannot be shown, because this process cannot run the module on an "
                "image alone; if its forward needs more, pass the option forward=..."
            )
        self._pinned_image = None if index is None else self._images.image(index)
        self._recorder.details.pin_image(self._pinned_image, self.predictions.run)
        truth = LabelAndClassNames() if index is None else self._images.truth(index)
        self.predictions.choose_image(self._pinned_image, truth)
        self._image_index = index

    def _collect_while_paused(self, context: BatchContext) -> list[LayerDetail]:
        """Return the details of the layers that were selected since the last collection.

        Maps of the last batch are reused. A layer without any shows those of the first image of
        the next batch.
        """
        requested, self._requested = self._requested, set()
        details = []
        for layer in requested & self._recorder.details.layers:
            known = None if self._pinned_image is not None else self._of_batch.get(layer)
            if known is not None and known.depth not in (None, self._depths[layer]):
                known = None  # its maps are another slice
            image = self._pinned_image
            if image is None and known is None:
                image = _first_image(context)
            samples = self._sample_while_paused(layer, image)
            for detail in self._build_messages(samples, context, image):
                details.append(detail if known is None else _with_maps_of(detail, known))
        return details

    def _sample_while_paused(self, layer: str, image: Tensor | None) -> list[DetailSample]:
        if image is None or self._forward is None:
            return self._recorder.collect_details_while_paused([layer])
        is_chosen = self._pinned_image is not None
        forward = self.predictions.run if is_chosen else self._forward
        return self._recorder.collect_details_while_paused([layer], image, forward)

    def _build_messages(
        self, samples: list[DetailSample], context: BatchContext, image: Tensor | None
    ) -> list[LayerDetail]:
        modules = dict(self._model.named_modules())
        shown = context.batch.get_input() if image is None else image
        encoded = EMPTY if shown is None else encode_image_as_float16(shown)
        return [
            self._build_message(sample, modules[sample.layer], context, encoded)
            for sample in samples
            if sample.layer in modules  # the model's code may have replaced layers
        ]

    def _build_message(
        self, sample: DetailSample, conv: Any, context: BatchContext, image: np.ndarray
    ) -> LayerDetail:
        layer = sample.layer
        images = self._images_of_filters(layer, conv)
        return LayerDetail(
            run=context.run,
            version=context.version,
            step=context.step,
            layer=layer,
            coefficients=_weight_view(
                sample.coefficients, self._recorder.current_weight(layer), images
            ),
            gradients=_weight_view(
                sample.gradients, self._recorder.current_gradient(layer), images
            ),
            activations=_map_view(sample.maps),
            activation_gradients=_map_view(sample.map_gradients),
            image=image,
            image_index=self._image_index,
            kernel_slice=self._kernel_slices.get(layer, "strongest"),
            depth=self._depths.get(layer, MIDDLE) if len(kernel_size(conv)) == 3 else None,
            weight_histogram=_encode_histogram(sample.weight_histogram),
            gradient_histogram=_encode_histogram(sample.gradient_histogram),
            prediction=self.predictions.last_prediction(context.step, context.version),
            before_edit=self.predictions.before_edit,
            after_edit=self.predictions.after_edit,
        )

    def _images_of_filters(self, layer: str, conv: Any) -> Callable[[Tensor], np.ndarray]:
        """Return the function that makes images of a layer's coefficients, as it was requested."""
        return functools.partial(
            filter_images,
            conv=conv,
            mean=self._kernel_slices.get(layer) == "mean",
            depth=self._depths.get(layer, MIDDLE),
            input_shape=self._recorder.input_shape(layer),
        )


def _first_image(context: BatchContext) -> Tensor | None:
    return None if context.images is None else context.images[0]


def _with_maps_of(detail: LayerDetail, other: LayerDetail) -> LayerDetail:
    return replace(
        detail,
        image=other.image,
        activations=other.activations,
        activation_gradients=other.activation_gradients,
    )


def _encode_histogram(histogram: ValueHistogram | None) -> Histogram | None:
    return None if histogram is None else Histogram(*histogram)


def _weight_view(
    features: np.ndarray | None, weight: Tensor | None, images_of: Callable[[Tensor], np.ndarray]
) -> FilterFeaturesAndImages:
    """The view of coefficients or of their gradients; features and images may be missing."""
    images = EMPTY if weight is None else images_of(weight.detach())
    return FilterFeaturesAndImages(EMPTY if features is None else features, images)


def _map_view(maps: np.ndarray | None) -> FilterFeaturesAndImages:
    """The view of activation maps (C, h, w): the maps are the images, their means the features."""
    if maps is None:
        return FilterFeaturesAndImages(EMPTY, EMPTY)
    height, width = maps.shape[1:]
    pixels = torch.from_numpy(maps).float()
    grid = (min(FEATURE_GRID, height), min(FEATURE_GRID, width))
    pooled = nn.functional.adaptive_avg_pool2d(pixels, grid)
    return FilterFeaturesAndImages(pooled.flatten(1).half().numpy(), maps)


def encode_image_as_float16(image: Tensor) -> np.ndarray:
    """Return an input (channels, H, W) as messages hold it: float16, downsampled if it is large.

    A signal (channels, L) is an image with one row per channel, a row of numbers (n,) is one with
    a single row. Of a volume (channels, D, H, W) it is the middle slice.
    """
    image = image.detach().float()
    if image.dim() == 4:
        image = image[:, slice_index(image.shape[1], MIDDLE)]
    elif image.dim() in (1, 2):
        image = torch.atleast_2d(image)
        # Every so-many-th value: a mean would cancel out an oscillation, or mix channels.
        rows, columns = (-(-size // MAX_IMAGE_SIDE) or 1 for size in image.shape)
        image = image[None, ::rows, ::columns]
    if image.dim() != 3 or not image.numel():
        return EMPTY
    largest = max(image.shape[-2:])
    if largest > MAX_IMAGE_SIDE:
        height, width = (
            max(1, round(side * MAX_IMAGE_SIDE / largest)) for side in image.shape[-2:]
        )
        image = nn.functional.adaptive_avg_pool2d(image, (height, width))
    return normalized_half(image)
