"""What the page's buttons, keys and gestures do to a tab: one function for each command."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, get_args

import msgspec
import numpy as np
from msgspec import Meta, Struct

from revacnn_lightning.protocol.requests import ControlRun, KernelSlice, SetHyperparameter

from ..embedding.projection import METHODS
from ..glyphs import Command
from ..layout import stage_layers
from .staging import StagedChange
from .tab_state import Selection, TabState

__all__ = ["Arguments", "perform"]

log = logging.getLogger(__name__)

CONTROLS = {
    "pause": "Pause",
    "resume": "Resume",
    "step": "Train one batch",
    "checkpoint": "Save a checkpoint",
    "stop": "Stop the training",
}
RATES = {"lr": "the learning rate", "weight_decay": "the weight decay"}
MOST_PICKED = 65536  # filters in one selection
PANES = ("layer", "maps", "looks", "statistics")  # of the right-hand side


class Arguments(Struct, frozen=True):
    """What may come with a command of the page; anything else is dropped."""

    layer: int | None = None
    first: int = -1
    last: int = -1
    dx: int = 0
    dy: int = 0
    at: int = -1
    by: str = ""
    optimizer: int = 0
    group: int = 0
    value: float = 0.0
    run: str = ""
    row: str = ""
    ids: Annotated[list[int], Meta(max_length=MOST_PICKED)] = []
    weights: Annotated[list[float], Meta(max_length=MOST_PICKED)] = []


Handler = Callable[[TabState, Arguments], None]
_HANDLERS: dict[str, Handler] = {}


def perform(tab: TabState, event: Command) -> None:
    """Do what was clicked or typed. Unknown commands and void arguments do nothing."""
    handler = _HANDLERS.get(event.command)
    try:
        arguments = msgspec.convert(event.args, Arguments, strict=False)
    except msgspec.ValidationError as error:
        log.warning("Ignored a malformed command of the page: %s", error)
        return
    if handler is None or (tab.structure is None and event.command != "follow"):
        return
    tab.applying.error = ""
    handler(tab, arguments)
    tab.touched += 1
    tab.update()


def command(name: str) -> Callable[[Handler], Handler]:
    """Register what a command of the page does."""

    def register(handler: Handler) -> Handler:
        _HANDLERS[name] = handler
        return handler

    return register


@command("time")
def _time(tab: TabState, what: Arguments) -> None:
    if tab.state is not None:
        tab.playback.playing = False
        tab.playback.go_to(tab.state, what.at)


@command("play")
def _play(tab: TabState, _: Arguments) -> None:
    if tab.state is not None:
        tab.playback.toggle(tab.state)


@command("live")
def _live(tab: TabState, _: Arguments) -> None:
    tab.playback.go_live()


@command("peek")
def _peek(tab: TabState, what: Arguments) -> None:
    """The pointer rests on a filter; without a layer, on none any more."""
    layer = tab.layer(what.layer) if what.layer is not None else None
    if layer is None or not 0 <= what.first < len(layer.filter_ids):
        tab.peeked = None
    else:
        tab.peeked = Selection(layer.name, layer.filter_ids[what.first])


@command("pick")
def _pick(tab: TabState, what: Arguments) -> None:
    """Select these filters of the selection's layer, by their ids."""
    here, structure = tab.selected(), tab.structure
    if here is None or structure is None:
        return
    layer = structure.layers[here[0]]
    there = set(layer.filter_ids)
    ids = [i for i in dict.fromkeys(what.ids) if i in there]
    if ids:
        tab.selection = Selection(layer.name, ids[0])
        tab.also = ids[1:]


@command("method")
def _method(tab: TabState, what: Arguments) -> None:
    tab.method = next((method for method in METHODS if method == what.by), tab.method)


@command("pane")
def _pane(tab: TabState, what: Arguments) -> None:
    if what.by in PANES:
        tab.pane = what.by


@command("anew")
def _anew(tab: TabState, _: Arguments) -> None:
    if tab.selection is not None:
        tab.follower.layer_details.projections.recompute(tab.selection.layer, tab.method)


@command("image")
def _image(tab: TabState, what: Arguments) -> None:
    """Step through the validation images; before the first comes the current batch."""
    if tab.selection is not None:
        known = tab.follower.layer_details.mark_visible(tab.selection.layer, tab.method)
        at = -1 if known.image is None else known.image
        at = -1 if what.by == "batch" else at + what.dx
        tab.follower.layer_details.select_image(tab.selection.layer, None if at < 0 else at)


@command("slices")
def _slices(tab: TabState, what: Arguments) -> None:
    """What the pictures of filters with many inputs show."""
    wanted = next((slices for slices in get_args(KernelSlice) if slices == what.by), None)
    if tab.selection is not None and wanted is not None:
        tab.follower.layer_details.select_kernel_slice(tab.selection.layer, wanted)


@command("select")
def _select(tab: TabState, chosen: Arguments) -> None:
    """Select the filter of the largest gradient in a range; in the layer without one."""
    state, layer = tab.state, -1 if chosen.layer is None else chosen.layer
    if state is None or not 0 <= layer < len(state.offsets) - 1:
        return
    first, last = chosen.first, chosen.last
    values = state.layer_values("gradient", layer)
    if first < 0:
        first, last = 0, int(state.offsets[layer + 1] - state.offsets[layer]) - 1
    within = np.nan_to_num(values[first : last + 1])
    tab.select(layer, first + (int(np.argmax(within)) if len(within) else 0))


@command("move")
def _move(tab: TabState, by: Arguments) -> None:
    """Move the selection: within the layer, or to the proportional place in another."""
    here, structure = tab.selected(), tab.structure
    if here is None or structure is None:
        return
    layer, index = here
    target = max(0, min(layer + by.dx, len(structure.layers) - 1))
    if target != layer:
        share = (index + 0.5) / len(structure.layers[layer].filter_ids)
        index = int(share * len(structure.layers[target].filter_ids))
    tab.select(target, index + by.dy)


