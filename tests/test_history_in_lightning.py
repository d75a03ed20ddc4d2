"""The history that the callback keeps, in real Lightning trainings without a viewer."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from revacnn_lightning import AddFilters, EditRefusedError, History, ReVACNN
from revacnn_lightning.history.sample_schedule import SampleSchedule
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.lineage import find_resuming_run
from revacnn_lightning.protocol.requests import SendHistory
from tests.runtime.live_run import train_with
from tests.small import At, TwoConvs, fit


def kept(revacnn: ReVACNN) -> History:
    assert revacnn._continuation.history is not None
    return revacnn._continuation.history.to_message()


def loss_of(message: History) -> list[float]:
    return message.scalars.values[:, message.scalar_names.index("loss")].tolist()  # type: ignore[no-any-return]


class KeepLosses(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.losses.append(float(outputs["loss"]))


def test_a_viewer_that_attaches_late_receives_the_run_since_its_first_batch(tmp_path: Path):
    def client(run) -> dict:  # type: ignore[no-untyped-def]
        while run.status is None or run.status.step < 200:
            run.poll()
        return {"history": run.history()}

    result, _ = train_with(client, tmp_path, record_all=False)
    history: History = result["history"]
    assert history.scalars.steps[0] == 0
    assert history.scalars.steps[-1] > 150
    assert history.layer_names == ["conv1", "conv2"]
    assert history.layers["gradient"].steps == history.scalars.steps
    assert (history.layers["activation"].values > 0).all()
    assert "train_loss" in history.metrics


def test_the_history_holds_what_was_trained():
    losses, revacnn = KeepLosses(), ReVACNN()
    fit(TwoConvs(), [revacnn, losses], count=200, record_all=False)
    message = kept(revacnn)
    assert 40 < len(message.scalars.steps) < 120  # a sample, denser at the beginning
    expected = [losses.losses[step] for step in message.scalars.steps]
    assert loss_of(message) == pytest.approx(expected, rel=1e-6)
    assert message.learning_rates.values[:, 0].tolist() == pytest.approx([1e-3] * len(expected))


def test_keeping_a_history_does_not_change_the_training():
    def train(callbacks: list[pl.Callback]) -> TwoConvs:
        model = TwoConvs()
        fit(model, callbacks, count=150, accumulate_grad_batches=2, record_all=False)
        return model

    plain, monitored = train([]), train([ReVACNN()])
    for name, value in plain.state_dict().items():
        assert torch.equal(monitored.state_dict()[name], value)


def test_metrics_that_are_logged_once_per_epoch_are_all_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SampleSchedule, "is_due", lambda _, step: step == 0)
    revacnn = ReVACNN()
    fit(TwoConvs(), [revacnn], max_epochs=5, validate=True, record_all=False)
    # That of the last epoch would be read in the next one.
    assert kept(revacnn).metrics["val_loss"].steps == [12, 24, 36, 48]


def test_edits_are_part_of_the_history():
    revacnn = ReVACNN()
    requests: list = []
    submit = At(3, lambda *_: requests.append(revacnn.steer(AddFilters("conv1", 2))))
    fit(TwoConvs(), [revacnn, submit], count=60, record_all=False)
    [edit] = kept(revacnn).edits
    assert (edit.step, edit.version) == (requests[0].result().step, 1)
    assert "conv1" in edit.title
    assert kept(revacnn).layers["gradient"].steps[-1] > edit.step


def test_a_resumed_training_continues_its_history(tmp_path: Path):
    first, second = ReVACNN(), ReVACNN()
    trainer = fit(TwoConvs(), [first], count=40, record_all=False)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    fit(
        TwoConvs(), [second], count=40, max_epochs=2, resume=tmp_path / "run.ckpt",
        record_all=False,
    )  # fmt: skip
    before, after = kept(first), kept(second)
    n = len(before.scalars.steps)
    assert after.scalars.steps[:n] == before.scalars.steps
    assert loss_of(after)[:n] == loss_of(before)
    assert after.scalars.steps[n] == 40
    assert after.start == before.start


def test_another_model_has_another_history():
    revacnn = ReVACNN()
    fit(TwoConvs(), [revacnn], record_all=False)
    fit(TwoConvs(), [revacnn], record_all=False)
    assert kept(revacnn).scalars.steps[0] == 12


def test_a_run_without_a_history_says_so():
    revacnn = ReVACNN(keep_history=False)
    requests: list = []
    fit(TwoConvs(), [revacnn, At(3, lambda *_: requests.append(revacnn.steer(SendHistory())))])
    assert revacnn._continuation.history is None
    assert "history" not in revacnn.state_dict()
    with pytest.raises(EditRefusedError, match="keep_history=True"):
        requests[0].result()


def test_a_client_cannot_slow_the_training_by_requesting_the_history_all_the_time():
    revacnn = ReVACNN()
    requests: list = []
    flood = At(3, lambda *_: requests.extend(revacnn.steer(SendHistory()) for _ in range(40)))
    fit(TwoConvs(), [revacnn, flood])
    replies = [type(request.reply).__name__ for request in requests]
    assert replies.count("History") == 16
    assert replies.count("Refused") == 24


class KeepConnection(pl.Callback):
    """Keeps the connections of a run. Place it behind the ReVACNN callback."""

    def __init__(self, revacnn: ReVACNN) -> None:
        self.revacnn = revacnn

    def on_train_start(self, trainer, module) -> None:  # type: ignore[no-untyped-def]
        assert self.revacnn.connection_file is not None
        self.connection = connection_file.read(self.revacnn.connection_file)


def test_a_resumed_run_is_recognized_as_the_same_training(tmp_path: Path):
    first, second, other = ReVACNN(), ReVACNN(), ReVACNN()
    keepers = [KeepConnection(one) for one in (first, second, other)]
    trainer = fit(TwoConvs(), [first, keepers[0]], count=40)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    options = {"count": 40, "max_epochs": 2}
    fit(TwoConvs(), [second, keepers[1]], resume=tmp_path / "run.ckpt", **options)
    fit(TwoConvs(), [other, keepers[2]], **options)
    before, after, stranger = (keeper.connection for keeper in keepers)
    assert find_resuming_run(before, [stranger, after]) == after
    assert (before.first_step, after.first_step, stranger.first_step) == (0, 40, 0)
    assert len({before.run, after.run, stranger.run}) == 3
    [mark] = kept(second).edits
    assert (mark.step, mark.title) == (40, "Resumed from a checkpoint")
    assert kept(other).edits == []


def test_training_on_in_the_same_process_is_the_same_training():
    revacnn, model = ReVACNN(), TwoConvs()
    keeper = KeepConnection(revacnn)
    fit(model, [revacnn, keeper])
    before = keeper.connection
    fit(model, [revacnn, keeper])
    assert find_resuming_run(before, [keeper.connection]) == keeper.connection
    assert keeper.connection.first_step == 12
    fit(TwoConvs(), [revacnn, keeper])
    assert find_resuming_run(before, [keeper.connection]) is None


def test_a_checkpoint_without_a_lineage_is_resumed(tmp_path: Path):
    """One of an earlier release."""
    trainer = fit(TwoConvs(), [ReVACNN()], count=40)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    del checkpoint["callbacks"]["ReVACNN"]["lineage"]
    torch.save(checkpoint, tmp_path / "run.ckpt")
    resumed = ReVACNN()
    fit(TwoConvs(), [resumed], count=40, max_epochs=2, resume=tmp_path / "run.ckpt")
    assert kept(resumed).scalars.steps[-1] > 60
