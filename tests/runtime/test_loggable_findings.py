"""Which findings go to the loggers of the Trainer."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.diagnostics.dead_filters import DEAD_BATCHES
from revacnn_lightning.history.network_statistics import NetworkAndDeadFilterTracker
from revacnn_lightning.protocol.messages import Snapshot
from revacnn_lightning.runtime.loggable_findings import FindingLogConverter
from tests.recording.messages import snapshot, structure


def network() -> NetworkAndDeadFilterTracker:
    """Two layers, of two and three filters."""
    tracked = NetworkAndDeadFilterTracker()
    tracked.update_structure(structure())
    return tracked


def batch(step: int, *norms: float) -> Snapshot:
    values = np.array([norms, np.ones(5)], np.float32)
    return replace(snapshot(step), statistics=["weight_norm", "activation"], values=values)


def test_layers_without_findings_are_not_logged():
    assert FindingLogConverter().update(batch(0, 1, 1, 1, 1, 1), network()) == ({}, "")


def test_a_finding_is_logged_as_its_count_and_as_zero_once_it_is_gone():
    findings, tracked = FindingLogConverter(), network()
    figures, text = findings.update(batch(0, 0, 0, 1, 1, 1), tracked)
    assert (figures, text) == ({"conv0/zero": 2.0}, "conv0: 2 all zero")
    assert findings.update(batch(1, 0, 0, 1, 1, 1), tracked) == ({"conv0/zero": 2.0}, "")
    figures, text = findings.update(batch(2, 1, 1, 1, 1, np.inf), tracked)
    assert figures == {"conv0/zero": 0.0, "conv1/nonfinite": 1.0}
    assert text == "conv1: 1 not finite"
    _, text = findings.update(batch(3, 1, 1, 1, 1, 1), tracked)
    assert text == "no dead, zero or non-finite filters"


def test_a_batch_without_the_statistic_changes_nothing():
    findings, tracked = FindingLogConverter(), network()
    findings.update(batch(0, 0, 1, 1, 1, 1), tracked)
    assert findings.update(snapshot(1), tracked) == ({"conv0/zero": 1.0}, "")


def test_dead_filters_are_a_finding():
    findings, tracked = FindingLogConverter(), network()
    for step in range(DEAD_BATCHES + 5):
        silent = batch(step, 1, 1, 1, 1, 1)
        silent.values[1, 3] = 0
        tracked.add_activation(silent)
    assert findings.update(silent, tracked) == ({"conv1/dead": 1.0}, "conv1: 1 dead")


def test_findings_of_a_removed_layer_are_forgotten():
    findings, tracked = FindingLogConverter(), network()
    findings.update(batch(0, 0, 1, 1, 1, 1), tracked)
    tracked.update_structure(replace(structure(1), layers=structure().layers[1:], edges=[]))
    last = replace(batch(1, 1, 1, 1, 1, 1), version=1)
    last = replace(last, values=last.values[:, 2:])
    assert findings.update(last, tracked) == ({}, "no dead, zero or non-finite filters")
