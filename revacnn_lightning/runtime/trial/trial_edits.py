"""The edits of a trial, one after the other: all of them name filters as they are at the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from revacnn_lightning.protocol.edit_requests import (
    AddFilters,
    InsertLayer,
    MergeFilters,
    NetworkEdit,
    RemoveLayer,
    ScaleLearningRate,
    SetFilter,
    SetHyperparameter,
)
from revacnn_lightning.protocol.trial_requests import TrialEdit
from revacnn_lightning.runtime.trial.trial_rates import title_of_rate_edit
from revacnn_lightning.steering import Editor, ForwardProbe

__all__ = ["TrialEdits"]

IndexOf = Callable[[int], int | None]


class TrialEdits:
    """Applies edits in their order. An edit moves the indices of others, but never their ids.

    Args:
        editor: edits the network, which must have its structure at the start of the trial.
        edits: the edits of the trial.
    """

    def __init__(self, editor: Editor, edits: Sequence[TrialEdit]) -> None:
        self._editor = editor
        self._edits = edits
        layers = {getattr(edit, "layer", None) for edit in edits}
        self._ids = {layer: ids for layer in layers if layer and (ids := self._ids_of(layer))}

    def apply(self, probe: ForwardProbe) -> list[str]:
        """Apply the edits that change the network; return the titles of all edits.

        Raises:
            SteeringError: one is refused, or fails.
        """
        titles = []
        for edit in self._edits:
            if isinstance(edit, SetHyperparameter):
                titles.append(title_of_rate_edit(edit))
                continue
            present = self._present(edit)
            if present is not None:
                titles.append(self._editor.apply(present, probe).plan.title)
        return titles

    def _present(self, edit: NetworkEdit) -> NetworkEdit | None:
        """Return an edit with the indices of now; None if all of its filters were removed."""
        if isinstance(edit, InsertLayer | RemoveLayer | ScaleLearningRate):
            return edit
        if edit.layer not in self._ids:
            return edit
        at = self._index_of(edit.layer)
        if isinstance(edit, AddFilters):
            if edit.split_from is None:
                return edit
            moved = at(edit.split_from)
            return None if moved is None else replace(edit, split_from=moved)
        if isinstance(edit, SetFilter):
            return _moved_mean(edit, at)
        if edit.filters is None:
            return edit
        filters = [index for one in edit.filters if (index := at(one)) is not None]
        if isinstance(edit, MergeFilters) and len(edit.scales) == len(edit.filters):
            pairs = zip(edit.filters, edit.scales, strict=True)
            edit = replace(edit, scales=[scale for one, scale in pairs if at(one) is not None])
        return replace(edit, filters=filters) if filters or not edit.filters else None

    def _index_of(self, layer: str) -> IndexOf:
        """Return a function: index at the start -> index now, or None if it was removed.

        An index that no filter had stays, so that the edit is refused by its name.
        """
        known, present = self._ids[layer], {id_: i for i, id_ in enumerate(self._ids_of(layer))}
        return lambda index: present.get(known[index]) if 0 <= index < len(known) else index

    def _ids_of(self, layer: str) -> list[int]:
        try:
            return self._editor.filter_ids(layer)
        except KeyError:
            return []


def _moved_mean(edit: SetFilter, at: IndexOf) -> SetFilter | None:
    """Return the edit with the indices of now; None if its filter was removed."""
    target = at(edit.filter)
    if target is None:
        return None
    if len(edit.neighbors) != len(edit.weights):
        return edit  # it is refused
    pairs = zip(edit.neighbors, edit.weights, strict=True)
    kept = [(index, weight) for one, weight in pairs if (index := at(one)) is not None]
    return replace(
        edit,
        filter=target,
        neighbors=[index for index, _ in kept],
        weights=[weight for _, weight in kept],
    )
