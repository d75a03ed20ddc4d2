"""`EditPlan`: what an edit will do, as pure data that is checked, performed, stored and replayed.

A plan holds the request and every change resolved to names and indices, so replaying it needs
neither example input nor trace. It is plain JSON-able data. Checkpoints store it: a field
that is renamed keeps its stored name (``field(name=...)``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from msgspec import Struct, field

from revacnn_lightning.protocol import messages, requests

__all__ = [
    "ONES_OF_NORM",
    "AttributeEdit",
    "EditPlan",
    "FilterMove",
    "FreezeOrUnfreezeEdit",
    "LayerEdit",
    "RateEdit",
    "TensorEdit",
    "ValueEdit",
    "old_indices_and_new_mask",
    "split_into_runs",
]

# Tensors of a norm that start as ones; the others start as zeros.
ONES_OF_NORM = frozenset({"weight", "running_var"})

# How new entries start. "zero": columns that multiply a new channel; "fresh": random, as the
# layer's own initialization; "one": gains; "copy": like their source; "share": the value of the
# source is divided among it and its copies.
Fill = Literal["zero", "one", "fresh", "copy", "share"]


class TensorEdit(Struct):
    """Reorders, shortens or extends one dimension of one parameter or buffer.

    The new dimension consists of the old indices ``start <= i < stop`` of each of ``runs``, one
    run after the other. Those at the positions ``new`` are not survivors but new entries, which
    ``fill`` derives from the old index at their position. In a copy of another tensor, the
    ``origin``, fresh entries are those of the origin.

    Two gains of the weight norm whose direction the tensor is; see `execution.weight_gain`.
    ``gain``: its norms extend over ``dim``: it is rescaled. ``entry_gain``: it has an entry for
    each index of ``dim``: those of new filters are initialized.
    """

    tensor: str
    dim: int
    size: int  # before
    runs: list[tuple[int, int]]
    new: list[int] = field(default_factory=list)
    fill: Fill = "copy"
    gain: str = ""
    entry_gain: str = ""
    origin: str = ""


class FilterMove(Struct):
    """How the filters of one conv move, in the order of its output; see `TensorEdit`."""

    layer: str
    tensor: str  # the weight whose dimension ``dim`` holds the filters
    dim: int
    size: int
    runs: list[tuple[int, int]]
    new: list[int] = field(default_factory=list)


class ValueEdit(Struct):
    """Changes the values of rows or columns of one tensor, at the same size.

    ``mean``: each of ``indices`` becomes the mean of ``sources`` weighted by ``weights``.
    ``fresh``: random values, as the layer's own initialization. ``start``: what a new norm has: one
    for the gain and the running variance, else zero. ``zero``: zeros. ``add``: the
    entry of ``sources`` at the same position is added, times that of ``weights`` if there are any.
    In a copy of ``origin``, fresh values are
    those of the origin. ``gain``: as in `TensorEdit`.
    """

    tensor: str
    dim: int
    indices: list[int]
    action: Literal["mean", "fresh", "start", "zero", "add"]
    sources: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    gain: str = ""
    origin: str = ""


class AttributeEdit(Struct):
    """Changes an integer attribute of a module that holds a number of channels.

    ``index``: the entry of an attribute that is a list or a tuple; -1: the attribute itself.
    """

    module: str
    attribute: str
    old: int
    new: int
    index: int = -1
    origin: str = ""


class LayerEdit(Struct):
    """Inserts a layer into the network or removes one.

    ``insert``: a block of ``kind`` becomes the child ``child`` of ``host``, which
    runs it on its output.
    ``replace``: an identity or a strided 1x1 conv replaces the module ``host``.
    ``origin``: the host that this host is a copy of.
    """

    action: Literal["insert", "replace"]
    host: str
    kind: Literal["residual", "dirac", "identity", "conv"]
    child: str = ""
    channels: int = 0  # of the inserted block
    kernel: int = 3
    dims: int = 2  # of the kernel; 0: the block has a linear layer
    # of the parameters of the replaced layer: (name, optimizer, group, position)
    positions: list[tuple[str, int, int, int]] = field(default_factory=list, name="places")
    origin: str = ""


class FreezeOrUnfreezeEdit(Struct):
    """Freezes filters, or lets them train again.

    ``norms``: the batch norms that normalize only this conv's output; their entries for a filter
    freeze with it.
    """

    layer: str
    size: int  # filters of the layer
    indices: list[int]
    frozen: bool
    norms: list[str] = field(default_factory=list)


class RateEdit(Struct):
    """Multiplies the learning rate of a layer by ``factor``; it replaces an earlier factor.

    ``norms``: the batch norms that normalize only this layer's output; their rates are scaled, too.
    """

    layer: str
    size: int  # filters of the layer
    factor: float
    norms: list[str] = field(default_factory=list)


class EditPlan(Struct):
    """A resolved edit. ``summary()`` is what a person reads before it is applied."""

    request: requests.Edit
    title: str
    values: list[ValueEdit] = field(default_factory=list)  # performed first
    tensors: list[TensorEdit] = field(default_factory=list)
    filters: list[FilterMove] = field(default_factory=list)
    attributes: list[AttributeEdit] = field(default_factory=list)
    layers: list[LayerEdit] = field(default_factory=list)
    freezes: list[FreezeOrUnfreezeEdit] = field(default_factory=list)
    rates: list[RateEdit] = field(default_factory=list)
    # After a layer was inserted or removed: the batch norms that are frozen with each frozen layer,
    # or scaled with the rate of a layer.
    norms: dict[str, list[str]] = field(default_factory=dict)
    filter_changes: list[messages.FilterChange] = field(default_factory=list, name="sets")
    coupling: str = field(default="", name="why")  # why the edit changes several layers
    parameters_before: int = 0
    parameters_after: int = 0
    macs_before: int = 0  # multiply-accumulates of one sample's forward; 0: unknown
    macs_after: int = 0
    output_effect: str = ""  # as in `messages.PlanSummary`
    confirmation: str = ""  # as in `messages.PlanSummary`
    is_mixing: bool = False  # new channels change others: the change of the output is measured
    is_choice: bool = False  # other filters could be edited along as well
    notes: list[str] = field(default_factory=list)

    @property
    def changes_tensors(self) -> bool:
        """Whether the edit does more than to freeze filters, or to scale learning rates."""
        return bool(self.values or self.tensors or self.attributes or self.layers)

    def require_confirmation(self, reason: str) -> None:
        """Refuse the edit, for this reason, unless its request is confirmed."""
        self.confirmation = "; ".join(filter(None, [self.confirmation, reason]))

    def summary(self) -> messages.PlanSummary:
        """Return the part of the plan that is sent to viewers."""
        return messages.PlanSummary(
            title=self.title,
            filter_changes=self.filter_changes,
            coupling=self.coupling,
            parameters_before=self.parameters_before,
            parameters_after=self.parameters_after,
            macs_before=self.macs_before,
            macs_after=self.macs_after,
            output_effect=self.output_effect,
            confirmation=self.confirmation,
            notes=self.notes,
        )


def split_into_runs(order: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """Split an index array into maximal runs ``start <= i < stop``: few if little was changed."""
    indices = np.asarray(order, int)
    if not len(indices):
        return []
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    starts = indices[np.concatenate([[0], cuts])]
    stops = indices[np.concatenate([cuts - 1, [len(indices) - 1]])] + 1
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def old_indices_and_new_mask(edit: TensorEdit | FilterMove) -> tuple[np.ndarray, np.ndarray]:
    """Return the old index of each position after an edit, and whether it is a new entry."""
    order = np.concatenate([np.arange(a, b) for a, b in edit.runs] or [np.zeros(0, int)])
    new = np.zeros(len(order), bool)
    new[edit.new] = True
    return order, new
