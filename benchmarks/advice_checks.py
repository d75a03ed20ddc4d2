"""Checks of verdicts in `benchmarks.advice`: healthy trainings, and filters dead for good."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.advice_networks import NETWORKS
from benchmarks.advice_removals import MeasuredRemoval, measure_removals
from benchmarks.report import Report, progress
from revacnn_lightning.diagnostics.dead_filters import DeadFilterTracker
from revacnn_lightning.diagnostics.layer_verdicts import judge_layer
from revacnn_lightning.diagnostics.verdict_window import VerdictWindow
from revacnn_lightning.diagnostics.verdicts import MIN_BATCHES
from revacnn_lightning.history.network_verdicts import to_layer_measures
from revacnn_lightning.runtime.batch import BatchContext, Progress, TrainingBatch
from revacnn_lightning.runtime.layer_examination import RedundancyExaminer
from revacnn_lightning.runtime.provably_dead_filters import ProvablyDeadFilters
from revacnn_lightning.runtime.starting_weights import StartingWeights
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder

__all__ = ["check_dead_filter_removals", "check_healthy_trainings"]

Batch = tuple[Tensor, Tensor]
COMPLAINTS = ("restless", "vanishing", "exploding", "nonfinite", "degenerate")
JUDGED_EVERY = 10
MAX_COMPLAINTS = 0.02
ROUNDING = 1e-5, 1e-13  # relative to the largest output, float32 and float64
HEALTHY_SEEDS = 3
NO_SAMPLES = np.zeros((0, 0))
OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "AdamW": functools.partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.02),
    "SGD": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4),
}


@dataclass
class VerdictCounts:
    """How many layers were judged, and on how many of them there was a verdict of each kind."""

    layers: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def share_of_layers(self, *kinds: str) -> float:
        """Return the share of the judged layers with verdicts of these kinds."""
        return sum(self.kinds[kind] for kind in kinds) / max(1, self.layers)


def train_and_judge(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Batch]
) -> VerdictCounts:
    """Train a network; return the verdicts on its layers, each of which is judged now and then."""
    recorder, window, dead = Recorder(model), VerdictWindow(), DeadFilterTracker()
    editor = Editor(model, [optimizer])
    editor.channel_groups(ForwardProbe([functools.partial(model, batches[0][0][:2])]))
    start = StartingWeights(model, recorder)
    certificates = ProvablyDeadFilters(recorder, editor, lambda: [optimizer])
    examiner = RedundancyExaminer(model, recorder, certificates, start)
    recorder.attach()
    judgments = VerdictCounts()
    for step, (images, labels) in enumerate(batches):
        optimizer.zero_grad()
        recorder.begin_batch()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        recording = recorder.end_batch()
        assert recording is not None
        if step == 0:
            n = sum(recording.widths)
            offsets = np.cumsum([0, *recording.widths])
            window.update_structure(recording.layers, offsets, np.full(n, -1))
            dead = DeadFilterTracker(n)
            start.keep_present_weights()
        rows = dict(zip(recording.names, recording.values, strict=True))
        window.add(step, rows)
        dead.add(step, rows["activation"])
        if step >= MIN_BATCHES and step % JUDGED_EVERY == 0:
            context = BatchContext("", 0, TrainingBatch(Progress(step=step)))
            found = window.verdicts(dead.mask() if dead.is_known else None)
            for layer in recording.layers:
                evidence = examiner.examine(layer, NO_SAMPLES, context)
                found += judge_layer(layer, to_layer_measures(evidence), n)
            judgments.layers += len(recording.layers)
            judged = {(one.kind, one.layer) for one in found if one.is_known}
            judgments.kinds.update(kind for kind, _ in judged)
    recorder.detach()
    return judgments


def check_healthy_trainings(
    report: Report, names: Sequence[str], batches: list[Batch], seed: int
) -> None:
    """Judge healthy trainings, of all these batches each."""
    all_layers = VerdictCounts()
    runs = [(n, o, k) for n in names for o in OPTIMIZERS for k in range(HEALTHY_SEEDS)]
    for name, optimizer, number in progress(runs, "healthy trainings"):
        torch.manual_seed(1000 * (seed + 1) + number)
        model = NETWORKS[name]()
        found = train_and_judge(model, OPTIMIZERS[optimizer](model.parameters()), batches)
        all_layers.layers += found.layers
        all_layers.kinds += found.kinds
    counts = ", ".join(f"{kind} {count}" for kind, count in all_layers.kinds.most_common())
    report.add_note(f"healthy: {all_layers.layers} judgments of layers: {counts}")
    report.check_at_most(
        "healthy layers called degenerate", all_layers.share_of_layers("degenerate"), MAX_COMPLAINTS
    )
    report.check_at_most(
        "healthy layers with a complaint", all_layers.share_of_layers(*COMPLAINTS), MAX_COMPLAINTS
    )
    report.check_at_most(
        "healthy layers with filters dead for good", all_layers.share_of_layers("provably_dead"), 0
    )


def check_dead_filter_removals(
    report: Report, names: Sequence[str], batches: list[Batch], held_out: Batch, seed: int
) -> None:
    """Remove filters that are dead for good."""
    removals: list[MeasuredRemoval] = []
    for name in names:
        torch.manual_seed(seed + 2)
        for found in measure_removals(NETWORKS[name](), batches, held_out):
            if isinstance(found, str):
                report.add_note(f"dead for good: {name} · {found} gets no certificate")
            else:
                removals.append(found)
    for kind in ("float32", "float64", "masked", "exact"):
        changes = [getattr(one, kind) for one in removals]
        equal = sum(change == 0 for change in changes)
        report.add_note(
            f"dead for good, {kind}: {equal} of {len(changes)} outputs equal bit by bit"
        )
    limits = {"float32": ROUNDING[0], "float64": ROUNDING[1], "masked": 0.0, "exact": 0.0}
    for kind, limit in limits.items():
        largest = max(getattr(one, kind) for one in removals)
        report.check_at_most(f"dead for good, {kind}: change of the output", largest, limit)
