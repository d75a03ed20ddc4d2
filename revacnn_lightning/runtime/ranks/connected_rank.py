"""A rank that exchanges with the others of its training: what rank 0 and the workers share."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch import Tensor

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.ranks.agreement import DecisionBroadcast, RankActionBeforeBatch
from revacnn_lightning.runtime.ranks.rank_statistics import RankStatistics
from revacnn_lightning.runtime.ranks.side_group import LostRankError, SideProcessGroup

__all__ = ["RankWithProcessGroup"]

log = logging.getLogger(__name__)


class RankWithProcessGroup:
    """One rank, its process group, and the exchanges in it. It is the editor's `Peers`.

    Args:
        group: the process group of all ranks; None if the ranks cannot reach each other.
        refusal: the reason why they cannot.

    Attributes:
        refusal: why the ranks cannot be changed together; "" if they can.
        statistics: the statistics of this rank, and summed up over all ranks. None if the ranks
            cannot reach each other.
    """

    def __init__(self, group: SideProcessGroup | None, refusal: str = "") -> None:
        self._group = group
        self._agreement = None if group is None else DecisionBroadcast(group)
        self.statistics = None if group is None else RankStatistics(group)
        self.refusal = refusal

    def close(self, *, is_clean: bool) -> None:
        """Leave the group; after an error, without waiting for the others."""
        try:
            if self._agreement is not None and is_clean:
                self._agreement.finish()
        except LostRankError:
            log.info("The last exchange with the other ranks failed", exc_info=True)
        self._agreement = None
        if self._group is not None:
            self._group.close()

    def _lose(self, error: LostRankError) -> None:
        """Refuse changes from now on: a rank has ended, or does not reply."""
        self._agreement = None
        if self.statistics is not None:
            self.statistics.stop()
        if not self.refusal:
            self.refusal = (
                f"another rank of this training no longer replies ({error}); its ranks can no "
                "longer be changed together"
            )
            log.warning("%s", self.refusal)

    def _arrive(self, agreement: DecisionBroadcast) -> RankActionBeforeBatch | None:
        """Return what all ranks do before this batch, and do what is shared about statistics."""
        action = agreement.begin_batch()
        if action is not None and self.statistics is not None:
            self.statistics.apply_instruction(agreement.instruction)
        return action

    @property
    def _reached(self) -> SideProcessGroup:
        """The group, whose other ranks have stopped before this batch, too.

        Raises:
            EditRefusedError: they have not.
        """
        if self._group is None:
            raise EditRefusedError(self.refusal)
        return self._group

    def copy_from_rank_zero(self, tensors: Sequence[Tensor]) -> None:
        """Give these tensors, in all ranks, the values of those of rank 0."""
        self._reached.copy_from_rank_zero(tensors)

    def check_agreement(self, value: int, failure: str = "") -> None:
        """Check that no rank has failed and that all have the same value."""
        self._reached.check_agreement(value, failure)
