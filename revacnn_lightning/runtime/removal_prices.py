"""By how much the loss would change if filters were removed: measured, not estimated."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from statistics import fmean, stdev

import torch

from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.protocol.requests import MergeFilters, Reinitialize, RemoveFilters
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.execution.initialization import Initializer
from revacnn_lightning.steering.execution.plan_queries import are_normalized_together
from revacnn_lightning.steering.execution.reference_outputs import disconnect_removed_filters
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.forward_probe import ForwardFailedError
from revacnn_lightning.telemetry.inspection.object_state import ObjectState

__all__ = ["PRICED", "LossChangeMeasurer", "has_measurable_loss_change"]

log = logging.getLogger(__name__)

PRICED = (RemoveFilters, MergeFilters, Reinitialize)
# Of the forwards before an edit; the number of images follows from it. The training and whoever has
# clicked wait for as long again without the filters.
MAX_SECONDS = 0.01

NOT_FINITE = "the loss on these images is not finite"
NOT_TRACED = "the network has not been traced yet"
NORMALIZED = "a norm mixes these filters with others, which change as well"


def has_measurable_loss_change(request: object) -> bool:
    """Return whether the effect of an edit on the loss can be measured before it is applied."""
    return isinstance(request, PRICED)


class LossChangeMeasurer:
    """Measures the change of the loss that a plan leads to, without carrying it out.

    The loss is that of training_step on up to 256 images of recent batches, computed in groups of
    at most 16 (`LossReplay`), in evaluation mode. The outgoing weights of the filters, and of all
    coupled ones, are set to zero for a second forward of each group, and set back: that is what the
    network computes after the removal (`disconnect_removed_filters`). The change is the mean of the
    differences, its error their standard deviation divided by the square root of their number.

    Range: any number; negative where the loss falls. Cost: a forward of these images with the
    filters and one without them, or of as many groups as take `MAX_SECONDS`, at least two. Where
    the loss is a sum over the images, the change is that of one group.

    Args:
        editor: makes the plans.
        replay: computes the loss of its model.
    """

    def __init__(self, editor: Editor, replay: LossReplay) -> None:
        self._editor = editor
        self._model = editor.model
        self._replay = replay
        self._before: list[float] = []  # the loss of each group, with the weights of now
        self._before_key: object = None
        self._objects: ObjectState | None = None

    @property
    def note(self) -> str:
        """Why nothing can be measured; "" if it can."""
        return self._replay.note

    def measure(
        self, plan: EditPlan, weights_key: object, seconds: float = MAX_SECONDS
    ) -> RemovalPrice | str:
        """Return the price of a plan, or the reason why it cannot be measured.

        Args:
            plan: the plan of an edit of `PRICED`, for the present network.
            weights_key: a value that is equal as long as the weights have not changed.
            seconds: for the forwards before the edit; the number of images follows from it.
        """
        groups = self._editor.traced_groups
        if self._replay.note or groups is None:
            return self._replay.note or NOT_TRACED
        if are_normalized_together(groups, plan):
            return NORMALIZED
        try:
            before = self._losses_before(weights_key, seconds)
            after = self._losses_after(plan, len(before))
        except ForwardFailedError as error:
            log.info("Cannot measure the price of %s", plan.title, exc_info=True)
            return str(error)
        return _price(before, after, self._replay)

    def _losses_before(self, weights_key: object, seconds: float) -> Sequence[float]:
        """Return the loss of as many groups of images as there is time for."""
        key = (weights_key, seconds, self._replay.step, self._replay.group_count)
        if key == self._before_key:
            return self._before
        self._objects = ObjectState(self._model)
        self._before = self._replay.losses(None, self._objects, seconds=seconds)
        self._before_key = key
        return self._before

    def _losses_after(self, plan: EditPlan, count: int) -> Sequence[float]:
        with Transaction() as tx:
            disconnect_removed_filters(tx, self._model, plan, Initializer(torch.Generator()))
            losses = self._replay.losses(count, self._objects)
            tx.rollback()
        return losses


def _price(
    before: Sequence[float], after: Sequence[float], replay: LossReplay
) -> RemovalPrice | str:
    changes = [b - a for a, b in zip(before, after, strict=True)]
    if not changes or not all(map(math.isfinite, [*before, *changes])):
        return NOT_FINITE
    error = stdev(changes) / math.sqrt(len(changes)) if len(changes) > 1 else math.nan
    images = replay.image_count_of(len(changes))
    return RemovalPrice(fmean(changes), error, fmean(before), images, replay.step)
