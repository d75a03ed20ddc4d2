from __future__ import annotations

import time

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.history.history_recorder import HistoryRecorder
from revacnn_lightning.protocol.messages import History, LayerInfo, Structure
from tests.history.test_run_history import snapshot


def layer(name: str, ids: list[int]) -> LayerInfo:
    return LayerInfo(name, "Conv2d", 1, len(ids), (3, 3), (1, 1), 1, ids)


STRUCTURE = Structure("run", 0, 0, "Net", [layer("conv1", [0, 1]), layer("conv2", [2, 3])])


@pytest.fixture
def recorder() -> HistoryRecorder:
    recorder = HistoryRecorder()
    recorder.update_structure(STRUCTURE)
    return recorder


def add(recorder: HistoryRecorder, step: int, activation: list[float], version: int = 0) -> None:
    values = np.array([np.ones(len(activation)), activation], np.float32)
    statistics = ["gradient", "activation"]
    recorder.add(snapshot(step, version=version, statistics=statistics, values=values))


def layer_curve(message: History, statistic: str, layer: str) -> list[float]:
    column = message.layer_names.index(layer)
    return message.layers[statistic].values[:, column].tolist()  # type: ignore[no-any-return]


def test_the_share_of_dead_filters_is_kept_through_an_edit(recorder: HistoryRecorder) -> None:
    for step in (0, 10, 20):
        add(recorder, step, [1, 0, 2, 3])
    recorder.update_structure(replace(STRUCTURE, version=1, layers=[
        layer("conv1", [1, 4]), layer("new", [5]), layer("conv2", [2, 3]),
    ]))  # fmt: skip
    before = time.time()
    recorder.add_edit(21, "Insert a layer", 1)
    add(recorder, 30, [0, 1, 1, 1, 1], version=1)
    message = recorder.to_message()
    assert message.layer_names == ["conv1", "new", "conv2"]
    assert layer_curve(message, "dead", "conv1")[2:] == [0.5, 0.5]
    assert np.isnan(layer_curve(message, "dead", "new")[2])
    assert [(edit.step, edit.title) for edit in message.edits] == [(21, "Insert a layer")]
    assert before <= message.edits[0].time <= time.time()


def test_a_batch_of_the_network_before_an_edit_is_ignored(recorder: HistoryRecorder) -> None:
    recorder.update_structure(replace(STRUCTURE, version=1, layers=STRUCTURE.layers[:1]))
    add(recorder, 0, [1, 1, 1, 1], version=0)
    assert recorder.to_message().scalars.steps == []


def test_a_structure_that_is_published_again_changes_nothing(recorder: HistoryRecorder) -> None:
    for step in (0, 10, 20):
        add(recorder, step, [1, 0, 2, 3])
        recorder.update_structure(replace(STRUCTURE, edges=[(0, 1)]))
    assert layer_curve(recorder.to_message(), "dead", "conv1")[-1] == 0.5


def test_a_model_without_layers_has_a_loss(recorder: HistoryRecorder) -> None:
    recorder.update_structure(replace(STRUCTURE, version=1, layers=[]))
    add(recorder, 0, [], version=1)
    add(recorder, 1, [], version=1)
    message = recorder.to_message()
    assert message.scalars.steps == [0, 1]
    assert message.layers["gradient"].steps == []


def test_metrics_that_arrive_before_the_snapshot_of_their_batch_stay_as_they_are(
    recorder: HistoryRecorder,
) -> None:
    """On a GPU, a snapshot has the metrics of an earlier reading."""
    values = np.ones((2, 4), np.float32)
    known = snapshot(0, statistics=["gradient", "activation"], values=values)
    recorder.add_metrics(0, {"acc": 0.25})
    recorder.add_metrics(10, {"acc": 0.75})
    recorder.add(replace(known, step=10, metrics={"acc": 0.25}))
    recorder.add_metrics(20, {"acc": 0.75})
    series = recorder.to_message().metrics["acc"]
    assert series.steps == [0, 10]
    assert series.values[:, 0].tolist() == [0.25, 0.75]


def test_numbers_that_diverge_raise_no_warning(recorder: HistoryRecorder) -> None:
    values = np.array([[np.inf] * 4, [np.inf, -np.inf, 1, np.nan]], np.float32)
    statistics = ["gradient", "activation"]
    for step in range(3):
        recorder.add_metrics(step, {"loss": 1e300 * (step + 1)})
        recorder.add(snapshot(step, loss=1e300, statistics=statistics, values=values))
    assert recorder.to_message().scalars.steps == [0, 1, 2]
