"""Tables of a recording, compared with what was published."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from revacnn_lightning.cli import main
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import Applied, PlanSummary
from revacnn_lightning.recording import export
from tests.recording.messages import SECOND, packed, run_messages, snapshot, structure, write

TITLE = "Add 1 filter to conv0"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Ten batches, an edit, and three more batches; one loss is unknown, a metric appears late."""
    plan = PlanSummary(TITLE, parameters_before=100, parameters_after=120)
    edit = [
        packed(structure(1, (3, 3), step=10), 10 * SECOND),
        packed(Applied("id", 10, 1, plan, seconds=0.5), 10 * SECOND),
        packed(RequestOutcome("run-1", "id", TITLE, "applied", 10.0, key="ann", host="gpu01")),
    ]
    after = [packed(snapshot(i, None, version=1, filters=6), i * SECOND) for i in range(10, 13)]
    return write(tmp_path / "run.mcap", [*run_messages(10), *edit, *after])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_csv_holds_every_batch_layer_filter_and_edit(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "tables"
    assert main(["export", str(recording), "--csv", str(folder)]) == 0
    assert f"{folder}/filters.csv: 68 rows" in capsys.readouterr().out

    batches = rows(folder / "batches.csv")
    assert [int(row["step"]) for row in batches] == list(range(13))
    first, last = batches[0], batches[-1]
    assert (first["loss"], last["loss"]) == ("0.5", "")
    assert (first["learning_rate_0"], first["metric_val_loss"]) == ("0.1", "0.25")
    assert first["nonfinite_gradients"] == "False"

    filters = rows(folder / "filters.csv")
    assert len(filters) == 10 * 5 + 3 * 6
    row = filters[-1]
    assert (row["step"], row["layer"], row["filter_id"], row["index"]) == ("12", "conv1", "2", "2")
    assert (row["gradient"], row["activation"], row["update_ratio"]) == ("12.0", "12.1", "12.2")

    layers = rows(folder / "layers.csv")
    assert [row["layer"] for row in layers[-2:]] == ["conv0", "conv1"]
    assert layers[-1]["filters"] == "3"
    assert float(layers[-1]["activation_mean"]) == pytest.approx(12.1)

    [edit] = rows(folder / "edits.csv")
    assert (edit["step"], edit["title"], edit["parameters_after"]) == ("10", TITLE, "120")


def test_a_table_of_edits_did_not_say_who_made_them(recording: Path, tmp_path: Path):
    assert main(["export", str(recording), "--csv", str(tmp_path)]) == 0
    [edit] = rows(tmp_path / "edits.csv")
    assert (edit["key"], edit["host"]) == ("ann", "gpu01")


def test_parquet_holds_the_same(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(export, "ROWS_TOGETHER", 17)  # in several pieces
    assert main(["export", str(recording), "--parquet", str(tmp_path)]) == 0
    filters = pyarrow.read_table(tmp_path / "filters.parquet").to_pylist()
    assert len(filters) == 68
    assert filters[-1]["layer"] == "conv1"
    assert filters[-1]["gradient"] == pytest.approx(12.0)
    batches = pyarrow.read_table(tmp_path / "batches.parquet").to_pylist()
    assert [row["step"] for row in batches] == list(range(13))


def test_a_title_is_no_formula_of_a_spreadsheet(tmp_path: Path):
    plan = PlanSummary("=HYPERLINK(1)")
    path = write(tmp_path / "run.mcap", [packed(structure()), packed(Applied("a", 1, 1, plan))])
    main(["export", str(path), "--csv", str(tmp_path)])
    assert rows(tmp_path / "edits.csv")[0]["title"] == "'=HYPERLINK(1)"


def test_what_cannot_be_exported_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recording: Path
):
    assert main(["export", str(tmp_path / "none.mcap"), "--csv", str(tmp_path)]) == 1
    assert "cannot read the recording" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["export", str(recording), "--csv", str(tmp_path / "file")]) == 1
    assert "choose another folder" in capsys.readouterr().err
