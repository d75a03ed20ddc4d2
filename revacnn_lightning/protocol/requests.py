"""What can be asked of a running training. Pure data: a request says what, never how.

Layers are named as in ``model.named_modules()``. Filters are indices into the layer's output
channels, valid for the structure version that the envelope (`messages.Request`) carries.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = [
    "AddFilters",
    "Command",
    "ControlRun",
    "Edit",
    "Freeze",
    "InsertLayer",
    "InspectFilter",
    "InspectLayer",
    "MergeFilters",
    "Reinitialize",
    "RemoveFilters",
    "RemoveLayer",
    "RequestBody",
    "SetFilter",
    "SetHyperparameter",
    "Slices",
    "Undo",
    "Unfreeze",
]

Slices = Literal["strongest", "mean"]  # of a filter: that of its strongest input, or their mean


class AddFilters(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Add ``count`` filters to a conv. The network's function stays as it is.

    New filters get fresh random coefficients and zero outgoing weights. With ``split_from`` they
    are copies of that filter instead, and the outgoing weights are shared out among the copies.
    """

    layer: str
    count: int = 1
    split_from: int | None = None


class RemoveFilters(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Remove these filters of a conv, and all that belongs to them elsewhere in the network."""

    layer: str
    filters: list[int]


class InsertLayer(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Insert a layer after a conv, keeping the function: a residual block or a Dirac conv."""

    after: str
    kind: Literal["residual", "dirac"] = "residual"


class RemoveLayer(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Replace a layer or a shape-preserving block by the identity, or by a strided 1x1 conv."""

    layer: str


class Freeze(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Keep these filters (``None``: the whole layer) exactly as they are while the rest trains."""

    layer: str
    filters: list[int] | None = None


class Unfreeze(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Let frozen filters (``None``: the whole layer) train again."""

    layer: str
    filters: list[int] | None = None


class Reinitialize(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Draw the coefficients of these filters anew, as the layer's own initialisation would."""

    layer: str
    filters: list[int]


class SetFilter(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Set a filter to the weighted mean of others (what dragging it in an embedding asks for).

    ``weights`` are relative, finite, non-negative, one per neighbour, not all zero.
    """

    layer: str
    filter: int
    neighbours: list[int]
    weights: list[float]


class MergeFilters(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Merge duplicate filters into the first: outgoing weights are added, the others removed."""

    layer: str
    filters: list[int]


class Undo(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Take back the last ``count`` edits that are not yet taken back, newest first."""

    count: int = 1


class ControlRun(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Steer the run rather than the network.

    ``hello``: send the current structure and status. ``pause``, ``resume``: hold before the next
    batch, go on. ``step``: train one batch and pause. ``checkpoint``: save one now. ``stop``: save
    one and end the training.
    """

    action: Literal["hello", "pause", "resume", "step", "checkpoint", "stop"]


class SetHyperparameter(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Set the learning rate or weight decay of one parameter group of one optimizer.

    A learning-rate schedule goes on in proportion: its shape stays, its scale is changed.
    """

    optimizer: int
    group: int
    name: Literal["lr", "weight_decay"]
    value: float


class InspectLayer(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send the details of a layer (`messages.Detail`) for the next few seconds.

    A viewer repeats this while it shows the layer; the interest expires when the viewer does.
    ``hz`` is the wish, the training may send less. ``image``: index into the validation data of
    the image whose maps are wanted; None: the first of the current batch. ``smoothed``: gradients
    averaged over about 20 batches rather than of the current one. ``slices``: what a picture shows
    of a filter whose input has another number of channels than three.
    """

    layer: str
    hz: float = 2.0
    image: int | None = None
    smoothed: bool = True
    slices: Slices = "strongest"


class InspectFilter(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send what a filter looks for (`messages.Inspection`) for the next few seconds.

    A viewer repeats this while it shows the filter; the interest expires when the viewer does.
    ``image``: index into the validation data of the image in which it is shown what excites the
    filter; None: the first of the current batch.
    """

    layer: str
    filter: int
    image: int | None = None


Edit = (
    AddFilters
    | RemoveFilters
    | InsertLayer
    | RemoveLayer
    | Freeze
    | Unfreeze
    | Reinitialize
    | SetFilter
    | MergeFilters
    | Undo
)
Command = ControlRun | SetHyperparameter | InspectLayer | InspectFilter
RequestBody = Edit | Command
