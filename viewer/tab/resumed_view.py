"""A tab that shows a run goes on with the run that resumes it from a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revacnn_lightning.protocol.messages import Structure

from ..runs.resumed_run import mask_ids_of_edited_layers, resume_record
from ..runs.run_state import RunState

if TYPE_CHECKING:
    from .tab_state import TabState

__all__ = ["adapt_to_resumed_run", "resumes_shown_run"]


def resumes_shown_run(state: RunState | None, shown_state: object) -> bool:
    """Return whether a run resumes the run of another state, which was shown before."""
    if state is None or not isinstance(shown_state, RunState):
        return False
    return state.resumes == shown_state.connection.run


def adapt_to_resumed_run(tab: TabState, previous_structure: Structure | None) -> None:
    """Adapt a tab to the run that resumes the one it has shown; say what has happened.

    What is selected and open is kept, and what is staged is discarded.

    Args:
        tab: already shows the run that resumes the one before.
        previous_structure: the last structure of the earlier run.
    """
    tab.edit_queue.reset()
    tab.playback.go_live()
    state, structure, selection = tab.state, tab.structure, tab.selection
    if state is None:
        return
    tab.edit_queue.shown_reply = resume_record(state.connection.first_step, state.resume_note)
    if structure is None or previous_structure is None or selection is None:
        return
    ids = {
        layer.name: layer.filter_ids
        for layer in mask_ids_of_edited_layers(previous_structure, structure).layers
    }
    if selection.filter_id not in ids.get(selection.layer, []):
        tab.selection, tab.other_selected_ids = None, []