@command("open")
def _open(tab: TabState, what: Arguments) -> None:
    """Show every filter of a layer, or fold them up again."""
    chosen = tab.layer(what.layer)
    if chosen is not None:
        tab.opened ^= {chosen.name}


@command("open_stage")
def _open_stage(tab: TabState, what: Arguments) -> None:
    """Show every filter of all layers of a stage, or fold them up again."""
    chosen, structure = tab.layer(what.layer), tab.structure
    if chosen is not None and structure is not None:
        together = set(stage_layers(structure, chosen.name))
        tab.opened = tab.opened - together if together <= tab.opened else tab.opened | together


@command("sort")
def _sort(tab: TabState, what: Arguments) -> None:
    if what.by in ("gradient", "activation"):
        tab.sort_by = what.by


@command("follow")
def _follow(tab: TabState, what: Arguments) -> None:
    """Show another run."""
    tab.choice.follow(what.run)


@command("chart")
def _chart(tab: TabState, what: Arguments) -> None:
    """Show something else in a chart."""
    if tab.state is not None:
        tab.charts.choose(what.at, what.by, tab.state.histories.metrics)


@command("dismiss")
def _dismiss(tab: TabState, _: Arguments) -> None:
    tab.applying.reply = None


@command("stage_remove")
def _stage_remove(tab: TabState, _: Arguments) -> None:
    """Stage the removal of the selected filters; take it back where all of it is staged."""
    here, layer = tab.selected(), tab.layer(None)
    if here is None or layer is None or not tab.may_change(here[0]):
        return
    picked, staged = tab.picked(), set(tab.staging.removed_ids(layer.name))
    for filter_id in picked:
        if (filter_id in staged) == staged.issuperset(picked):
            tab.staging.toggle_removal(layer.name, filter_id)


@command("stage_least")
def _stage_least(tab: TabState, what: Arguments) -> None:
    """Stage the removal of the layer's least active filter."""
    chosen = tab.layer(what.layer)
    structure, state = tab.structure, tab.state
    if chosen is None or structure is None or state is None:
        return
    at = structure.layers.index(chosen)
    if tab.may_change(at):
        index = tab.least_active(state, at, chosen)
        if index is not None:
            tab.staging.toggle_removal(chosen.name, chosen.filter_ids[index])


@command("stage_add")
def _stage_add(tab: TabState, what: Arguments) -> None:
    chosen = tab.layer(what.layer)
    if chosen is not None and not tab.refused(chosen):
        tab.staging.add(chosen.name)


@command("stage_split")
def _stage_split(tab: TabState, _: Arguments) -> None:
    here, layer = tab.selected(), tab.layer(None)
    if here is not None and layer is not None and tab.may_change(here[0]):
        for filter_id in tab.picked():
            tab.staging.split(layer.name, filter_id)


@command("stage_merge")
def _stage_merge(tab: TabState, _: Arguments) -> None:
    here, layer, picked = tab.selected(), tab.layer(None), tab.picked()
    if here is None or layer is None or len(picked) < 2:
        return
    if tab.may_change(here[0]):
        tab.staging.toggle("merge", layer.name, picked)


@command("stage_freeze")
def _stage_freeze(tab: TabState, _: Arguments) -> None:
    """Freeze the selected filters, or unfreeze them if all of them are frozen."""
    layer = tab.layer(None)
    if layer is not None and not tab.over():
        frozen = {layer.filter_ids[index] for index in layer.frozen_filters}
        kind = "unfreeze" if frozen.issuperset(tab.picked()) else "freeze"
        tab.staging.toggle(kind, layer.name, tab.picked())


@command("stage_reinitialize")
def _stage_reinitialize(tab: TabState, _: Arguments) -> None:
    layer = tab.layer(None)
    if layer is not None and not tab.over():
        tab.staging.toggle("reinitialize", layer.name, tab.picked())


@command("stage_set")
def _stage_set(tab: TabState, what: Arguments) -> None:
    """Set the first of ``ids`` to the mean of the others, weighted."""
    layer = tab.layer(None)
    if layer is None or tab.over() or len(what.ids) < 2 or len(what.ids) != len(what.weights) + 1:
        return
    weights = np.array(what.weights)
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        return
    if set(what.ids) <= set(layer.filter_ids):
        target, *near = what.ids
        row = StagedChange(layer.name, "set", [target], neighbours=near, weights=what.weights)
        tab.staging.put(row)


@command("unstage")
def _unstage(tab: TabState, what: Arguments) -> None:
    """Forget one row, or all."""
    tab.applying.unstage(what.row)


@command("apply")
def _apply(tab: TabState, _: Arguments) -> None:
    tab.applying.apply()


@command("undo")
def _undo(tab: TabState, _: Arguments) -> None:
    if tab.structure is not None:
        tab.applying.undo(tab.structure)


@command("control")
def _control(tab: TabState, what: Arguments) -> None:
    """Hold, step, save or end the run."""
    title = CONTROLS.get(what.by)
    if title is not None:
        tab.applying.order(
            msgspec.convert({"type": "ControlRun", "action": what.by}, ControlRun), title
        )


@command("rate")
def _rate(tab: TabState, what: Arguments) -> None:
    """Set a learning rate or a weight decay."""
    name = RATES.get(what.by)
    if name is not None:
        order = {"optimizer": what.optimizer, "group": what.group, "name": what.by}
        request = msgspec.convert({**order, "value": what.value}, SetHyperparameter)
        tab.applying.order(request, f"Set {name} to {what.value:g}")
