"""The findings about the layers, as figures and as text for the loggers of the Trainer."""

from __future__ import annotations

from collections.abc import Mapping

from revacnn_lightning.diagnostics.findings import (
    DeadZeroNonfiniteCounter,
    FindingCounts,
    describe_finding,
)
from revacnn_lightning.history.network_statistics import NetworkAndDeadFilterTracker
from revacnn_lightning.protocol.messages import Snapshot

__all__ = ["FindingLogConverter"]

NORM = "weight_norm"
NONE_LEFT = "no dead, zero or non-finite filters"


class FindingLogConverter:
    """Converts the findings at a batch to metrics and text for the loggers.

    A finding is logged as the number of filters it affects, and as 0 once it is gone. Layers
    without findings are not logged, so that they do not fill the user's dashboard.
    """

    def __init__(self) -> None:
        self._finding_counter = DeadZeroNonfiniteCounter()
        self._counts: dict[str, FindingCounts] = {}  # of the findings so far, by layer
        self._text = NONE_LEFT

    def update(
        self, batch: Snapshot, network: NetworkAndDeadFilterTracker
    ) -> tuple[dict[str, float], str]:
        """Return metrics by ``layer/kind``, and the findings as text; "" if the text is unchanged.

        Args:
            batch: the batch that ``network`` was updated with. Findings that need a statistic that
                the batch lacks stay as they are.
        """
        norms = batch.values[batch.statistics.index(NORM)] if NORM in batch.statistics else None
        present = self._finding_counter.count(
            network.layer_names, network.offsets, norms, network.dead_mask()
        )
        for layer, counts in present.items():
            known = self._counts.get(layer, {})
            present[layer] = known | {k: n for k, n in counts.items() if n or k in known}
        self._counts = present
        before, self._text = self._text, _describe(present)
        figures = {
            f"{layer}/{kind}": float(count)
            for layer, counts in present.items()
            for kind, count in counts.items()
        }
        return figures, "" if self._text == before else self._text


def _describe(counts_by_layer: Mapping[str, FindingCounts]) -> str:
    """Return for example ``conv1: 3 dead; conv2: 1 all zero``."""
    texts = []
    for layer, counts in counts_by_layer.items():
        found = [describe_finding(kind, count) for kind, count in counts.items() if count]
        if found:
            texts.append(f"{layer}: {', '.join(found)}")
    return "; ".join(texts) or NONE_LEFT
