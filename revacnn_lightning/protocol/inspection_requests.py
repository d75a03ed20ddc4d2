"""The requests of what a run sends only while a viewer shows it. They change nothing.

`requests` exports them with all others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = [
    "MAX_CHUNK_BYTES",
    "MAX_PATCHES",
    "MAX_PICTURE_SIDE",
    "InspectClass",
    "InspectClasses",
    "InspectEvidence",
    "InspectFilter",
    "InspectGrowth",
    "InspectImage",
    "InspectLayer",
    "InspectPrices",
    "InspectRanks",
    "Inspection",
    "KernelSlice",
    "OwnIndex",
    "PaintImage",
    "Patch",
    "ShowPicture",
    "Viewing",
]

MAX_PICTURE_SIDE = 320  # pixels of a picture that a viewer sends
MAX_CHUNK_BYTES = 30_000  # of its pixels in a request
MAX_PATCHES = 256  # of one image

# The 2D slice of a filter that an image shows: of its strongest input channel, or the mean of all.
KernelSlice = Literal["strongest", "mean"]


class InspectLayer(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `inspections.LayerDetail` of a layer for the next few seconds.

    A viewer repeats this request while it shows the layer.

    ``updates_per_second`` is an upper limit. ``image_index`` selects the image of the validation
    data whose activation maps are sent, or with a negative index an image of `ShowPicture` or
    `PaintImage`; None: the first image of the current batch.
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

    A viewer repeats this request while it shows the filter. ``image_index`` selects the image to
    attribute the filter's response to, as in `InspectLayer`. With an ``ascent`` other than 0, the
    image that the filter responds to most is searched; a larger number starts the search again.
    ``depth`` selects the slice that is sent of volumes, from 0 for the first to 1 for the last.
    """

    layer: str
    filter: int
    image_index: int | None = None
    ascent: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    depth: Annotated[float, Meta(ge=0, le=1)] = 0.5


class InspectImage(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `inspections.ImagePass` for the next few seconds: an input on its way to the output.

    A viewer repeats this request while it shows the network. ``image_index`` selects the image, as
    in `InspectLayer`; None: the first input of the current batch. ``known_modules`` is the
    structure version whose modules the viewer knows: those of another version are sent along.
    """

    image_index: int | None = None
    known_modules: int = -1


# Of an image that a viewer makes. The run keeps the last few of them.
OwnIndex = Annotated[int, Meta(ge=-(2**31), le=-1)]


class ShowPicture(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send a picture as an input image of the network.

    The picture is sent in as many requests as it needs. ``size`` is its height and width, at most
    320 each, and ``pixels`` are whole rows of it, from ``first_row``: red, green and blue of each
    pixel, one byte each. Once all rows have arrived, the picture is prepared as the validation data
    is, or fitted to the size and the values of the images of the batch. Inspections select it by
    its ``index``, a negative number that the viewer chooses.
    """

    index: OwnIndex
    size: tuple[int, int]
    first_row: int
    pixels: Annotated[bytes, Meta(max_length=MAX_CHUNK_BYTES)]


class Patch(Struct, frozen=True, forbid_unknown_fields=True):
    """A rectangle of an image, whose edges are shares of its height and width, from 0 to 1.

    ``color`` is red, green and blue from 0 to 255; None erases the patch: it gets the mean of each
    channel of the image.
    """

    top: float
    left: float
    bottom: float
    right: float
    color: tuple[int, int, int] | None = None


class PaintImage(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Make an image of another one by painting patches over it, or by erasing them.

    ``source`` is the index of the other image; None selects the input of the batch that was shown
    last.
    Inspections select the new image by its ``index``, as in `ShowPicture`.
    """

    index: OwnIndex
    source: int | None = None
    patches: Annotated[list[Patch], Meta(max_length=MAX_PATCHES)] = []


class InspectPrices(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `prices.FilterPrices` for the next few seconds: what removing each filter costs.

    A viewer repeats this request while it shows them. The change of the loss on removing each of
    ``filters`` of ``layer`` alone is measured first.
    """

    layer: str = ""
    filters: list[int] = []


class InspectClasses(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `class_lens.ClassLens` of a layer for the next few seconds: what each class does to it.

    A viewer repeats this request while it shows the layer.
    """

    layer: str


class InspectClass(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `class_lens.ClassAnswers` for the next few seconds: how all filters answer to a class.

    A viewer repeats this request while it shows them. All viewers share one class: the last one
    that was requested.
    """

    class_index: Annotated[int, Meta(ge=0, lt=2**31)]


class InspectEvidence(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `evidence.LayerEvidence` of one layer after another for the next few seconds.

    A viewer repeats this request while it shows verdicts. ``layer`` is examined first.
    """

    layer: str = ""


class InspectGrowth(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `growth.GrowthGains` once: where one more filter would lower the loss most."""


class InspectRanks(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send `rank_messages.RankValues` of ``layer`` each second, for the next few seconds.

    A viewer repeats this request while it shows them. Only a training with several processes has
    ranks to compare.
    """

    layer: str


Inspection = (
    InspectLayer
    | InspectFilter
    | InspectImage
    | InspectPrices
    | InspectEvidence
    | InspectGrowth
    | InspectClasses
    | InspectClass
    | InspectRanks
)
Viewing = Inspection | ShowPicture | PaintImage  # change nothing but what viewers are sent
