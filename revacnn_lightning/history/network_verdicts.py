"""The verdicts on the network of a run, from the messages that it publishes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from revacnn_lightning.diagnostics.layer_verdicts import LayerMeasures, TwinGroup, judge_layer
from revacnn_lightning.diagnostics.verdict_window import VerdictWindow
from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.diagnostics.window_verdicts import FrozenWindow, Judgment
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.filter_columns import find_previous_columns
from revacnn_lightning.protocol.messages import Snapshot, Structure

__all__ = ["FrozenEvidence", "NetworkVerdicts", "to_layer_measures"]

STATISTICS = ("activation", "gradient", "update_ratio")


@dataclass(frozen=True)
class FrozenEvidence:
    """An immutable copy of what verdicts on a network follow from. Any thread may judge it.

    Attributes:
        window: the statistics of the last batches; None before the structure is known.
        layers: what was found on examining them.
        dead: which filters are dead, bool (filters,); None while this is unknown.
        n_filters: number of filters of the network.
    """

    window: FrozenWindow | None
    layers: Sequence[LayerEvidence]
    dead: np.ndarray | None
    n_filters: int

    def judge(self) -> Judgment:
        """Return the verdicts, those first that are worth most to act on."""
        if self.window is None:
            return Judgment([], {})
        found = self.window.judge(self.dead)
        certified = {e.layer: set(e.provably_dead) for e in self.layers}
        left = [_without(one, certified.get(one.layer, set())) for one in found.verdicts]
        kept = [one for one in left if one is not None]
        for evidence in self.layers:
            measures = replace(
                to_layer_measures(evidence),
                busiest=self.window.most_active_filter(evidence.layer, evidence.redundant),
            )
            kept += judge_layer(evidence.layer, measures, self.n_filters)
        ordered = sorted(kept, key=lambda verdict: -verdict.worth)
        return replace(found, verdicts=ordered)


class NetworkVerdicts:
    """Derives verdicts on the network of a run from its batches and from examined layers.

    Attributes:
        revision: incremented with every batch, every other structure and all evidence.
        evidence: the requested evidence on layers of the present network, by layer.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._window = VerdictWindow()
        self.evidence: dict[str, LayerEvidence] = {}
        self._version: int | None = None
        self._n_filters = 0

    def update_structure(self, before: Structure | None, structure: Structure) -> None:
        """Adopt the network after an edit; ``before`` is the one before, of the same run."""
        widths = [len(layer.filter_ids) for layer in structure.layers]
        self._window.update_structure(
            [layer.name for layer in structure.layers],
            np.cumsum([0, *widths]),
            find_previous_columns(before, structure),
            _coefficient_counts(structure),
        )
        self._scale_peaks(before, structure)
        self._version = structure.version
        self._n_filters = sum(widths)
        self.evidence.clear()
        self.revision += 1

    def _scale_peaks(self, before: Structure | None, structure: Structure) -> None:
        """A layer whose learning rate was lowered has not converged because of that."""
        rates = {one.name: one.learning_rate_factor for one in before.layers} if before else {}
        for layer in structure.layers:
            factor = layer.learning_rate_factor
            self._window.scale_peak_update_level(layer.name, factor / rates.get(layer.name, factor))

    def add_evidence(self, evidence: LayerEvidence) -> None:
        """Add what was found on examining a layer, unless the network is another one."""
        if evidence.version == self._version:
            self.evidence[evidence.layer] = evidence
            self.revision += 1

    def merge_scales_of_twins(self, layer: str, filters: Collection[int]) -> dict[int, float]:
        """Return the ``scales`` of a merge of these filters; {} unless all are known twins."""
        evidence = self.evidence.get(layer)
        for twins in [] if evidence is None else evidence.twins:
            scales = dict(zip(twins.filters, twins.scales, strict=True))
            if set(filters) <= scales.keys():
                strongest = max(scales[index] for index in filters)
                return {index: scales[index] / strongest for index in filters}
        return {}

    def add(self, snapshot: Snapshot) -> None:
        """Add a batch, unless it was trained with another network."""
        if snapshot.version != self._version:
            return
        rows = dict(zip(snapshot.statistics, snapshot.values, strict=False))
        kept = {name: rows[name].copy() for name in STATISTICS if name in rows}
        intervals = dict(zip(snapshot.statistics, snapshot.sampling_intervals, strict=False))
        is_sampled = intervals.get("update_ratio", 1) > 1
        self._window.add(snapshot.step, kept, count=snapshot.batch_count, is_sampled=is_sampled)
        self.revision += 1

    def verdicts(self, dead: np.ndarray | None = None) -> list[Verdict]:
        """Return the verdicts, those first that are worth most to act on.

        Args:
            dead: which filters are dead, bool (filters,); None while this is unknown.
        """
        judgment = self.frozen(dead).judge()
        self.record_levels(judgment)
        return judgment.verdicts

    def frozen(self, dead: np.ndarray | None = None) -> FrozenEvidence:
        """Return an immutable copy of what verdicts follow from; see `verdicts`."""
        return FrozenEvidence(
            None if self._version is None else self._window.frozen_copy(),
            tuple(self.evidence.values()),
            None if dead is None else dead.copy(),
            self._n_filters,
        )

    def record_levels(self, judgment: Judgment) -> None:
        """Record the levels that frozen evidence has shown: later verdicts compare with them."""
        self._window.record_levels(judgment)


def _coefficient_counts(structure: Structure) -> np.ndarray:
    """Return how many coefficients each filter of the network has, (filters,)."""
    counts = [
        one.in_channels // max(1, one.groups) * math.prod(one.kernel_size)
        for one in structure.layers
    ]
    return np.repeat(
        np.array(counts, np.float64), [len(one.filter_ids) for one in structure.layers]
    )


def _without(verdict: Verdict, certified: set[int]) -> Verdict | None:
    """Return a verdict on silent filters without those that are certified; None if none is left."""
    if verdict.kind != "dead" or not certified:
        return verdict
    filters = tuple(index for index in verdict.filters if index not in certified)
    if not filters:
        return None
    return replace(
        verdict, filters=filters, worth=verdict.worth * len(filters) / len(verdict.filters)
    )


def to_layer_measures(evidence: LayerEvidence) -> LayerMeasures:
    """Return the measures that verdicts on a layer follow from, given the evidence of a run."""
    return LayerMeasures(
        evidence.width,
        evidence.provably_dead,
        [TwinGroup(t.filters, t.share, t.scales, t.change, t.error) for t in evidence.twins],
        evidence.samples,
        evidence.moved,
        evidence.silhouette,
        evidence.hopkins,
        evidence.effective_rank,
        evidence.random_silhouette,
        evidence.random_effective_rank,
        evidence.redundant,
        single_color=evidence.single_color,
    )
