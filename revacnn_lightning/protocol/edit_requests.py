"""The requests that change the network or its rates. `requests` exports them with all others.

Checkpoints store edits, so the tags and the encoded field names of edits never change.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

__all__ = [
    "AddFilters",
    "Edit",
    "Freeze",
    "InsertLayer",
    "MergeFilters",
    "NetworkEdit",
    "Redo",
    "Reinitialize",
    "RemoveFilters",
    "RemoveLayer",
    "ScaleLearningRate",
    "SetFilter",
    "SetGradientClipping",
    "SetHyperparameter",
    "SettingCommand",
    "Undo",
    "Unfreeze",
]


class AddFilters(Struct, frozen=True, tag=True, forbid_unknown_fields=True, omit_defaults=True):
    """Add ``count`` filters to a layer without changing the network's function.

    New filters get random coefficients and zero outgoing weights. With ``split_from`` they are
    copies of that filter instead, and all copies share its outgoing weights. With ``directed``, up
    to four get the directions that lower the loss fastest; `InspectGrowth` must have found them for
    the present network.

    Behind a group norm, whole groups are added: the nearest possible number to ``count``. Where a
    norm mixes the new filters with others, the function changes. Such a request is refused with
    the measured change, unless it is ``confirmed``.
    """

    layer: str
    count: int = 1
    split_from: int | None = None
    confirmed: bool = False
    directed: bool = False


class RemoveFilters(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Remove filters of a layer, and all channels coupled with them.

    A request whose plan has a ``confirmation`` is refused unless it is ``confirmed``.
    """

    layer: str
    filters: list[int]
    confirmed: bool = False


class InsertLayer(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Insert a residual block, or a layer that starts as the identity (``dirac``), after a layer.

    Neither changes the network's function. The layers are of the kind of the one before them.
    """

    after: str
    kind: Literal["residual", "dirac"] = "residual"


class RemoveLayer(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Replace a layer or a shape-preserving block by an identity or a strided 1x1 convolution."""

    layer: str


class Freeze(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Keep filters constant while the rest trains. Without ``filters``, freeze the whole layer."""

    layer: str
    filters: list[int] | None = None


class Unfreeze(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Train frozen filters again. Without ``filters``, unfreeze the whole layer."""

    layer: str
    filters: list[int] | None = None


class ScaleLearningRate(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Train a layer with ``factor`` times the learning rate of its optimizer.

    The factor applies to whatever the rate is, also after a schedule has changed it; 1 restores it.
    The rates of the batch norms that normalize only this layer are scaled along.
    """

    layer: str
    factor: float


class Reinitialize(Struct, frozen=True, tag=True, forbid_unknown_fields=True, omit_defaults=True):
    """Reinitialize the coefficients of filters as ``reset_parameters`` of the layer does.

    With ``zero_outgoing``, their outgoing weights become zero, as those of new filters, unless
    other filters share them; the plan says which is the case. Then the network's output loses what
    these filters contributed, and does not change if they were silent.
    """

    layer: str
    filters: list[int]
    zero_outgoing: bool = True


class SetFilter(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Set a filter to the weighted mean of other filters of its layer.

    ``weights`` are relative, finite and non-negative, one per neighbor, and not all zero.
    """

    layer: str
    filter: int
    neighbors: list[int] = field(name="neighbours")
    weights: list[float]


class MergeFilters(Struct, frozen=True, tag=True, forbid_unknown_fields=True, omit_defaults=True):
    """Merge filters into the first: add up their outgoing weights and remove the others.

    Each filter's activation is a multiple of the first one's: ``scales`` are these factors, as in
    `TwinEvidence`, and the outgoing weights are multiplied by them. Without ``scales``, all are 1.
    A request whose plan has a ``confirmation`` is refused unless it is ``confirmed``.
    """

    layer: str
    filters: list[int]
    scales: list[float] = field(default_factory=list)
    confirmed: bool = False


class Undo(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Undo the last ``count`` edits that are not undone yet, newest first."""

    count: int = 1


class Redo(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Redo the last ``count`` undone edits, the one that was undone last first.

    What an undo removed returns with the values and the optimizer state that it had then; all else
    keeps what was trained since. A new edit discards the undone ones.
    """

    count: int = 1


class SetHyperparameter(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Set the learning rate or the weight decay of one parameter group of one optimizer.

    Learning rate schedules continue from the new value: all later rates are scaled by the same
    factor. A rate whose schedule cannot be scaled is refused.
    """

    optimizer: int
    group: int
    name: Literal["lr", "weight_decay"]
    value: float


class SetGradientClipping(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Clip the gradients before each step of an optimizer, or stop clipping them.

    ``norm`` scales all gradients of an optimizer so that their norm together is at most ``value``;
    ``value`` limits each of their components. A ``value`` of 0 or None clips nothing. With
    ``dry_run``, the reply says what the training clips at present.
    """

    value: float | None
    algorithm: Literal["norm", "value"] = "norm"


SettingCommand = SetHyperparameter | SetGradientClipping
NetworkEdit = (
    AddFilters
    | RemoveFilters
    | InsertLayer
    | RemoveLayer
    | Freeze
    | Unfreeze
    | ScaleLearningRate
    | Reinitialize
    | SetFilter
    | MergeFilters
)
Edit = NetworkEdit | Undo | Redo
