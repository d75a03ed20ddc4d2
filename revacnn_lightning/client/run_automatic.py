"""What a run does by itself between batches, as its clients control it."""

from __future__ import annotations

from revacnn_lightning.client.run_requests import RunRequests
from revacnn_lightning.protocol.automatic_requests import Policy
from revacnn_lightning.protocol.automatic_state import Proposal, PruningState
from revacnn_lightning.protocol.requests import ControlPruning, PruneTo, SetPolicy

__all__ = ["RunPruningAndPolicy"]


class RunPruningAndPolicy(RunRequests):
    """Pruning to a budget, and the policy of a run. The run goes on when the client detaches."""

    def prune_to(
        self,
        *,
        macs: float | None = None,
        parameters: float | None = None,
        filters: int = 4,
        every: int = 20,
        timeout: float = 60.0,
    ) -> str:
        """Let the run remove its cheapest filters, a few at a time, until it is small enough.

        ::

            run.prune_to(macs=0.5, filters=4, every=20)
            run.wait_for(lambda run: run.pruning and run.pruning.state == "ended")

        Args:
            macs: the multiply-accumulates to reach, as a share of the present ones.
            parameters: the number of parameters to reach, in the same way. Give one of the two.
            filters: how many filters a round removes, 1 to 64, not counting coupled ones.
            every: batches from one round to the next.
            timeout: seconds to wait for the reply.

        Returns:
            What will happen, in words.

        Raises as `apply` does.
        """
        return self.command(PruneTo(macs, parameters, filters, every), timeout=timeout)

    def pause_pruning(self) -> str:
        """Remove nothing more for now."""
        return self.command(ControlPruning("pause"))

    def resume_pruning(self) -> str:
        """Continue a paused pruning."""
        return self.command(ControlPruning("resume"))

    def end_pruning(self) -> str:
        """End the pruning before it has reached its target; what was removed stays removed."""
        return self.command(ControlPruning("end"))

    def undo_pruning(self) -> str:
        """End the pruning and undo its edits, newest first, as far as no other edit came later.

        At most 32 edits can be undone. Returns how many are.
        """
        return self.command(ControlPruning("undo"))

    def set_policy(self, policy: Policy) -> str:
        """Set what the run does with its own verdicts, also while nobody observes it.

        Args:
            policy: "off": nothing; "propose": examine the layers and publish `proposals`;
                "apply_free": remove filters that are dead for good, too.
        """
        return self.command(SetPolicy(policy))

    @property
    def pruning(self) -> PruningState | None:
        """The pruning that was started last; None if none was."""
        return None if self.status is None else self.status.automatic.pruning

    @property
    def proposals(self) -> list[Proposal]:
        """The edits that the run proposes under its policy, the most worthwhile first."""
        return [] if self.status is None else self.status.automatic.proposals
