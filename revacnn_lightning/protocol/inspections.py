"""What a run sends of an opened layer and of a selected filter, while a viewer shows them."""

from __future__ import annotations

import numpy as np
from msgspec import Struct, field

from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.requests import KernelSlice

__all__ = [
    "ClassScore",
    "FilterFeaturesAndImages",
    "FilterInspection",
    "FilterlessModule",
    "Histogram",
    "ImagePass",
    "ImagePrediction",
    "Inspected",
    "LayerDetail",
    "PreferredImage",
    "TopImage",
    "VolumeSlice",
]


class Histogram(Struct, frozen=True):
    """How the values of a layer are distributed around zero.

    ``counts`` are those of bins of equal width from ``-limit`` to ``limit``; the outer bins also
    count what lies beyond. A ``limit`` of 0 means that all values are zero. Of a large layer, an
    even sample of its values is counted. ``nonfinite`` values are in no bin.
    """

    counts: np.ndarray
    limit: float
    nonfinite: int = 0


class ClassScore(Struct, frozen=True):
    """The probability of a class, by its index among the model's outputs. ``name`` may be ""."""

    index: int
    probability: float
    name: str = ""


class ImagePrediction(Struct, frozen=True):
    """What the model predicts for an image: the most probable classes, and the true one.

    ``classes`` come most probable first; those of an `ImagePass` come in the order of their indices
    if they are few enough for all of them. ``truth`` is the class of the image in the data with the
    probability that the model gives it; None if the data does not say. ``note`` says why there are
    no ``classes``.
    """

    step: int
    version: int
    classes: list[ClassScore] = field(default_factory=list)
    truth: ClassScore | None = None
    note: str = ""


class FilterFeaturesAndImages(Struct, frozen=True):
    """Feature vectors and thumbnails of all C filters of a layer, for one view of it.

    ``features`` (C, d), d <= 64, is a fixed random projection, used for embeddings. ``images``
    (C, h, w), or (C, h, w, 3) for three input channels, is used for thumbnails and is not
    normalized. Sequences are one row; of volumes it is one slice. Either has shape (0,) if it is
    not available.
    """

    features: np.ndarray
    images: np.ndarray


class LayerDetail(Struct, frozen=True, tag="layer_detail"):
    """Details of an opened layer, one row per filter of structure ``version``."""

    run: str
    version: int
    step: int
    layer: str
    coefficients: FilterFeaturesAndImages
    gradients: FilterFeaturesAndImages
    activations: FilterFeaturesAndImages
    activation_gradients: FilterFeaturesAndImages
    image: np.ndarray  # the input image, (channels, H, W)
    image_index: int | None = None  # as requested; None: first image of the batch
    # What the images of the coefficients and of the gradients show.
    kernel_slice: KernelSlice = "strongest"
    depth: float | None = None  # of the slice of a three-dimensional layer, as in `InspectLayer`
    weight_histogram: Histogram | None = None
    gradient_histogram: Histogram | None = None  # of this batch alone; None while paused
    # Of the chosen image. ``before_edit`` and ``after_edit``: directly before and after the newest
    # edit since the image was chosen.
    prediction: ImagePrediction | None = None
    before_edit: ImagePrediction | None = None
    after_edit: ImagePrediction | None = None


class VolumeSlice(Struct, frozen=True):
    """Which slice of a volume is sent: number ``index`` of ``count``.

    The box reaches from slice ``front`` up to ``back``, which it does not contain. ``index`` is one
    of its slices.
    """

    index: int
    count: int
    front: int
    back: int


class TopImage(Struct, frozen=True):
    """A training image that strongly activates a filter.

    ``crop`` is uint8 (1 or 3, h, w): the receptive field of the unit with the strongest response,
    normalized to the range of the image and downsampled if it is large. ``box`` is its (top, left,
    bottom, right) in pixels of the image, and ``image_size`` the image's (H, W). ``step`` is the
    training batch that contained the image.

    Where the inputs are signals, it is one, with a height of 1: ``crop`` is (channels, 1, l). Where
    they are volumes, ``crop`` is a slice, and ``volume`` says which.
    """

    crop: np.ndarray
    box: tuple[int, int, int, int]
    image_size: tuple[int, int]
    response: float
    step: int
    volume: VolumeSlice | None = None


class PreferredImage(Struct, frozen=True):
    """The image that a filter responds to most, as far as gradient ascent has found it.

    ``pixels`` (channels, h, w), float16 of magnitude at most 1, are those of ``box`` (top, left,
    bottom, right), the receptive field of a unit in the middle of the map. Its ``response``, before
    the non-linearity, has increased for ``steps``; after ``total_steps`` the image hardly changes.

    Where the inputs are signals, it is one, with a height of 1. Where they are volumes, ``pixels``
    are a slice, and ``volume`` says which.
    """

    pixels: np.ndarray
    box: tuple[int, int, int, int]
    response: float
    steps: int
    total_steps: int
    volume: VolumeSlice | None = None


