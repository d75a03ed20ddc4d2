"""Where the filters were at the first batch of a run, to know how far they have moved."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from revacnn_lightning.runtime.weight_sample import WeightSample
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.conv import filter_rows, weight_parameter
from revacnn_lightning.telemetry.inspection.downsampling import project_rows_randomly
from revacnn_lightning.telemetry.module_tree import list_named_tensors
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["StartingWeights"]

Samples = dict[str, WeightSample]  # by layer


class StartingWeights:
    """Keeps a sample of the weights at the start of the run, and tracks it through edits.

    They are taken once, after the first batch of a run that begins at batch 0: about 14 MB for the
    27,000 filters of a ResNet-50. What an edit adds starts with the values that the edit gives it.

    Args:
        model: the network.
        recorder: knows its layers.
        get_journal: returns its edits.
    """

    def __init__(
        self,
        model: nn.Module,
        recorder: Recorder,
        get_journal: Callable[[], Journal] = Journal,
    ) -> None:
        self._model = model
        self._recorder = recorder
        self._get_journal = get_journal
        self._is_kept = False
        self._samples: Samples = {}
        self._convs: dict[str, UnitLayer] = {}  # that have the samples
        self._plans: list[EditPlan] = []  # the edits that the samples have been through
        self._before: list[Samples] = []  # the samples before each of the newest of them
        self._undone: list[tuple[EditPlan, Samples]] = []  # an undone edit, the samples after it

    def keep_present_weights(self) -> None:
        """Keep the present weights as those of the start."""
        self._is_kept = True
        self._plans = [entry.plan for entry in self._get_journal().entries]
        self._complete()

    def track_edits(self) -> None:
        """Apply the edits since the last call, also those that were undone or redone."""
        if not self._is_kept:
            return
        journal = self._get_journal()
        plans = [entry.plan for entry in journal.entries]
        shared = sum(a is b for a, b in zip(self._plans, plans, strict=False))
        if shared == len(plans) == len(self._plans):
            self._forget_replaced()
        for plan in reversed(self._plans[shared:]):
            self._undone.append((plan, self._samples))
            if self._before:  # an edit of an earlier run leaves the shapes of this one's start
                self._samples = self._before.pop()
        for plan in plans[shared:]:
            self._before.append(self._samples)
            if self._undone and self._undone[-1][0] is plan:
                self._samples = self._undone.pop()[1]
            else:
                self._undone.clear()
                self._samples = self._after(plan)
        self._plans = plans
        del self._before[: max(0, len(self._before) - journal.undoable)]
        self._complete()

    def project_present_filters(self, layer: str) -> np.ndarray | None:
        """Return a projection of a layer's filters, float32 (C, at most 64).

        None if the coefficients are not known: before the first forward of a layer that computes
        them.
        """
        weight, conv = self._present(layer)
        if weight is None or conv is None:
            return None
        return project_rows_randomly(filter_rows(weight.detach(), conv)).cpu().numpy()

    def relative_change(self, layer: str) -> float:
        """Return ‖w - w₀‖ / ‖w₀‖ of the layer's median filter, 0 or more.

        NaN if the start is unknown, or if all filters started as zeros.
        """
        weight, conv = self._present(layer)
        sample = self._samples.get(layer)
        if weight is None or conv is None or sample is None:
            return math.nan
        return sample.relative_change(weight, conv)

    def _after(self, plan: EditPlan) -> Samples:
        """Return the samples after an edit, without what is new."""
        names = {id(tensor): name for name, tensor in list_named_tensors(self._model)}
        blocks = [f"{edit.host}.{edit.child}".rstrip(".") for edit in plan.layers]
        changed = {edit.tensor for edit in plan.tensors} | {value.tensor for value in plan.values}
        samples = {}
        for layer, sample in self._samples.items():
            if any(f"{layer}.".startswith(f"{block}.") for block in blocks):
                continue  # another layer of this name
            _, conv = self._present(layer)
            weight = None if conv is None else weight_parameter(conv)
            name = names.get(id(weight), "")
            samples[layer] = sample.after_edit(plan, name) if name in changed else sample
        return samples

    def _forget_replaced(self) -> None:
        """Forget layers that are others now, without an edit: the user's code has replaced them."""
        for layer, conv in self._convs.items():
            if self._present(layer)[1] is not conv:
                self._samples.pop(layer, None)

    def _complete(self) -> None:
        """Add what is new in the network: it starts as it is now."""
        samples = {}
        self._convs.clear()
        for layer in self._recorder.layers:
            weight, conv = self._present(layer)
            if weight is not None and conv is not None:
                known, self._convs[layer] = self._samples.get(layer), conv
                samples[layer] = (
                    known.with_new_entries(weight, conv) if known else WeightSample.of(weight, conv)
                )
        self._samples = samples

    def _present(self, layer: str) -> tuple[Tensor | None, UnitLayer | None]:
        """Return the weight of a layer as it is now, and the layer."""
        if layer not in self._recorder.layers:
            return None, None
        conv = self._model.get_submodule(layer)
        return self._recorder.current_weight(layer), conv if isinstance(conv, UnitLayer) else None
