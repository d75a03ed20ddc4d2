"""Reads the gradients of all weights with a hook on a single one.

A hook on each weight costs the host as much as all reductions of the weights together. In a plain
training it finds the same in each batch: there is one backward pass, ``.grad`` is empty before it,
and the gradients of the weights arrive in the same order. After some batches of this kind, only the
weight whose gradient arrives first keeps its hook: the *lead*. The others are its *followers*.

Nothing is taken for granted. When the gradient of the lead arrives, its hook checks that this is
the only pass so far, and that ``.grad`` of the followers is empty. If not, they get their hooks
back before their gradients arrive. At its end, the batch checks that no pass has missed the lead:
autograd numbers them (`ProcessBackwardPassCounter`). If one has, the gradients of the followers
are lost: they are not measured in this batch.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

from torch import Tensor

from revacnn_lightning.telemetry.recording.backward_passes import ProcessBackwardPassCounter
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums

__all__ = ["MIN_WEIGHTS", "PROOF", "SingleWeightHookPolicy"]

PROOF = 8  # batches of the same kind before only one weight has a hook
MIN_WEIGHTS = 6  # hooks on fewer cost less than what the lead checks

_IS_PRESENT = functools.partial(operator.is_not, None)  # `in` would compare element by element


class SingleWeightHookPolicy:
    """Decides whether a hook on a single weight is enough, and checks that it was.

    Attributes:
        order: the lead and its followers, as their gradients arrive; empty if all weights have a
            hook.
        followers: the weights without a hook.
        has_passed: whether the lead has received a gradient in this batch.
    """

    def __init__(self) -> None:
        self.order: tuple[WeightSums, ...] = ()
        self.followers: frozenset[WeightSums] = frozenset()
        self.has_passed = False
        self._passes = ProcessBackwardPassCounter()
        self._start = -1  # number of the last pass before the batch
        self._candidate: tuple[WeightSums, ...] = ()  # the order in the last batches
        self._seen = 0  # batches of this order
        self._is_possible = True
        self._tensors: list[Tensor] = []  # of `order`

    def reset(self) -> None:
        """Start over, because the weights have changed."""
        self.require_all_hooks()
        self._is_possible = True

    def require_all_hooks(self) -> None:
        """Let all weights have hooks, for as many batches as it takes to prove that one is enough.

        The caller adds the hooks.
        """
        self.order, self.followers, self._tensors = (), frozenset(), []
        self._candidate, self._seen = (), 0

    def require_all_hooks_until_reset(self) -> None:
        """Let all weights have hooks until `reset`, because gradients were lost."""
        self.require_all_hooks()
        self._is_possible = False

    def begin_batch(self) -> None:
        """Count the passes from here."""
        self.has_passed = False
        if self.order or self._candidate:
            self._start = self._passes.run_empty_pass()

    # ------------------------------------------------------------------ with hooks on all weights

    def learn(self, pass_number: int, order: tuple[WeightSums, ...]) -> bool:
        """Learn from a batch that gave each weight with a gradient only one, in the same pass.

        Args:
            pass_number: the number of that pass.
            order: the order in which the gradients arrived.

        Returns:
            Whether a hook on the first one is enough.
        """
        if order != self._candidate:
            is_worth_it = self._is_possible and len(order) >= MIN_WEIGHTS and _are_plain(order)
            self._candidate, self._seen = order if is_worth_it else (), 0
            return False
        if pass_number != self._start + 1 or self._passes.run_empty_pass() != pass_number + 1:
            # This training runs other passes, too, which no weight shows.
            self.require_all_hooks_until_reset()
            return False
        self._seen += 1
        if self._seen < PROOF:
            return False
        self.order, self.followers = order, frozenset(order[1:])
        self._tensors = [each.parameter for each in order if each.parameter is not None]
        return True

    # ------------------------------------------------------------------ with a hook on the lead

    def are_gradients_empty(self) -> bool:
        """Return whether ``.grad`` of all weights is empty, when the gradient of the lead arrives.

        Then ``.grad`` holds this pass alone when that has ended.
        """
        return not any(map(_IS_PRESENT, [weight.grad for weight in self._tensors]))

    def possibly_missed_weights(self, pass_number: int) -> Sequence[WeightSums]:
        """Return the followers whose gradient may have been missed, or a part of it.

        Args:
            pass_number: the number of the pass in which the gradient of the lead has just arrived.
        """
        if pass_number != self._start + 1 + self.has_passed:
            return self.order[1:]
        return [each for each in self.order[1:] if not each.has_no_unread_grad()]

    def has_missed_pass(self) -> bool:
        """Return whether some pass of the batch has missed the lead."""
        return self._passes.run_empty_pass() != self._start + 1 + self.has_passed


def _are_plain(all_weights: Sequence[WeightSums]) -> bool:
    """Return whether all are parameters that are multiplied with as they are, with slots."""
    return all(each.plain is each.parameter for each in all_weights)