def _nothing() -> np.ndarray:
    return np.zeros(0, np.float16)


class FilterInspection(Struct, frozen=True, tag="filter_inspection"):
    """What activates filter number ``filter`` of a layer of structure ``version``.

    ``top_images`` holds up to nine training images of recent batches, strongest response first.
    ``top_images_note`` says why there are none, or why they are not cropped.

    ``image`` is the input image, float16 (channels, h, w) of magnitude at most 1, downsampled if it
    is large; the original has ``image_size``. The strongest ``response`` to it originates from
    ``box`` of the original. ``deconvolution`` and ``guided_backpropagation`` (channels, h, w)
    attribute the response to these pixels, as float16 of magnitude at most 1. Their shape is (0,)
    if there is no attribution, for the reason in ``attribution_refusal``.

    A signal is an image with a height of 1, and ``response_map`` is then the filter's map (l,) of
    it, float16 of magnitude at most 1. Of a volume, everything is a slice: ``volume`` says which
    one of the input, and its attribution is that of these pixels. It lies in the box, whose slices
    ``depth`` of the request runs through.
    """

    run: str
    version: int
    step: int
    layer: str
    filter: int
    image: np.ndarray
    deconvolution: np.ndarray
    guided_backpropagation: np.ndarray
    top_images: list[TopImage] = field(default_factory=list)
    top_images_note: str = ""
    receptive_field: tuple[int, int] = (0, 0)  # height, width; (0, 0) if unknown
    response: float | None = None
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    image_size: tuple[int, int] = (0, 0)
    image_index: int | None = None  # as requested; None: first image of the batch
    attribution_refusal: str = ""
    preferred: PreferredImage | None = None  # if the request has an ``ascent``
    preferred_refusal: str = ""  # why there is no such image
    response_map: np.ndarray = field(default_factory=_nothing)
    volume: VolumeSlice | None = None
    receptive_field_depth: int = 1  # of a volume, in slices
    depth: float = 0.5  # as requested


class FilterlessModule(Struct, frozen=True):
    """A module without filters that an input passes: pooling, normalization, attention, linear.

    ``after`` is the layer whose output it receives; of several, the last one; "" is the input.
    The shapes are those of the first tensor that it receives and returns, without the batch's
    dimension.
    """

    name: str
    module_type: str  # class name
    after: str
    input_shape: list[int]
    output_shape: list[int]


class ImagePass(Struct, frozen=True, tag="image_pass"):
    """An input on its way through the network, whose modules are in evaluation mode.

    ``image`` is float16 of magnitude at most 1, downsampled if it is large: an image (channels, H,
    W), a signal (channels, length), values (features,), or the middle slice of a volume; of shape
    (0,) if there is none, for the reason in ``input_note``. ``input_shape`` is that of the input
    itself. ``channel_sums`` has Σ |pixel| of each channel of at most 512.

    ``prediction`` has all classes in their order if they are few, else the most probable ones.
    ``class_count`` is the number of classes that the model knows; without class scores it is 0, and
    ``output_shapes`` are the shapes of the first tensors that it returns, without the batch's
    dimension. ``loss`` is the cross-entropy -ln p of the true class. Of a network that returns a
    map of scores for each class, ``class_map_shape`` is that of a map, and a probability is the
    mean over its positions.

    ``readers`` are the layers that read the input, and ``output_layers`` those from whose outputs
    alone the model's output is computed. If the model cannot be run on the input alone, they are
    those of the training step; ``generated`` is then, encoded as ``image``, an image that the
    step's networks compute and read again. ``modules`` are in the order of their calls; None: the
    viewer knows them.
    """

    run: str
    version: int
    step: int
    image: np.ndarray
    image_index: int | None = None  # as requested; None: first input of the batch
    input_shape: list[int] = field(default_factory=list)
    channel_sums: list[float] = field(default_factory=list)
    input_note: str = ""
    image_note: str = ""  # how a picture of a viewer was prepared
    prediction: ImagePrediction | None = None
    class_count: int = 0
    class_names_note: str = ""  # why the names of the classes that the user gave are not used
    loss: float | None = None
    output_shapes: list[list[int]] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    output_layers: list[str] = field(default_factory=list)
    modules: list[FilterlessModule] | None = None
    generated: np.ndarray | None = None
    class_map_shape: list[int] = field(default_factory=list)


Inspected = (
    LayerDetail
    | FilterInspection
    | ImagePass
    | FilterPrices
    | LayerEvidence
    | GrowthGains
    | ClassLens
    | ClassAnswers
    | Confusion
    | RankValues
)
