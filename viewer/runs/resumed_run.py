"""What a run that resumes another one from a checkpoint keeps of that one, and what it has lost."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec.structs import replace

from revacnn_lightning.protocol.messages import LayerInfo, Structure

from ..rendering.formatting import format_count
from .change_order import EditMark, RequestRecord

__all__ = ["describe_lost_progress", "mask_ids_of_edited_layers", "resume_record"]

NO_FILTER = -1  # an id that no filter has


def mask_ids_of_edited_layers(earlier_structure: Structure, structure: Structure) -> Structure:
    """Return the earlier structure with -1 for the filter ids of layers that differ in the other.

    A resumed run numbers the filters of an edited layer from 0 again, so that an id may mean
    another filter. Ids are never reused: equal ones mean that the layer was not edited.
    """
    ids = {layer.name: layer.filter_ids for layer in structure.layers}

    def keep_if_equal(layer: LayerInfo) -> LayerInfo:
        if ids.get(layer.name) == layer.filter_ids:
            return layer
        return replace(layer, filter_ids=[NO_FILTER] * len(layer.filter_ids))

    return replace(
        earlier_structure, layers=[keep_if_equal(layer) for layer in earlier_structure.layers]
    )


def describe_lost_progress(
    last_seen_step: int | None, edit_marks: Iterable[EditMark], resumed_step: int
) -> str:
    """Return which batches and edits of the earlier run a resumed run has lost; "" for none.

    Args:
        last_seen_step: the last known batch of the earlier run; None if none is known.
        edit_marks: the edits of the earlier run.
        resumed_step: the first batch of the run that resumes it.
    """
    batches = 0 if last_seen_step is None else last_seen_step + 1 - resumed_step
    edits = [mark for mark in edit_marks if mark.step >= resumed_step]
    lost = [_count(batches, "batch", "batches")] if batches > 0 else []
    lost += [_count(len(edits), "edit", "edits")] if edits else []
    if not lost:
        return ""
    verb = "is" if lost[0].startswith("1 ") and len(lost) == 1 else "are"
    return f"{' and '.join(lost)} after the checkpoint {verb} lost"


def resume_record(resumed_step: int, note: str) -> RequestRecord:
    """Return a record that says that the shown run was resumed, to be shown like a reply."""
    title = f"Resumed from a checkpoint, at batch {format_count(resumed_step)}"
    return RequestRecord("", title, time.time(), state="done", text=note)


def _count(n: int, one: str, several: str) -> str:
    return f"{format_count(n)} {one if n == 1 else several}"
