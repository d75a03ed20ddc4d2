"""The statistics of a batch by layer name."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from revacnn_lightning import Batch, MissingPackageError
from revacnn_lightning.protocol.encoding import decode, encode
from revacnn_lightning.runtime.snapshot_merger import SnapshotMerger
from tests.client.simulated_run import layer, snapshot, structure


def make_batch() -> Batch:
    return Batch(snapshot(12), structure())


def test_several_batches_have_means_and_maxima():
    merger = SnapshotMerger(60.0)
    for step in range(4):  # the first one is published alone
        one = snapshot(step)
        list(merger.add(msgspec.structs.replace(one, values=one.values * step)))
    (merged,) = merger.flush()
    batch = Batch(decode(encode(merged)), structure())
    assert (batch.batch_count, batch.step) == (3, 3)
    assert batch["b"]["activation"].tolist() == [2 * 12]
    assert batch.maximum("activation")["b"].tolist() == [3 * 12]
    assert batch.max_loss == max(snapshot(step).loss for step in (1, 2, 3))


def test_the_maximum_of_one_batch_is_its_value():
    batch = make_batch()
    assert batch.maximum("activation")["b"].tolist() == [12]
    assert (batch.batch_count, batch.max_loss) == (1, batch.loss)


def test_statistics_are_arrays_by_layer_name():
    batch = make_batch()
    assert list(batch) == ["a", "b"]
    assert batch["a"]["gradient"].tolist() == [0, 1]
    assert batch["b"]["activation"].tolist() == [12]
    assert {name: row.tolist() for name, row in batch.statistic("gradient").items()} == {
        "a": [0, 1],
        "b": [2],
    }
    assert (batch.step, batch.epoch, batch.metrics) == (12, 1, {"accuracy": 0.5})


def test_an_unknown_layer_or_statistic_names_the_known_ones():
    with pytest.raises(KeyError, match="c: the layers are a, b"):
        make_batch()["c"]
    with pytest.raises(KeyError, match="firing: the recorded statistics are gradient, activation"):
        make_batch().statistic("firing")


def test_a_snapshot_of_another_structure_does_not_fit():
    assert Batch.matches_structure(snapshot(0), structure())
    assert not Batch.matches_structure(snapshot(0), structure(0, layer("a", 0, 1)))


def test_columns_have_a_row_per_filter():
    table = make_batch().columns()
    assert table["layer"] == ["a", "a", "b"]
    assert table["filter"].tolist() == [0, 1, 0]
    assert table["filter_id"].tolist() == [0, 1, 4]
    assert table["activation"].tolist() == [10, 11, 12]


def test_a_data_frame_is_made_of_the_columns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=list))
    assert make_batch().to_dataframe() == ["layer", "filter", "filter_id", "gradient", "activation"]


def test_a_data_frame_of_pandas():
    pandas = pytest.importorskip("pandas")
    frame = make_batch().to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.groupby("layer")["gradient"].sum().to_dict() == {"a": 1.0, "b": 2.0}


def test_without_pandas_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackageError, match=r"pip install pandas.*columns\(\)"):
        make_batch().to_dataframe()
    assert issubclass(MissingPackageError, ImportError)


def test_arrays_cannot_be_changed_by_accident_and_batches_compare_by_identity():
    batch = make_batch()
    assert batch != make_batch()
    assert batch in {batch}
    assert np.shares_memory(batch["a"]["gradient"], batch.snapshot.values)
