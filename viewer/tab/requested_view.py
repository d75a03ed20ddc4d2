"""What the address of a page names: a run, a layer, a filter, a pane and a moment of the run.

The page keeps its address up to date, so that it is a link to what is shown. The names of the
parameters are those of `RequestedView`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from .tab_state import TabState

__all__ = [
    "PANES",
    "RequestedView",
    "address_parameters",
    "parse_address",
    "show_requested_view",
]

# The first one is left out of the address.
PANES = ("layer", "maps", "inspection", "statistics", "histograms", "classes")


class RequestedView(Struct, frozen=True):
    """The parameters of an address; each may be missing.

    Attributes:
        run: id of the run.
        layer: name of the layer.
        filter: permanent id of the filter.
        pane: the open pane of the layer panel.
        batch: the past batch; None for the newest.
    """

    run: str = ""
    layer: str = ""
    filter: int | None = None
    pane: str = ""
    batch: int | None = None


def parse_address(arguments: Mapping[str, Sequence[bytes]]) -> RequestedView:
    """Return what the arguments of a request name. Parameters with invalid values are left out."""
    view = RequestedView()
    for name in RequestedView.__struct_fields__:
        values = arguments.get(name)
        if not values:
            continue
        try:
            given = {name: values[0].decode("utf-8")}
            parsed = msgspec.convert(given, RequestedView, strict=False)
        except (UnicodeDecodeError, msgspec.ValidationError):
            continue
        view = msgspec.structs.replace(view, **{name: getattr(parsed, name)})
    return view


def address_parameters(tab: TabState) -> dict[str, Any]:
    """Return the parameters that name what a tab shows; "" for those to leave out.

    A recording that is being played has no address of its own: the moment changes all the time.
    """
    if tab.requested_view is not None:
        return {"run": ""}
    selection, playback = tab.selection, tab.playback
    step = None if playback.is_playing else playback.shown_step
    return {
        "run": tab.follower.run_id,
        "layer": "" if selection is None else selection.layer,
        "filter": "" if selection is None else str(selection.filter_id),
        "pane": "" if tab.pane == PANES[0] else tab.pane,
        "batch": "" if step is None else str(int(step)),
    }


def show_requested_view(tab: TabState, view: RequestedView) -> str:
    """Show what an address names, as far as the shown run has it.

    Returns:
        What it does not have, as sentences; "" if it has everything.
    """
    if view.run and view.run != tab.follower.run_id:
        return f"The run {view.run} of this link is no longer available here."
    if view.pane in PANES:
        tab.pane = view.pane
    if view.batch is not None:
        tab.playback.request_step(view.batch)
    return _select(tab, view) if view.layer else ""


def _select(tab: TabState, view: RequestedView) -> str:
    """Select the layer and the filter; return what the network does not have."""
    layers = tab.structure.layers if tab.structure is not None else []
    for i, layer in enumerate(layers):
        if layer.name == view.layer:
            ids, wanted = layer.filter_ids, view.filter
            is_gone = wanted is not None and wanted not in ids
            tab.select(i, 0 if wanted is None or is_gone else ids.index(wanted))
            return f"The filter of this link is no longer in {view.layer}." if is_gone else ""
    return f"The network has no layer {view.layer}, which this link names."
