"""What a run continues: earlier fits of the same module, or the run of a checkpoint."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn

from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.protocol.lineage import Lineage
from revacnn_lightning.runtime.history_state import pack_history, unpack_history

__all__ = ["RunContinuation"]

RESUMED = "Resumed from a checkpoint"  # marked in the history like an edit


class RunContinuation:
    """The batches, the lineage and the history that one run passes on to the next.

    Args:
        keep_history: whether runs have a history.

    Attributes:
        step: training batches so far, including those before a resume.
        history: the history of the batches so far; None if there is none.
    """

    def __init__(self, *, keep_history: bool) -> None:
        self.step = 0
        self.history: HistoryRecorder | None = None
        self._keeps_history = keep_history
        self._lineage = Lineage.begin()
        self._is_resumed = False  # from a checkpoint, by the next run
        self._module: weakref.ref[nn.Module] | None = None  # of the history; None: the next one

    def begin(self, module: nn.Module) -> tuple[Lineage, HistoryRecorder | None]:
        """Return the lineage and the history of the next run; new ones for another module."""
        is_other = self._module is not None and self._module() is not module
        if is_other:
            self._lineage = Lineage.begin()
        if not self._keeps_history:
            self.history = None
        elif self.history is None or is_other:
            self.history = HistoryRecorder()
        if self._is_resumed and self.history is not None:
            self.history.add_edit(self.step, RESUMED, version=-1)
        self._is_resumed = False
        self._module = weakref.ref(module)
        return Lineage.continue_from(self._lineage.id, self.step), self.history

    def state(self) -> dict[str, Any]:
        """Return what checkpoints keep besides the step."""
        return {"lineage": self._lineage.id, **pack_history(self.history)}

    def load(self, state: Mapping[str, Any], step: int) -> None:
        """Continue the run of a checkpoint, saved after ``step`` batches, with the next module."""
        self.step = step
        self._lineage = Lineage.continue_from(state.get("lineage"), step)
        self._is_resumed = True
        self.history, self._module = unpack_history(state), None
