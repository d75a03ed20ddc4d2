"""The verdicts on a network whose structure messages tell of edits."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.history.network_verdicts import NetworkVerdicts
from revacnn_lightning.protocol.messages import Structure
from revacnn_lightning.protocol.snapshot import Snapshot
from tests.viewer.fake_training import FakeTraining

STATISTICS = ["activation", "gradient", "update_ratio"]


def train(verdicts: NetworkVerdicts, structure: Structure, first: int, ratio: float) -> None:
    """Add 60 batches with this update ratio of conv2."""
    widths = [len(layer.filter_ids) for layer in structure.layers]
    values = np.ones((3, sum(widths)), np.float32)
    values[2] = 1e-3
    values[2, widths[0] : widths[0] + widths[1]] = ratio
    for step in range(first, first + 60):
        verdicts.add(
            Snapshot(
                structure.run, structure.version, step, 0, step, 0, 0, 0.0, None, [], 1.0,
                STATISTICS, values,
            )
        )  # fmt: skip


def scaled(structure: Structure, factor: float) -> Structure:
    layers = [
        replace(one, learning_rate_factor=factor) if one.name == "conv2" else one
        for one in structure.layers
    ]
    return replace(structure, version=structure.version + 1, layers=layers)


def kinds(verdicts: NetworkVerdicts) -> list[str]:
    return [one.kind for one in verdicts.verdicts() if one.is_known and one.layer == "conv2"]


def test_a_layer_whose_rate_was_lowered_had_converged() -> None:
    verdicts, before = NetworkVerdicts(), FakeTraining("digits").structure()
    verdicts.update_structure(None, before)
    train(verdicts, before, 0, 0.05)
    assert kinds(verdicts) == ["restless"]
    after = scaled(before, 0.01)
    verdicts.update_structure(before, after)
    train(verdicts, after, 60, 0.0004)
    assert kinds(verdicts) == []
    train(verdicts, after, 120, 0.000004)  # less than a hundredth of what is left at this rate
    assert kinds(verdicts) == ["converged"]
