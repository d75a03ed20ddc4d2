"""What merging twins costs, measured before a viewer offers it."""

from __future__ import annotations

from msgspec.structs import replace

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol.evidence import LayerEvidence, TwinEvidence
from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.protocol.requests import MergeFilters
from revacnn_lightning.runtime.batch import make_probe_without_forwards
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.removal_prices import LossChangeMeasurer
from revacnn_lightning.steering import Editor

__all__ = ["TwinMergeMeasurer"]

MAX_GROUPS = 4  # of a layer that are measured
SECONDS_EACH = 0.01  # for the forwards of a measurement


class TwinMergeMeasurer:
    """Measures by how much the loss would change if twin filters were merged.

    Args:
        editor: makes the plans.
        prices: measures the prices.
        replay: computes the loss.
    """

    def __init__(self, editor: Editor, prices: LossChangeMeasurer, replay: LossReplay) -> None:
        self._editor = editor
        self._prices = prices
        self._replay = replay

    def is_ready(self, version: int) -> bool:
        """Return whether prices can be measured; if not, record a training step."""
        is_ready = self._replay.is_ready(version) and self._replay.group_count > 0
        if not is_ready:
            self._replay.request_recording()
        return is_ready

    def add_prices(self, evidence: LayerEvidence, weights_key: object) -> LayerEvidence:
        """Return the evidence with the prices of the first few groups of twins.

        Args:
            evidence: the evidence of a layer of the present network.
            weights_key: a value that is equal as long as the weights have not changed.
        """
        first = [self._priced(evidence.layer, twins, weights_key) for twins in
                 evidence.twins[:MAX_GROUPS]]  # fmt: skip
        return replace(evidence, twins=[*first, *evidence.twins[MAX_GROUPS:]])

    def _priced(self, layer: str, twins: TwinEvidence, weights_key: object) -> TwinEvidence:
        if not self._editor.is_traced:
            return twins
        try:
            plan = self._editor.plan(
                MergeFilters(layer, twins.filters, twins.scales), make_probe_without_forwards()
            )
        except RevacnnError:  # they cannot be merged
            return twins
        price = self._prices.measure(plan, weights_key, SECONDS_EACH)
        if not isinstance(price, RemovalPrice):
            return twins
        return replace(twins, change=price.change, error=price.error)
