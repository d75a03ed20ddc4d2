"""Recordings of real Lightning trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from revacnn_lightning import AddFilters, Applied, ReVACNN, StartRecording, Status, StopRecording
from revacnn_lightning.protocol.messages import Done, Snapshot, Structure
from revacnn_lightning.recording import recording_writer
from tests.recording.messages import read, steps
from tests.runtime.live_run import train_with
from tests.small import At, NanLoss, TwoConvs, fit


class FailingNet(TwoConvs):
    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int):  # type: ignore[no-untyped-def]
        if batch_idx == 8:
            raise RuntimeError("the data is broken")
        return super().training_step(batch, batch_idx)


def test_every_batch_is_recorded_without_a_viewer(tmp_path: Path):
    revacnn = ReVACNN(record=tmp_path / "run.mcap")

    def edit(trainer: pl.Trainer, module: pl.LightningModule) -> None:
        revacnn.steer(AddFilters("conv1", 2))

    fit(TwoConvs(), [At(20, edit), revacnn], count=60, record_all=False)
    messages = read(tmp_path / "run.mcap")
    assert steps(messages) == list(range(60))
    [applied] = [one for one in messages if isinstance(one, Applied)]
    assert applied.plan.filter_changes[0].layer == "conv1"
    structures = [one for one in messages if isinstance(one, Structure)]
    assert {one.version for one in structures} == {0, applied.version}
    states = [one.state for one in messages if isinstance(one, Status)]
    assert states[-1] == "finished"


def test_batches_between_two_snapshots_are_merged_up_to_each_edit(tmp_path: Path):
    revacnn = ReVACNN(record=tmp_path / "run.mcap", publish="0.01 Hz")
    edit = At(20, lambda *_: revacnn.steer(AddFilters("conv1", 2)))
    fit(TwoConvs(), [edit, revacnn], count=60, record_all=False)
    messages = read(tmp_path / "run.mcap")
    snapshots = [one for one in messages if isinstance(one, Snapshot)]
    [step] = [one.step for one in messages if isinstance(one, Applied)]
    assert [(one.first_step, one.step, one.batch_count) for one in snapshots] == [
        (None, 0, 1),
        (1, step - 1, step - 1),
        (step, 59, 60 - step),
    ]
    kinds = [type(one) for one in messages if isinstance(one, Snapshot | Applied)]
    assert kinds == [Snapshot, Snapshot, Applied, Snapshot]


def test_a_recorded_training_has_the_same_weights(tmp_path: Path):
    plain, recorded = TwoConvs(), TwoConvs()
    fit(plain, count=20)
    fit(recorded, [ReVACNN(record=tmp_path / "run.mcap", keep_batches=5)], count=20)
    for one, other in zip(plain.parameters(), recorded.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_client_starts_and_ends_a_recording(tmp_path: Path):
    def client(run) -> dict:  # type: ignore[no-untyped-def]
        started = run.command(StartRecording("mine"))
        state = run.wait_for(lambda run: run.status is not None and run.status.recording)
        for _, _batch in zip(range(5), run.batches(), strict=False):
            pass
        return {"started": started, "state": state, "ended": run.command(StopRecording())}

    result, _ = train_with(client, tmp_path, record_all=False)
    path = tmp_path / "revacnn" / "mine.mcap"
    assert result["started"] == f"Recording to {path}"
    assert result["ended"] == f"Recorded {path}"
    messages = read(path)
    recorded = steps(messages)
    assert recorded == list(range(recorded[0], recorded[-1] + 1))
    assert isinstance(messages[0], Structure)
    assert next(one.detail for one in messages if isinstance(one, Done)) == result["started"]


def test_the_last_batches_before_a_nan_loss_are_written(tmp_path: Path):
    revacnn = ReVACNN(keep_batches=4)
    fit(NanLoss(), [revacnn], count=10, default_root_dir=tmp_path, record_all=False)
    [path] = (tmp_path / "revacnn").iterdir()
    assert steps(read(path)) == [3, 4, 5, 6]


def test_the_last_batches_before_an_exception_are_written(tmp_path: Path):
    revacnn = ReVACNN(keep_batches=4)
    with pytest.raises(RuntimeError, match="the data is broken"):
        fit(FailingNet(), [revacnn], default_root_dir=tmp_path, record_all=False)
    [path] = (tmp_path / "revacnn").iterdir()
    messages = read(path)
    assert steps(messages) == [4, 5, 6, 7]
    assert isinstance(messages[-1], Status)
    assert messages[-1].detail == "RuntimeError: the data is broken"


def test_a_disk_that_fails_ends_the_recording_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(recording_writer.RecordingFile, "write", fail)
    monkeypatch.setattr(recording_writer, "WRITE_SECONDS", 0.001)
    trainer = fit(TwoConvs(), [ReVACNN(record=tmp_path / "run.mcap")], count=40)
    assert trainer.global_step == 40
    assert "No space left on device" in caplog.text
