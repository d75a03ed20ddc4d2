"""What an edit will do, as pure data: made once, checked first, applied, stored, and replayed.

An `EditPlan` holds the request and every change resolved to names and indices, so that replaying
it needs neither example input nor trace. It is plain JSON-able data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct, field

from revacnn_lightning.protocol import messages, requests

__all__ = [
    "AttributeEdit",
    "EditPlan",
    "FilterMove",
    "FreezeEdit",
    "LayerEdit",
    "TensorEdit",
    "ValueEdit",
    "order_of",
    "runs_of",
]

# zero: columns that multiply a new channel; fresh: as the layer's own initialisation draws it;
# one: gains; copy: as the source; share: copies, with the source's value shared out among them
Fill = Literal["zero", "one", "fresh", "copy", "share"]


class TensorEdit(Struct):
    """One dimension of one parameter or buffer, re-ordered, shortened or lengthened.

    The new dimension consists of the old indices ``start <= i < stop`` of each of ``runs``, one
    after the other; the positions ``new`` among them are not survivors but new entries, made by
    ``fill`` from the old index they stand for.
    """

    tensor: str
    dim: int
    size: int  # before
    runs: list[tuple[int, int]]
    new: list[int] = field(default_factory=list)
    fill: Fill = "copy"


class FilterMove(Struct):
    """What happens to the filters of one conv, in the order of its output: as `TensorEdit`."""

    layer: str
    tensor: str  # the weight whose dimension ``dim`` holds the filters
    dim: int
    size: int
    runs: list[tuple[int, int]]
    new: list[int] = field(default_factory=list)


class ValueEdit(Struct):
    """Rows or columns of one tensor that get other values, at the same size.

    ``mean``: each of ``indices`` becomes the mean of ``sources`` by ``weights``; ``fresh``: as the
    layer's own initialisation draws it; ``add``: each gets the one of ``sources`` at the same
    place added.
    """

    tensor: str
    dim: int
    indices: list[int]
    action: Literal["mean", "fresh", "add"]
    sources: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


class AttributeEdit(Struct):
    """An integer attribute of a module that holds a number of channels.

    ``index`` names an entry of an attribute that is a list or a tuple; -1: the attribute itself.
    """

    module: str
    attribute: str
    old: int
    new: int
    index: int = -1


class LayerEdit(Struct):
    """A layer that is put into the network or taken out of it.

    ``insert``: a block of ``kind``, child ``child`` of ``host``, working on the host's output.
    ``replace``: the module ``host`` by an identity or by a strided 1x1 conv.
    """

    action: Literal["insert", "replace"]
    host: str
    kind: Literal["residual", "dirac", "identity", "conv"]
    child: str = ""
    channels: int = 0  # of the inserted block
    kernel: int = 3
    # where the parameters of the replaced layer stood: (name, optimizer, group, position)
    places: list[tuple[str, int, int, int]] = field(default_factory=list)


class FreezeEdit(Struct):
    """Filters that are kept as they are from now on, or trained again.

    ``norms`` are the batch norms that normalise the conv's output alone: a filter's entries there
    belong to it.
    """

    layer: str
    size: int  # filters of the layer
    indices: list[int]
    frozen: bool
    norms: list[str] = field(default_factory=list)


class EditPlan(Struct):
    """An edit, resolved. ``summary()`` is what a person reads before it is applied."""

    request: requests.Edit
    title: str
    values: list[ValueEdit] = field(default_factory=list)  # done first
    tensors: list[TensorEdit] = field(default_factory=list)
    filters: list[FilterMove] = field(default_factory=list)
    attributes: list[AttributeEdit] = field(default_factory=list)
    layers: list[LayerEdit] = field(default_factory=list)
    freezes: list[FreezeEdit] = field(default_factory=list)
    # After a layer came or went: the batch norms that go with each frozen layer now.
    norms: dict[str, list[str]] = field(default_factory=dict)
    sets: list[messages.FilterChange] = field(default_factory=list)
    why: str = ""
    parameters_before: int = 0
    parameters_after: int = 0
    macs_before: int = 0  # multiply-accumulates of one sample's forward; 0: not known
    macs_after: int = 0
    notes: list[str] = field(default_factory=list)

    def summary(self) -> messages.PlanSummary:
        return messages.PlanSummary(
            title=self.title,
            filter_changes=self.sets,
            coupling=self.why,
            parameters_before=self.parameters_before,
            parameters_after=self.parameters_after,
            macs_before=self.macs_before,
            macs_after=self.macs_after,
            notes=self.notes,
        )


def runs_of(order: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """An index array as maximal runs ``start <= i < stop``: few, where little was changed."""
    indices = np.asarray(order, int)
    if not len(indices):
        return []
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    starts = indices[np.concatenate([[0], cuts])]
    stops = indices[np.concatenate([cuts - 1, [len(indices) - 1]])] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def order_of(edit: TensorEdit | FilterMove) -> tuple[np.ndarray, np.ndarray]:
    """(old index of each position, whether the position is a new entry)."""
    order = np.concatenate([np.arange(a, b) for a, b in edit.runs] or [np.zeros(0, int)])
    new = np.zeros(len(order), bool)
    new[edit.new] = True
    return order, new
