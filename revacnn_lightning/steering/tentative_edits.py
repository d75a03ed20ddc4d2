"""Edits that are taken back as if they had never been requested."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.steering import edited_models
from revacnn_lightning.steering.execution.compiled_code import reset_compiled_code
from revacnn_lightning.steering.execution.executor import revert
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.filter_ids import FilterIds
from revacnn_lightning.steering.journal import Journal

__all__ = ["TentativeEdits"]


class TentativeEdits:
    """The edits that are applied from now on, which are reverted unless they are kept.

    An undo would leave them in the journal as edits to redo, and count up the version. `revert`
    leaves no trace in the journal. Which values the network has then is up to the caller: entries
    that the edits have kept have the values that they were trained to since.

    Args:
        model: the model that is edited.
        journal: the journal of the model.
        filters: the ids of the filters of the model.
    """

    def __init__(self, model: nn.Module, journal: Journal, filters: FilterIds) -> None:
        self._model = model
        self._journal = journal
        self._count, self._version = len(journal.entries), journal.version
        self._restore = (journal.restore_function(), filters.restore_function())
        self._is_first = edited_models.find_journal(model) is None
        self._is_kept = False

    @property
    def must_revert(self) -> bool:
        """Whether there are such edits that are not kept."""
        return not self._is_kept and self._journal.version != self._version

    def keep(self) -> None:
        """Keep the edits: nothing distinguishes them from others any more."""
        self._is_kept = True

    def revert(self, optimizers: Sequence[Optimizer]) -> None:
        """Give the model and its optimizers the structure they had, and forget the edits."""
        with Transaction() as tx:
            for entry in reversed(self._journal.entries[self._count :]):
                revert(tx, self._model, entry.plan, optimizers, entry.structure_undo)
        for restore in self._restore:
            restore()
        if self._is_first:
            edited_models.forget_edits(self._model)
        else:
            edited_models.remember_edits(self._model, self._journal)
        reset_compiled_code()
