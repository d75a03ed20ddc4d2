"""The requests of what a run sends only while a viewer shows it. They change nothing.

`requests` exports them with all others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "InspectFilter",
    "InspectImage",
    "InspectLayer",
    "InspectPrices",
    "Inspection",
    "KernelSlice",
]

# The 2D slice of a filter that an image shows: of its strongest input channel, or the mean of all.
KernelSlice = Literal["strongest", "mean"]


class InspectLayer(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `inspections.LayerDetail` of a layer for the next few seconds.

    A viewer repeats this request while it shows the layer.

    ``updates_per_second`` is an upper limit. ``image_index`` selects the image of the validation
    data whose activation maps are sent; None: the first image of the current batch.
    ``smooth_gradients`` averages gradients over about 20 batches. ``kernel_slice`` selects what
    the image of a filter shows if its number of input channels is not three. ``depth`` selects the
    slice of three-dimensional kernels and maps, from 0 for the first to 1 for the last.
    """

    layer: str
    updates_per_second: float = 2.0
    image_index: int | None = None
    smooth_gradients: bool = True
    kernel_slice: KernelSlice = "strongest"
    depth: Annotated[float, Meta(ge=0, le=1)] = 0.5


class InspectFilter(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `inspections.FilterInspection` of a filter for the next few seconds.

    A viewer repeats this request while it shows the filter. ``image_index`` selects the image of
    the validation data to attribute the filter's response to; None: the first image of the batch.
    """

    layer: str
    filter: int
    image_index: int | None = None


class InspectImage(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `inspections.ImagePass` for the next few seconds: an input on its way to the output.

    A viewer repeats this request while it shows the network. ``image_index`` selects the image of
    the validation data; None: the first input of the current batch. ``known_modules`` is the
    structure version whose modules the viewer knows: those of another version are sent along.
    """

    image_index: int | None = None
    known_modules: int = -1


class InspectPrices(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `prices.FilterPrices` for the next few seconds: what removing each filter costs.

    A viewer repeats this request while it shows them. The change of the loss on removing each of
    ``filters`` of ``layer`` alone is measured first.
    """

    layer: str = ""
    filters: list[int] = []


Inspection = InspectLayer | InspectFilter | InspectImage | InspectPrices
