"""Undo in a run whose monitoring has stopped because of an internal error.

The edits stay in force, and frozen filters stay frozen. They can be undone from Python.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from revacnn_lightning.errors import EditRefusedError, RevacnnError
from revacnn_lightning.protocol.messages import Applied, Planned, Refused, Reply, Request
from revacnn_lightning.protocol.requests import Edit, Redo, RequestBody, Undo
from revacnn_lightning.runtime.batch import TrainingBatch
from revacnn_lightning.runtime.ranks.all_ranks import AllRanks, SingleRank, StopReasons
from revacnn_lightning.runtime.request_queue import PendingRequest, RequestQueue
from revacnn_lightning.steering import Editor

__all__ = ["UndoOnlySession"]

log = logging.getLogger(__name__)


class UndoOnlySession:
    """Takes the place of a `Session` that has failed: it only undoes and redoes edits.

    Requests come from inside the process. All other requests are refused.

    Args:
        editor: the editor that has applied the edits.
        reason: the error that has stopped monitoring.
        ranks: all ranks of the training; None if this process is the only one.
    """

    def __init__(self, editor: Editor, reason: str, ranks: AllRanks | None = None) -> None:
        self._editor = editor
        self._reason = reason
        self._ranks: AllRanks = SingleRank() if ranks is None else ranks
        self._queue = RequestQueue()

    @property
    def needs_probe(self) -> bool:
        """Whether a pending request needs to know how training uses the network."""
        return not self._queue.is_empty

    @property
    def stop_reasons(self) -> StopReasons:
        """Why all ranks have to stop before one of the next batches."""
        is_wanted = not self._queue.is_empty
        return StopReasons(is_wanted=is_wanted, is_edit=is_wanted)

    def submit(self, body: RequestBody, *, dry_run: bool = False) -> PendingRequest:
        """Queue a request, from any thread."""
        return self._queue.submit(body, dry_run=dry_run)

    def begin_batch(self, make_batch: Callable[[], TrainingBatch]) -> None:
        """Handle the pending requests before a batch, which is described only if there are any."""
        if self._queue.is_empty:
            return
        batch = make_batch()
        is_ready = batch.can_edit and batch.is_probe_ready()
        is_stopped = self._ranks.is_stopped
        self._queue.handle(
            lambda request: self._handle(request, batch),
            lambda request: is_ready and (is_stopped or bool(batch.why_edit_refused(request.body))),
        )

    def close(self) -> None:
        """Refuse what is pending, and remove the hooks of frozen filters from the model."""
        self._queue.refuse_all("the training has ended", self._editor.version)
        self._editor.close()

    def _handle(self, request: Request, batch: TrainingBatch) -> Reply:
        try:
            return self._execute(request, batch)
        except RevacnnError as error:
            return Refused(request.id, str(error), self._editor.version)
        except Exception as error:  # a bug of this package must not stop the training
            log.warning("%s failed and was not carried out", request.body, exc_info=True)
            reason = f"internal error ({type(error).__name__}: {error}); see the log of the run"
            return Refused(request.id, reason, self._editor.version)

    def _execute(self, request: Request, batch: TrainingBatch) -> Reply:
        edit: Edit | RequestBody = request.body
        if not isinstance(edit, Undo | Redo):
            raise EditRefusedError(
                f"{self._reason}; until the next fit, edits can only be undone and redone"
            )
        if refusal := batch.why_edit_refused(edit):
            raise EditRefusedError(refusal)
        if request.dry_run:
            return Planned(request.id, self._editor.plan(edit, batch.make_probe()).summary())
        outcome = self._editor.apply(edit, batch.make_probe())
        summary = outcome.plan.summary()
        log.info("Applied before batch %d: %s", batch.step, summary.title)
        return Applied(
            request.id, batch.step, self._editor.version, summary, outcome.output_change,
            outcome.seconds,
        )  # fmt: skip
