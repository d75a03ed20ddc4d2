"""The verdicts on a run, as figures and as text for the loggers of the Trainer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from revacnn_lightning.diagnostics.verdicts import Verdict, VerdictKind
from revacnn_lightning.history.network_verdicts import NetworkVerdicts
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.messages import Message, Snapshot, Structure

__all__ = ["VerdictLogConverter"]

# Not trained yet is what every network is at first, and silent filters are logged as findings.
UNLOGGED: tuple[VerdictKind, ...] = ("untrained", "dead")
NONE_LEFT = "no verdicts"


class VerdictLogConverter:
    """Converts the verdicts on a run to metrics and text for the loggers.

    A verdict is logged as the number of filters that it concerns, or as 1 if it concerns a layer as
    a whole, and as 0 once it is gone. It rests on the batches that the run has published: without a
    viewer, these are the ones that the loggers get, so that the first verdicts follow after 20 of
    them.
    """

    def __init__(self) -> None:
        self._verdicts = NetworkVerdicts()
        self._structure: Structure | None = None
        self._known: set[str] = set()  # names of figures
        self._text = NONE_LEFT

    def receive(self, message: Message) -> None:
        """Receive what the run has published."""
        if isinstance(message, Structure):
            before, self._structure = self._structure, message
            if before is None or before.version != message.version:
                self._verdicts.update_structure(before, message)
        elif isinstance(message, Snapshot):
            self._verdicts.add(message)
        elif isinstance(message, LayerEvidence):
            self._verdicts.add_evidence(message)

    def update(self, dead: np.ndarray | None) -> tuple[dict[str, float], str]:
        """Return metrics by ``layer/kind``, and the evidence as text; "" if the text is unchanged.

        Args:
            dead: which filters are dead, bool (filters,); None while this is unknown.
        """
        found = [
            one
            for one in self._verdicts.verdicts(dead)
            if one.is_known and one.layer and one.kind not in UNLOGGED
        ]
        figures = dict.fromkeys(sorted(self._known), 0.0)
        for one in found:
            name = f"{one.layer}/{one.kind}"
            figures[name] = figures.get(name, 0.0) + float(len(one.filters) or 1)
        self._known = set(figures)
        before, self._text = self._text, _describe(found)
        return figures, "" if self._text == before else self._text


def _describe(verdicts: Sequence[Verdict]) -> str:
    """Return for example ``conv1: restless, each step changes its weights by 5%``."""
    texts = [f"{one.layer}: {one.kind.replace('_', ' ')}, {one.evidence}" for one in verdicts]
    return "; ".join(texts) or NONE_LEFT
