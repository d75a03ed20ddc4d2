"""Checks that an edit leaves every trained parameter in the parameter groups it belongs to.

An optimizer steps whatever its groups list. A parameter of the model that is in no group is never
trained, and one that is listed twice is trained twice; neither raises an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.telemetry.module_tree import list_named_parameters

__all__ = ["ParamGroupMembershipCheck"]


class ParamGroupMembershipCheck:
    """How often each optimizer lists each parameter of the model, as it was at construction."""

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self._model = model
        self._optimizers = optimizers
        self._before = self._count_groups()

    def check(self, *, new_are_trained: bool = True) -> None:
        """Check the groups after an edit.

        The optimizers list every earlier parameter as often as before. They list every new one
        once; with ``new_are_trained``, at least one lists a new parameter that requires a gradient,
        unless it is in a module that no optimizer trains, such as a target network. Nothing is
        checked if there are no optimizers.

        Raises:
            EditFailedError: a parameter is listed otherwise; the edit must be rolled back.
        """
        after = self._count_groups()
        wrong = [
            name
            for name, parameter in list_named_parameters(self._model)
            if not self._is_listed_correctly(name, parameter, after[id(parameter)], new_are_trained)
        ]
        if wrong and self._optimizers:
            kinds = ", ".join(sorted({type(each).__name__ for each in self._optimizers}))
            raise EditFailedError(
                f"after the edit {', '.join(wrong[:6])} would be in no parameter group of {kinds}, "
                "or in several; the edit was rolled back"
            )

    def _is_listed_correctly(
        self, name: str, parameter: nn.Parameter, now: Counter[int], new_are_trained: bool
    ) -> bool:
        if id(parameter) in self._before:
            return now == self._before[id(parameter)]
        if not now and new_are_trained and parameter.requires_grad:
            return not self._is_in_trained_module(name)
        return max(now.values(), default=1) == 1

    def _is_in_trained_module(self, name: str) -> bool:
        """Return whether optimizers list parameters of the closest module that had some before."""
        path = name
        while path:
            path = path.rpartition(".")[0]
            prefix = f"{path}." if path else ""
            earlier = [
                self._before[id(parameter)]
                for other, parameter in list_named_parameters(self._model)
                if other.startswith(prefix) and id(parameter) in self._before
            ]
            if earlier:
                return any(earlier)
        return True

    def _count_groups(self) -> dict[int, Counter[int]]:
        parameters = list_named_parameters(self._model)
        counts: dict[int, Counter[int]] = {id(p): Counter() for _, p in parameters}
        for i, optimizer in enumerate(self._optimizers):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if id(parameter) in counts:
                        counts[id(parameter)][i] += 1
        return counts
