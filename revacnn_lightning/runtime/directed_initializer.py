"""Gives new filters the direction in which they lower the loss fastest, after they were added."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.requests import AddFilters, Edit
from revacnn_lightning.runtime.growth_gains import GrowthGainCollector
from revacnn_lightning.steering import Editor, EditPlan
from revacnn_lightning.steering.planning.plan import old_indices_and_new_mask
from revacnn_lightning.telemetry.unit_layers import is_transposed

__all__ = ["DirectedInitializer"]

UNKNOWN = "its growth gain is not known for the present network; request the growth gains first"
SEVERAL = "in several processes, new filters cannot be given a direction"
COMPUTED = "the weight of {layer} is computed from others, so it cannot be given a direction"
SPLIT = "a filter that is split from another one keeps the direction of that one"
MIXED = "a norm mixes the new filters with others"


class DirectedInitializer:
    """Initializes the filters that ``AddFilters(directed=True)`` adds.

    Each new filter gets the direction in which it lowers the loss fastest.

    The new filters have outgoing weights of zero, so their own coefficients do not change what the
    network computes. Each keeps the length that it was drawn with, and its bias.

    Args:
        editor: edits the network.
        gains: computes the directions.
    """

    def __init__(self, editor: Editor, gains: GrowthGainCollector) -> None:
        self._editor = editor
        self._gains = gains

    def new_filter_directions(self, edit: Edit, plan: EditPlan | None = None) -> Tensor | None:
        """Return the directions of the new filters of an edit, (k, ...); None if it wants none.

        Raises:
            EditRefusedError: they are not known, or cannot be used.
        """
        if not isinstance(edit, AddFilters) or not edit.directed:
            return None
        known = self._gains.directions.get(edit.layer)
        if edit.split_from is not None:
            raise EditRefusedError(SPLIT)
        if self._editor.peers is not None:
            raise EditRefusedError(SEVERAL)
        if known is None:
            raise EditRefusedError(f"{edit.layer}: {UNKNOWN}")
        module = self._editor.model.get_submodule(edit.layer)
        if not isinstance(module._parameters.get("weight"), nn.Parameter):
            raise EditRefusedError(COMPUTED.format(layer=edit.layer))
        # Only such an edit needs a confirmation.
        if edit.confirmed or (plan is not None and plan.is_mixing):
            raise EditRefusedError(MIXED)
        return known

    @torch.no_grad()
    def initialize_new_filters(self, plan: EditPlan, directions: Tensor) -> None:
        """Give the new filters of an applied plan these directions. Surplus filters stay random."""
        assert isinstance(plan.request, AddFilters)
        layer = plan.request.layer
        module: Any = self._editor.model.get_submodule(layer)
        filters = module.weight.transpose(0, 1) if is_transposed(module) else module.weight
        move = next(one for one in plan.filters if one.layer == layer)
        _, is_new = old_indices_and_new_mask(move)
        rows = [index for index, new in enumerate(is_new.tolist()) if new]
        for row, direction in zip(rows, directions.to(filters), strict=False):
            filters[row] = direction * (filters[row].norm() / direction.norm())
