"""Every message that crosses the wire. How they become frames, and back: `encoding`."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct, field

from revacnn_lightning.protocol.requests import RequestBody, Slices

__all__ = [
    "PROTOCOL_VERSION",
    "Applied",
    "Done",
    "FilterInspection",
    "FilterSet",
    "FilterView",
    "Layer",
    "LayerDetail",
    "Message",
    "ParameterGroup",
    "PlanSummary",
    "Planned",
    "Refused",
    "Reply",
    "Request",
    "Snapshot",
    "Status",
    "Structure",
    "TopImage",
]

# Raised when an old reader could misunderstand a new message. New fields with defaults, new
# messages and new requests do not raise it: both sides ignore what they do not know.
PROTOCOL_VERSION = 1


class Layer(Struct, frozen=True):
    """One conv of the network, as a viewer needs to know it.

    ``ids`` names each filter for life: a filter keeps its id when edits move its index.
    ``activation_of`` says what the statistic ``activation`` is the sum of: the module whose
    output it is (``"relu1"``), or ``""`` for the absolute values of the conv's own output.
    ``refused`` is why no filter of the layer can be added or removed, ``""`` if they can.
    """

    name: str
    kind: str  # class name: Conv2d, ConvTranspose2d
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    ids: list[int]
    frozen: list[int] = field(default_factory=list)  # indices of frozen filters
    activation_of: str = ""
    observed: bool = True  # False: no statistics reach us, e.g. inside a compiled region
    refused: str = ""


class Structure(Struct, frozen=True, tag="structure"):
    """The network as it is now. ``layers`` in forward order; ``edges`` are (from, to) indices."""

    run: str  # identifies this training process's run; a new one means: forget what you knew
    version: int  # raised by one with every edit
    step: int
    model: str
    layers: list[Layer]
    edges: list[tuple[int, int]] = field(default_factory=list)
    parameters: int = 0  # trainable and frozen, of the whole model


class Snapshot(Struct, frozen=True, tag="snapshot"):
    """What one training batch told us.

    ``values`` is float32 of shape (len(statistics), number of filters): the filters of all
    layers of structure ``version``, one layer after the other in the structure's order. NaN where
    nothing was measured in this batch; ``every`` says on every how manyth batch a statistic is.
    """

    run: str
    version: int
    step: int  # batches trained since the start of fit, counting every micro-batch
    epoch: int
    batch: int  # within the epoch
    batches: int  # in an epoch; 0 if unknown
    epochs: int  # planned; 0 if unknown
    time: float  # seconds since the epoch (Unix), when published
    loss: float | None
    learning_rates: list[float]
    batches_per_second: float
    statistics: list[str]
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    metrics: dict[str, float] = field(default_factory=dict)  # what the module logged
    every: list[int] = field(default_factory=list)  # of each of ``statistics``; empty: 1
    nonfinite: bool = False  # inf or NaN among the gradients of this batch


class FilterView(Struct, frozen=True):
    """One way of looking at the filters of a layer.

    ``features`` (C, d), d <= 64: a fixed random projection of what is looked at, for embeddings;
    ``images`` (C, h, w) or, for three input channels, (C, h, w, 3): for thumbnails, unscaled.
    Either may be of shape (0,) where the training cannot tell.
    """

    features: np.ndarray
    images: np.ndarray


class LayerDetail(Struct, frozen=True, tag="detail"):
    """An opened layer. Rows in the order of the filters of structure ``version``."""

    run: str
    version: int
    step: int
    layer: str
    coefficients: FilterView
    gradients: FilterView
    activations: FilterView
    activation_gradients: FilterView
    image: np.ndarray  # the input image, (channels, H, W)
    image_index: int | None = None  # into the validation data; None: first of the batch
    label: str = ""
    slices: Slices = "strongest"  # that the images of coefficients and gradients show


class TopImage(Struct, frozen=True):
    """A training image that excites a filter.

    ``crop`` uint8 (1 or 3, h, w): what the unit that responds most sees of the image, scaled to
    the image's own range, and down where it is large. ``box``: top, left, bottom, right of that,
    in pixels of the image, whose ``size`` is (H, W). ``step``: the batch that it was in.
    """

    crop: np.ndarray
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    response: float
    step: int


class FilterInspection(Struct, frozen=True, tag="inspection"):
    """What a filter looks for; ``filter`` is its index in structure ``version``.

    ``finds``: the training images of recent batches that excite it most, the strongest first, nine
    at most; ``finds_refused``: what is to be said of them, why there are none or not cropped.

    ``image`` is the shown one as in `LayerDetail`, and ``size`` that of the original. The strongest
    ``response`` to it comes from what lies in ``box`` of the original. ``deconvolution`` and
    ``guided`` (channels, h, w) tell of these pixels how they excite the filter, float16 of at most
    1 in magnitude; of shape (0,) where that cannot be told, for the reason ``refused``.
    """

    run: str
    version: int
    step: int
    layer: str
    filter: int
    image: np.ndarray
    deconvolution: np.ndarray
    guided: np.ndarray
    top_images: list[TopImage] = field(default_factory=list)
    top_images_refused: str = ""
    receptive_field: tuple[int, int] = (
        0,
        0,
    )  # height and width of the receptive field; (0, 0): not known
    response: float | None = None
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] = (0, 0)
    image_index: int | None = None  # into the validation data; None: first of the batch
    refused: str = ""


class ParameterGroup(Struct, frozen=True):
    """Hyper-parameters of one parameter group as they are now; None: the optimizer has none."""

    optimizer: int
    group: int
    kind: str  # the optimizer's class name
    parameters: int
    learning_rate: float | None = None
    weight_decay: float | None = None


class Status(Struct, frozen=True, tag="status"):
    """What the run is doing; sent on every change, and about once a second in between."""

    run: str
    state: Literal["training", "validating", "paused", "finished", "failed"]
    step: int
    version: int
    time: float
    detail: str = ""
    groups: list[ParameterGroup] = field(default_factory=list)


class FilterSet(Struct, frozen=True):
    """Filters of one layer that an edit removes (``filters``) or adds (``count``)."""

    layer: str
    filters: list[int] = field(default_factory=list)
    count: int = 0


class PlanSummary(Struct, frozen=True):
    """What an edit does, in words and numbers, for a person to read before Apply."""

    title: str  # "Remove conv2 · filter 36"
    sets: list[FilterSet] = field(default_factory=list)
    why: str = ""  # why several go together: "one per group: 32"
    parameters_before: int = 0
    parameters_after: int = 0
    macs_before: int = 0  # multiply-accumulates of one sample's forward; 0: not known
    macs_after: int = 0
    notes: list[str] = field(default_factory=list)  # "Adafactor's state cannot be kept exactly"


class Request(Struct, frozen=True, tag="request"):
    """The envelope of a request. ``version``: the structure its indices mean; None: any."""

    id: str
    body: RequestBody
    version: int | None = None
    dry_run: bool = False
    protocol: int = PROTOCOL_VERSION


class Planned(Struct, frozen=True, tag="planned"):
    """Answer to a dry run."""

    id: str
    plan: PlanSummary


class Applied(Struct, frozen=True, tag="applied"):
    """The request was carried out, between the batches ``step - 1`` and ``step``."""

    id: str
    step: int
    version: int
    plan: PlanSummary
    output_change: float | None = None  # relative change of the output on the verifying batch
    seconds: float = 0.0


class Done(Struct, frozen=True, tag="done"):
    """A command (pause, checkpoint, learning rate, ...) was carried out."""

    id: str
    detail: str = ""  # "Saved revacnn/step=120.ckpt"


class Refused(Struct, frozen=True, tag="refused"):
    """The request was not carried out, nothing was changed."""

    id: str
    reason: str
    version: int = -1  # the structure version now; -1 if unknown


Reply = Planned | Applied | Done | Refused
Message = Structure | Snapshot | LayerDetail | FilterInspection | Status | Request | Reply
