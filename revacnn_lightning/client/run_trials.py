"""Trials of edits: the edited and the unedited network train on the same batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from revacnn_lightning.client.run_requests import RunRequests
from revacnn_lightning.client.trial import Trial
from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.protocol.messages import Done, Planned
from revacnn_lightning.protocol.requests import DiscardTrial, KeepTrial, TryEdits
from revacnn_lightning.protocol.trial_requests import TrialEdit
from revacnn_lightning.protocol.trial_state import TrialCost, TrialState

__all__ = ["RunTrials"]


class RunTrials(RunRequests):
    """Trials of edits. The training waits at the end of each, until it is kept or discarded."""

    def trial_cost(
        self,
        edits: TrialEdit | Sequence[TrialEdit],
        *,
        batches: int = 20,
        version: int | None = None,
        timeout: float = 60.0,
    ) -> TrialCost:
        """Return what `try_edits` would cost, about: memory and time. Raises as `apply` does."""
        body = TryEdits(_listed(edits), batches)
        reply = self._execute(body, timeout, version=version, dry_run=True)
        assert isinstance(reply, Planned)
        assert reply.plan.trial is not None
        return reply.plan.trial

    def try_edits(
        self,
        edits: TrialEdit | Sequence[TrialEdit],
        *,
        batches: int = 20,
        version: int | None = None,
        timeout: float = 3600.0,
    ) -> Trial:
        """Train the edited and the unedited network on the same next batches; return both losses.

        ::

            trial = run.try_edits(RemoveFilters("conv2", [3, 7]), batches=40)
            if trial.interval[1] < 0.01:
                trial.keep()
            else:
                trial.discard()

        The training trains the batches as usual. Then it waits while the edited network trains on
        them from the same start, and until the trial is kept or discarded.

        Args:
            edits: one or several, in this order; rates can be tried, too, by `SetHyperparameter`.
            batches: 2 to 200.
            version: as for `apply`.
            timeout: seconds to wait for the result. The trial goes on after that.

        Raises:
            EditRefusedError: the training allows no trial, or refuses an edit.
            EditFailedError: the trial has ended without a result; the message says why.

        Other exceptions as for `apply`.
        """
        deadline = time.monotonic() + timeout
        request_id = self._send_permitted(TryEdits(_listed(edits), batches), version=version)
        reply = self._wait_for_reply(request_id, timeout)
        assert isinstance(reply, Done)

        def is_over(trial: TrialState) -> bool:
            return trial.id == request_id and trial.stage not in ("recording", "training")

        found = self._wait_for_trial(is_over, deadline - time.monotonic())
        if found.stage != "undecided":
            raise EditFailedError(f"the trial has ended: {found.note or found.stage}")
        return Trial(found, self.keep_trial, self.discard_trial)

    def keep_trial(self, *, timeout: float = 60.0) -> str:
        """Continue with the edited network of the trial; return that in words.

        Waits until `structure` is the edited one. Raises as `apply` does.
        """
        deadline = time.monotonic() + timeout
        done = self.command(KeepTrial(), timeout=timeout)
        self._wait_for_trial(lambda trial: trial.stage == "kept", deadline - time.monotonic())
        return done

    def discard_trial(self, *, timeout: float = 60.0) -> str:
        """Continue as if there had been no trial; return that in words. Raises as `apply` does."""
        return self.command(DiscardTrial(), timeout=timeout)

    @property
    def trial(self) -> TrialState | None:
        """The trial that was started last; None if none was."""
        return None if self.status is None else self.status.trial

    def _wait_for_trial(
        self, is_wanted: Callable[[TrialState], bool], timeout: float
    ) -> TrialState:
        """Return the first state of a trial that is wanted."""

        def find() -> TrialState | None:
            for message in self._receive():
                self._unread.add([message])
                if self.trial is not None and is_wanted(self.trial):
                    return self.trial
            return self.trial if self.trial is not None and is_wanted(self.trial) else None

        return self._wait_until(find, timeout, self._why_no_reply)


def _listed(edits: TrialEdit | Sequence[TrialEdit]) -> list[TrialEdit]:
    return list(edits) if isinstance(edits, Sequence) else [edits]
