"""Extends a plan to the copies of the edited modules, or refuses it because of one.

A registered copy gets changes of its own in the plan, so a journal replays them. Copies outside
the model are edited by the same plan under their own names (`plan_for_copy`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.holders.model_copy import CopyRestriction, ModelPartCopy
from revacnn_lightning.steering.holders.module_copies import ModuleCopy
from revacnn_lightning.steering.holders.module_matching import is_inside_module
from revacnn_lightning.steering.planning.context import PlanningContext
from revacnn_lightning.steering.planning.optimizer_support import parameter_positions
from revacnn_lightning.steering.planning.plan import EditPlan, TensorEdit
from revacnn_lightning.steering.planning.resize_plan import filter_move, parameter_count_change

__all__ = [
    "add_copy_edits",
    "check_copies_editable",
    "check_not_a_copy",
    "must_edit_copy",
    "plan_for_copy",
    "sync_copy_edits_with_origins",
]


def _resized_names(plan: EditPlan) -> list[str]:
    return [e.tensor for e in plan.tensors] + [e.host for e in plan.layers]


def must_edit_copy(copy: ModelPartCopy, plan: EditPlan) -> bool:
    """Return whether a plan must be performed on a copy, too.

    A module that may be no copy is only edited if its sizes must change.
    """
    tensors = [e.tensor for e in plan.tensors]
    if not copy.doubt:
        tensors += [e.tensor for e in plan.values]
    return any(copy.follows_tensor(name) for name in tensors) or any(
        copy.concerns_layer_at(layer.host) for layer in plan.layers
    )


def check_not_a_copy(request: requests.Edit, copies: Iterable[ModuleCopy]) -> None:
    """Check that a request does not name a layer of a copy, which the next update overwrites.

    Raises:
        EditRefusedError: it does; the message names the layer to edit instead.
    """
    layer: str = getattr(request, "layer", "") or getattr(request, "after", "")
    for copy in copies:
        if is_inside_module(layer, copy.path):
            if copy.doubt:
                keeps_sizes = (requests.Freeze, requests.Unfreeze, requests.Reinitialize,
                               requests.SetFilter, requests.ScaleLearningRate)  # fmt: skip
                if isinstance(request, keeps_sizes):
                    continue
                raise EditRefusedError(copy.doubt)
            origin = ".".join(part for part in (copy.origin, layer[len(copy.path) + 1 :]) if part)
            raise EditRefusedError(
                f"{copy.path} is a copy of {copy.origin} that training updates from it; edit "
                f"{origin} instead, and {layer} is edited along"
            )


def why_copy_not_resizable(layer: str, copies: Iterable[ModuleCopy]) -> str:
    """Return why the width of a layer cannot be changed if it is in a copy, else ""."""
    try:
        check_not_a_copy(requests.AddFilters(layer), copies)
    except EditRefusedError as error:
        return str(error)
    return ""


def check_copies_editable(
    plan: EditPlan, copies: Iterable[ModelPartCopy], restrictions: Iterable[CopyRestriction]
) -> None:
    """Check that every copy that a plan must be performed on can be edited.

    Raises:
        EditRefusedError: a copy cannot be edited, or it is unclear whether it is a copy.
    """
    names = _resized_names(plan)
    removed = [edit.host for edit in plan.layers if edit.action == "replace"]
    for restriction in restrictions:
        is_edited = any(is_inside_module(name, restriction.origin) for name in names)
        is_removed = any(is_inside_module(restriction.origin, host) for host in removed)
        if is_removed if restriction.only_removal else is_edited:
            raise EditRefusedError(restriction.reason)
    keeps_function = isinstance(plan.request, (requests.AddFilters, requests.InsertLayer))
    for copy in copies:
        if copy.doubt and must_edit_copy(copy, plan) and (copy.is_ambiguous or not keeps_function):
            raise EditRefusedError(copy.doubt)
        reason = copy.refusal(plan)
        if reason:
            raise EditRefusedError(reason)


def plan_for_copy(plan: EditPlan, copy: ModelPartCopy) -> EditPlan:
    """Return the plan for a copy: the changes that concern it, under the names in its root."""
    rename = copy.name_in_copy
    changes: dict[str, Any] = {
        kind: [
            msgspec.structs.replace(each, **{attribute: name}, origin=getattr(each, attribute))
            for each in getattr(plan, kind)
            if (name := rename(getattr(each, attribute))) is not None
        ]
        for kind, attribute in (
            ("values", "tensor"), ("tensors", "tensor"), ("attributes", "module"),
            ("layers", "host"),
        )
    }  # fmt: skip
    for each in (*changes["values"], *changes["tensors"]):
        for gain in {"gain", "entry_gain"}.intersection(each.__struct_fields__):
            name = getattr(each, gain)
            setattr(each, gain, (rename(name) or "") if name else "")
    if not copy.has_values:
        changes["values"] = []
        changes["tensors"] = [msgspec.structs.replace(e, fill="zero") for e in changes["tensors"]]
    return EditPlan(plan.request, plan.title, **changes)


def add_copy_edits(
    context: PlanningContext, plan: EditPlan, copies: Sequence[ModelPartCopy]
) -> None:
    """Add the changes of registered copies to a plan, and say which copies are edited along.

    Raises:
        EditRefusedError: a copy would be edited without its origin, or what reads it would not.
    """
    touched = [copy for copy in copies if must_edit_copy(copy, plan)]
    original = msgspec.structs.replace(plan)
    for copy in touched:
        if copy.is_registered:
            _add_copy(context, plan, plan_for_copy(original, copy))
            _add_filters(plan, original, copy)
    for copy in copies:
        if isinstance(copy, ModuleCopy) and copy.is_registered:
            _check_origin(plan, copy)
            _check_readers(context, plan, copy)
    if touched:
        along = ", ".join(copy.holder for copy in touched)
        note = f"edited along, as copies: {along}"
        plan.coupling = "; ".join(part for part in (plan.coupling, note) if part)


def _add_copy(context: PlanningContext, plan: EditPlan, copied: EditPlan) -> None:
    model, optimizers = context.model, context.optimizers
    present = {(edit.tensor, edit.dim) for edit in plan.tensors}
    tensors = [edit for edit in copied.tensors if (edit.tensor, edit.dim) not in present]
    for layer in copied.layers:
        if layer.action == "replace":
            module = model.get_submodule(layer.host)
            layer.positions = parameter_positions(module, layer.host, optimizers)
    growth = parameter_count_change(model, tensors)
    if copied.layers:
        growth = (plan.parameters_after - plan.parameters_before) // len(plan.layers)
    plan.parameters_after += growth
    known = {(edit.module, edit.attribute, edit.index) for edit in plan.attributes}
    plan.values = plan.values + copied.values
    plan.tensors = plan.tensors + tensors
    plan.layers = plan.layers + copied.layers
    plan.attributes = plan.attributes + [
        edit for edit in copied.attributes if (edit.module, edit.attribute, edit.index) not in known
    ]


def _add_filters(plan: EditPlan, original: EditPlan, copy: ModelPartCopy) -> None:
    """Add how the filters of a copy move, and what the plan's summary says of them."""
    moved = {move.layer for move in plan.filters}
    moves, changes = [], []
    for move in original.filters:
        layer, tensor = copy.name_in_copy(move.layer), copy.name_in_copy(move.tensor)
        if layer is not None and tensor is not None and layer not in moved:
            moves.append(msgspec.structs.replace(move, layer=layer, tensor=tensor))
    for change in original.filter_changes:
        layer = copy.name_in_copy(change.layer)
        if layer is not None and layer not in {each.layer for each in plan.filter_changes}:
            changes.append(msgspec.structs.replace(change, layer=layer))
    plan.filters, plan.filter_changes = plan.filters + moves, plan.filter_changes + changes


