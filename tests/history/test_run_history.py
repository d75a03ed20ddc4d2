from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.history import run_history
from revacnn_lightning.history.run_history import LAYER_STATISTICS, SCALARS, RunHistory
from revacnn_lightning.protocol.encoding import decode, encode
from revacnn_lightning.protocol.messages import History, HistoryEdit, HistorySeries, Snapshot

OFFSETS = np.array([0, 2, 5])


def snapshot(step: int, **fields: object) -> Snapshot:
    batch: dict[str, object] = {
        "run": "run", "version": 0, "step": step, "epoch": step // 10, "batch_index": step % 10,
        "batches_per_epoch": 10, "max_epochs": 5, "time": 1e9 + 2 * step, "loss": 1 / (1 + step),
        "learning_rates": [0.1], "batches_per_second": 0.5, "statistics": [],
        "metrics": {"val_acc": step // 10},
    }  # fmt: skip
    return Snapshot(**{**batch, **fields})  # type: ignore[arg-type]


def add(history: RunHistory, step: int, **fields: object) -> None:
    batch = snapshot(step, **fields)
    history.add_scalars(batch)
    history.add_metrics(step, batch.metrics)
    values = {"gradient": np.arange(5) + step, "activation": np.ones(5)}
    dead = np.array([True, False, False, False, False]) if step > 20 else None
    history.add_layers(step, values, dead, OFFSETS)


def trained(steps: range) -> RunHistory:
    history = RunHistory()
    history.set_layers(["conv1", "conv2"])
    for step in steps:
        add(history, step)
    return history


def received(message: History) -> History:
    """Return a message as it arrives on another machine."""
    decoded = decode([memoryview(frame).tobytes() for frame in encode(message)])
    assert isinstance(decoded, History)
    return decoded


def series_of(history: RunHistory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    all_series = {
        "scalars": history.scalars, "rates": history.learning_rates,
        **history.layers, **history.metrics,
    }  # fmt: skip
    return {name: (one.steps, one.rows) for name, one in all_series.items()}


def assert_equal(history: RunHistory, expected: RunHistory) -> None:
    assert series_of(history).keys() == series_of(expected).keys()
    for name, (steps, rows) in series_of(expected).items():
        np.testing.assert_array_equal(series_of(history)[name][0], steps, err_msg=name)
        np.testing.assert_allclose(series_of(history)[name][1], rows, rtol=1e-6, err_msg=name)


def test_layers_have_the_means_of_their_filters() -> None:
    history = trained(range(30))
    np.testing.assert_allclose(history.layers["gradient"].rows[3], [3.5, 6])
    assert np.isnan(history.layers["dead"].rows[20]).all()
    assert history.layers["dead"].rows[21].tolist() == [0.5, 0]
    assert history.layers["update_ratio"].length == 0


def test_scalars_tell_epoch_and_time() -> None:
    row = dict(zip(SCALARS, trained(range(30)).scalars.rows[14], strict=True))
    assert row["epoch"] == 1.5
    assert row["seconds"] == 28
    assert row["loss"] == pytest.approx(1 / 15)


def test_a_metric_has_a_point_per_change() -> None:
    metric = trained(range(30)).metrics["val_acc"]
    assert metric.steps.tolist() == [0, 10, 20]


def test_a_message_holds_the_whole_history() -> None:
    history = trained(range(30))
    history.add_edit(HistoryEdit(7, "Remove conv1 · filter 3", 1))
    copy = RunHistory.from_message(received(history.to_message("id")))
    assert_equal(copy, history)
    assert copy.start == 1e9
    # In a resumed training, versions begin again.
    assert copy.edits == [HistoryEdit(7, "Remove conv1 · filter 3", -1)]


def test_a_resumed_history_continues_like_one_that_was_never_interrupted() -> None:
    history = RunHistory.from_message(received(trained(range(30)).to_message()))
    for step in range(30, 50):
        add(history, step)
    assert_equal(history, trained(range(50)))


def test_a_viewer_that_comes_late_has_the_same_history() -> None:
    viewer = trained(range(25, 40))  # receives batches before the reply arrives
    viewer.prepend(received(trained(range(32)).to_message()))
    for step in range(40, 45):
        add(viewer, step)
    expected = trained(range(45))
    viewer.metrics["val_acc"].select_columns(np.array([0]))
    del viewer.metrics["val_acc"], expected.metrics["val_acc"]  # its first own point is no change
    assert_equal(viewer, expected)


def test_history_of_other_layers_is_matched_by_their_names() -> None:
    history = RunHistory()
    history.set_layers(["conv2", "inserted"])
    history.prepend(received(trained(range(3)).to_message()))
    np.testing.assert_allclose(history.layers["gradient"].rows[2], [5, np.nan])


def test_history_of_other_parameter_groups_keeps_its_columns() -> None:
    history = trained(range(0))
    add(history, 9, learning_rates=[0.5, 0.25])
    history.prepend(received(trained(range(3)).to_message()))
    np.testing.assert_allclose(history.learning_rates.rows[0], [0.1, np.nan])
    np.testing.assert_allclose(history.learning_rates.rows[3], [0.5, 0.25])


@pytest.mark.parametrize(
    "fields",
    [
        {"scalars": HistorySeries([1, 2], [1, 1], np.zeros((2, 1), np.float32))},
        {"scalars": HistorySeries([2, 1], [1, 1], np.zeros((2, 4), np.float32))},
        {"scalars": HistorySeries([1, 2], [1], np.zeros((2, 4), np.float32))},
        {"learning_rates": HistorySeries([1], [1], np.zeros(1, np.float32))},
        {"learning_rates": HistorySeries([1], [1], np.zeros((), np.float32))},
        {"learning_rates": HistorySeries([1], [1], np.zeros((1, 0), np.float32))},
        {"layers": {"gradient": HistorySeries([1], [1], np.zeros((3, 2), np.float32))}},
        {"metrics": {"a": HistorySeries([1], [1], np.zeros((1, 0), np.float32))}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_malformed_message_is_refused(fields: dict[str, object]) -> None:
    message = replace(trained(range(3)).to_message(), **fields)
    with pytest.raises(ValueError, match=r"do not fit|not ascending"):
        RunHistory.from_message(received(message))


def memory(history: RunHistory) -> int:
    all_series = [
        history.scalars, history.learning_rates, *history.layers.values(),
        *history.metrics.values(),
    ]  # fmt: skip
    return sum(one.capacity * (4 * one.width + 16) for one in all_series)


@pytest.mark.parametrize("n_layers", [3, 53, 500, 5000])
def test_a_history_needs_at_most_8_megabytes(n_layers: int) -> None:
    history = RunHistory()
    history.set_layers([f"conv{i}" for i in range(n_layers)])
    metrics = {f"metric{i}": 0.0 for i in range(200)}
    for step in range(5000):
        rates = [0.1] * 500
        changing = {name: float(step) for name in metrics} if step % 100 == 0 else {}
        history.add_scalars(snapshot(step, learning_rates=rates))
        history.add_metrics(step, changing)
        for name in LAYER_STATISTICS:
            history.layers[name].add(step, np.ones(n_layers))
        history.add_edit(HistoryEdit(step, "Remove conv1 · filter 3"))
    assert memory(history) < 8 * 2**20
    assert sum(memoryview(frame).nbytes for frame in encode(history.to_message())) < 8 * 2**20
    assert len(history.metrics) == run_history.MAX_METRICS
    assert len(history.edits) == run_history.MAX_EDITS


def test_batches_that_are_trained_again_are_dropped() -> None:
    again = trained(range(100))
    again.add_metrics(99, {"acc": 0.9})
    again.add_edit(HistoryEdit(40, "kept", 1))
    again.add_edit(HistoryEdit(60, "lost", 2))
    again.drop_from(50)
    for step in range(50, 100):
        add(again, step)
    again.add_metrics(99, {"acc": 0.9})
    expected = trained(range(100))
    expected.add_metrics(99, {"acc": 0.9})
    assert_equal(again, expected)
    assert again.metrics["acc"].steps.tolist()[-1] == 99  # though the value is that of before
    assert [edit.title for edit in again.edits] == ["kept"]
