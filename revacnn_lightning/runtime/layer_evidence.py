"""Examines one layer after another while a viewer shows verdicts: `LayerEvidence` messages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.rate_limit import TokenBucket
from revacnn_lightning.protocol.requests import InspectEvidence
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.layer_examination import (
    RedundancyExaminer,
    evenly_spaced_filter_indices,
)
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.provably_dead_filters import ProvablyDeadFilters
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.runtime.starting_weights import StartingWeights
from revacnn_lightning.runtime.twin_prices import TwinMergeMeasurer
from revacnn_lightning.steering import Editor
from revacnn_lightning.telemetry import Recorder

__all__ = ["LayerEvidenceCollector", "make_evidence_collector"]

SELECTION_SECONDS = 10.0  # how long a selection lasts unless it is renewed
TIME_SHARE = 0.02  # of the time that examinations take
BURST_SECONDS = 0.1
STALE_BATCHES = 200  # after which a layer is examined again
MAX_BATCHES = 64  # that the samples of a layer are gathered from
SAMPLES, SAMPLES_PER_UNIT = 256, 6  # of a layer, at least
PRICE_BATCHES = 10  # to wait for a recorded training step
TRACE_BATCHES = 20  # to wait for a trace, which certificates need


class LayerEvidenceCollector:
    """Collects a layer's evidence for verdicts, over a few batches per layer, one layer at a time.

    Args:
        recorder: samples the activations.
        examiner: examines a layer.
        prices: measure what merging twins would cost.
        starting_weights: the weights at the start of the run.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        examiner: RedundancyExaminer,
        prices: TwinMergeMeasurer,
        starting_weights: StartingWeights,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._recorder = recorder
        self._examiner = examiner
        self._prices = prices
        self._start = starting_weights
        self._clock = clock
        self._budget = TokenBucket(TIME_SHARE, BURST_SECONDS, clock)
        self._expires_at = -math.inf
        self._is_first_batch = True
        self._untraced_batches = 0
        self._wanted = ""
        self._examined: dict[str, int] = {}  # step by layer
        self._clear()

    def _clear(self) -> None:
        self._layer = ""  # that is examined now
        self._units: Tensor | None = None
        self._samples: list[Tensor] = []
        self._n_batches = 0
        self._unpriced: LayerEvidence | None = None
        self._recorder.activation_samples.select(None)

    def select(self, request: InspectEvidence) -> None:
        """Examine the layers for the next few seconds.

        Raises:
            EditRefusedError: there is no such layer.
        """
        if request.layer and request.layer not in self._recorder.layers:
            raise EditRefusedError(f"there is no watched layer {request.layer} in the network")
        if request.layer and request.layer != self._layer:
            self._wanted = request.layer
        self._expires_at = self._clock() + SELECTION_SECONDS

    def reset(self) -> None:
        """Discard what is known of the old network."""
        self._start.track_edits()
        self._examined.clear()
        self._untraced_batches = 0
        self._clear()

    def collect(self, context: BatchContext) -> Sequence[LayerEvidence]:
        """Add the activations of this batch; return the evidence of a layer once it is complete."""
        if self._is_first_batch and not context.is_paused:
            self._is_first_batch = False
            if context.step == 0:
                self._start.keep_present_weights()
        if self._clock() >= self._expires_at:
            if self._layer:
                self._clear()
            return []
        if context.is_paused:
            return []
        if not self._examiner.is_traced and self._untraced_batches < TRACE_BATCHES:
            self._untraced_batches += 1
            return []
        if not self._layer:
            self._begin(context.step)
            return []
        self._n_batches += 1
        found = self._unpriced or self._examine(context)
        if found is None:
            return []
        if found.twins and not self._prices.is_ready(context.version):
            self._unpriced = found
            if self._n_batches < PRICE_BATCHES:
                return []
        found = self._prices.add_prices(found, (context.step, context.version))
        self._examined[self._layer] = context.step
        self._clear()
        self._begin(context.step)
        return [found]

    def _begin(self, step: int) -> None:
        """Sample the layer that is to be examined next, if one is due."""
        due = [
            (self._examined.get(layer, -STALE_BATCHES), layer)
            for layer in self._recorder.layers
            if step - self._examined.get(layer, -STALE_BATCHES) >= STALE_BATCHES
        ]
        if not self._wanted and not due:
            return
        self._layer, self._wanted = self._wanted or min(due, key=lambda one: one[0])[1], ""
        widths = dict(zip(self._recorder.layers, self._recorder.widths, strict=True))
        self._units = evenly_spaced_filter_indices(widths[self._layer])
        self._recorder.activation_samples.select(self._layer, self._units)

    def _examine(self, context: BatchContext) -> LayerEvidence | None:
        """Add the sample of the batch; return what is found on examining the layer.

        None if there are too few samples or too little time yet.
        """
        sample = self._recorder.activation_samples.pop_sample()
        if sample is not None and len(self._samples) < MAX_BATCHES:
            self._samples.append(sample)
        n_samples = sum(map(len, self._samples))
        n_units = 0 if self._units is None else len(self._units)
        is_enough = n_samples >= max(SAMPLES, SAMPLES_PER_UNIT * n_units)
        if (not is_enough and self._n_batches < MAX_BATCHES) or self._budget.is_empty:
            return None
        started = self._clock()
        samples = torch.cat(self._samples).cpu().numpy() if self._samples else np.zeros((0, 0))
        found = self._examiner.examine(self._layer, samples, context)
        self._budget.spend(self._clock() - started)
        self._samples, self._n_batches = [], 0
        self._recorder.activation_samples.select(None)
        return found


def make_evidence_collector(
    model: nn.Module,
    recorder: Recorder,
    editor: Editor,
    get_optimizers: Callable[[], Sequence[Optimizer]],
    prices: LossChangeMeasurer,
    replay: LossReplay,
) -> LayerEvidenceCollector:
    """Return the `LayerEvidenceCollector` of a run, made of the objects of the run."""
    start = StartingWeights(model, recorder, lambda: editor.journal)
    certificates = ProvablyDeadFilters(recorder, editor, get_optimizers)
    examiner = RedundancyExaminer(model, recorder, certificates, start)
    return LayerEvidenceCollector(
        recorder, examiner, TwinMergeMeasurer(editor, prices, replay), start
    )