def _check_origin(plan: EditPlan, copy: ModuleCopy) -> None:
    """Check that a plan which resizes a copy does the same to its origin."""
    moves = {(edit.tensor, edit.dim): (edit.runs, edit.new) for edit in plan.tensors}
    for edit in plan.tensors:
        if is_inside_module(edit.tensor, copy.path):
            rest = edit.tensor[len(copy.path) + 1 :]
            origin = ".".join(part for part in (copy.origin, rest) if part)
            if moves.get((origin, edit.dim)) != (edit.runs, edit.new):
                raise EditRefusedError(
                    f"this would change {edit.tensor}, but not {origin}, whose values training "
                    "copies to it; no edit here keeps them alike"
                )


def _check_readers(context: PlanningContext, plan: EditPlan, copy: ModuleCopy) -> None:
    """Check that a plan resizes everything in the traced forward that reads a copy's channels."""
    groups = context.groups
    edited = {(edit.tensor, edit.dim) for edit in plan.tensors}
    for move in plan.filters:
        if is_inside_module(move.layer, copy.path) and move.layer in groups.filters:
            filters = _edited_filters(move.runs, move.new, move.size)
            members = groups.members(groups.groups_of_filters(move.layer, filters))
            missing = sorted(name for name, dim in members.keys() - edited)
            if missing:
                raise EditRefusedError(
                    f"{missing[0]} reads channels of {move.layer}, which is a copy; nothing reads "
                    f"the same channels of {copy.origin}, so they cannot be edited along"
                )


def _edited_filters(runs: list[tuple[int, int]], new: list[int], size: int) -> list[int]:
    """Return the filters that a move copies or, if it copies none, removes."""
    order = np.concatenate([np.arange(a, b) for a, b in runs] or [np.zeros(0, int)])
    if new:
        return sorted(set(order[new].tolist()))
    return sorted(set(range(size)) - set(order.tolist()))


def sync_copy_edits_with_origins(plan: EditPlan) -> EditPlan:
    """Return the plan with the edits of registered copies equal to those of their origins.

    Aligning the columns of consumers with a trace may have moved the entries of origins.
    """
    by_dimension = {(edit.tensor, edit.dim): edit for edit in plan.tensors}

    def follow(edit: TensorEdit) -> TensorEdit:
        if not edit.origin:
            return edit
        origin = by_dimension[edit.origin, edit.dim]
        return msgspec.structs.replace(edit, runs=origin.runs, new=origin.new)

    tensors = [follow(edit) for edit in plan.tensors]
    after = {(edit.tensor, edit.dim): edit for edit in tensors}
    filters = [filter_move(m.layer, after[m.tensor, m.dim], m.size) for m in plan.filters]
    return msgspec.structs.replace(plan, tensors=tensors, filters=filters)
