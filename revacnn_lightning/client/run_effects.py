"""What the edits of a run have done to its loss."""

from __future__ import annotations

from revacnn_lightning.client.loss_change import LossChange, RecentLosses
from revacnn_lightning.client.run_requests import RunRequests
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import Applied, Message, Snapshot

__all__ = ["RunEffects"]


class RunEffects(RunRequests):
    """Measures the effects of edits, as the page does in its list of changes."""

    def __init__(self, connection: Connection) -> None:
        self._recent_losses = RecentLosses()
        super().__init__(connection)

    def loss_change(self, edit: Applied, *, batches: int = 25, timeout: float = 60.0) -> LossChange:
        """Wait for some batches after an edit; return the training loss before and after it.

        ::

            run.wait_for(lambda run: run.batch and run.batch.step >= 100)
            plan = run.plan(RemoveFilters("conv2", [3]))  # predicts
            reply = run.apply(RemoveFilters("conv2", [3]))
            print(reply.plan.price, run.loss_change(reply))  # predicted, and measured

        Batches before the edit count that this object has received: `wait_for` and `batches`
        receive them, and so does a call that waits for a reply.

        Args:
            edit: what `apply` has returned.
            batches: how many batches to compare before and after the edit. There are fewer if the
                network is edited again.
            timeout: seconds to wait for them.

        Raises:
            RunEndedError: the run ended before so many batches.
            RequestTimeoutError: no such batches in time.
        """
        losses, version = self._recent_losses, edit.version

        def find() -> LossChange | None:
            self._unread.add(self._receive())
            return (
                losses.change_after(version, batches)
                if losses.is_complete(version, batches)
                else None
            )

        def why() -> str:
            return f"{batches} batches were not trained within {timeout:.3g} s after the edit"

        return self._wait_until(find, timeout, why)

    def _update_state(self, message: Message) -> None:
        super()._update_state(message)
        if isinstance(message, Snapshot):
            self._recent_losses.add(message)
