"""Data loader workers, copies and pickles of the trainer and the callback during a run."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from revacnn_lightning import AddFilters, EditRefusedError, ReVACNN
from tests.small import At, TwoConvs, batches, fit
from tests.test_callback import hooks_on

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "cloudpickle": lambda value: pickle.loads(
        pytest.importorskip("cloudpickle").dumps(value)  # not a dependency
    ),
}


class Images:
    """A dataset that holds its data module, which holds the trainer and thus its callbacks."""

    def __init__(self, module: pl.LightningDataModule) -> None:
        self.module = module

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(1, 6, 6, dtype=torch.float64), index % 2


class Data(pl.LightningDataModule):
    def __init__(self, start_method: str) -> None:
        super().__init__()
        self.start_method = start_method

    def train_dataloader(self) -> DataLoader:
        return DataLoader(
            Images(self), batch_size=4, num_workers=1, multiprocessing_context=self.start_method
        )


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning",
    "ignore:You defined a `validation_step`",
    "ignore:Consider setting `persistent_workers=True`",
)
def test_workers_are_started_in_every_way(start_method: str, runtime_dir: Path):
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
        callbacks=[ReVACNN(forward=lambda module, batch: module(batch[0]))],
    )  # fmt: skip
    model = TwoConvs()
    trainer.fit(model, datamodule=Data(start_method))
    assert trainer.global_step == 2
    assert hooks_on(model) == []
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_the_callback_during_a_run_is_a_fresh_one(how: str):
    revacnn = ReVACNN(statistics=["gradient"], max_overhead=None)
    copies: list[ReVACNN] = []
    fit(TwoConvs(), [revacnn, At(3, lambda *_: copies.append(COPIES[how](revacnn)))])
    [copied] = copies
    assert copied._continuation.step == 0
    assert copied.connection_file is None
    assert copied._options.statistics == ["gradient"]
    with pytest.raises(EditRefusedError, match="no training is running"):
        copied.steer(AddFilters("conv1"))
    model = TwoConvs()
    submit = At(3, lambda *_: copied.steer(AddFilters("conv1")))
    fit(model, [submit, copied])
    assert model.conv1.out_channels == 5


class Copy(pl.Callback):
    """Copies the model and the trainer when training starts."""

    made: ClassVar[list[Any]] = []

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.made[:] = [COPIES[self.how](module), COPIES[self.how](trainer)]


@pytest.mark.parametrize("how", [name for name in COPIES if name != "copy"])
def test_the_trainer_and_its_model_are_copied_during_a_run(how: str):
    fit(TwoConvs(), [ReVACNN(), Copy(how)])
    model, trainer = Copy.made
    assert hooks_on(model) == []
    for name in ("on_load_checkpoint", "on_save_checkpoint"):
        assert getattr(model, name).__self__ is model
    assert isinstance(trainer.callbacks[0], ReVACNN)
    assert trainer.callbacks[0].connection_file is None


def test_a_copy_of_an_edited_model_needs_nothing_of_this_package():
    model, revacnn = TwoConvs(), ReVACNN()
    fit(model, [At(3, lambda *_: revacnn.steer(AddFilters("conv1"))), revacnn])
    assert b"revacnn_lightning" not in pickle.dumps(model)


def test_a_subclass_with_settings_of_its_own_is_copied():
    class Named(ReVACNN):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    assert copy.deepcopy(Named("first")).name == "first"


def test_a_function_that_cannot_be_pickled_is_missed_only_when_it_is_used():
    revacnn = ReVACNN(forward=lambda module, batch: module(batch[0]))
    assert copy.deepcopy(revacnn)._options.forward is revacnn._options.forward
    pickled = COPIES["pickle"](revacnn)
    model, requests = TwoConvs(), []
    submit = At(3, lambda *_: requests.append(pickled.steer(AddFilters("conv1"))))
    fit(model, [submit, pickled])
    with pytest.raises(EditRefusedError, match="could not be pickled"):
        requests[0].result()


# ---------------------------------------------------------------------- several trainers


def test_a_callback_of_two_trainings_in_two_threads_monitors_the_first(
    caplog: pytest.LogCaptureFixture, runtime_dir: Path
):
    revacnn, models = ReVACNN(), [TwoConvs(), TwoConvs()]
    plain = TwoConvs()
    fit(plain)
    second_has_ended = threading.Event()

    def train_second() -> None:
        fit(models[1], [revacnn])
        second_has_ended.set()

    def begin_second(*_: object) -> None:
        thread = threading.Thread(target=train_second)
        thread.start()
        assert second_has_ended.wait(60)
        thread.join()

    monitored: list[bool] = []
    note = At(5, lambda *_: monitored.append(revacnn.connection_file is not None))
    fit(models[0], [revacnn, At(3, begin_second), note])
    assert monitored == [True]
    assert "monitors another training" in caplog.text
    assert list(runtime_dir.iterdir()) == []
    for model in models:
        assert hooks_on(model) == []
        assert set(vars(model)) == set(vars(plain))
        for name, value in plain.state_dict().items():
            assert torch.equal(model.state_dict()[name], value)


def test_a_validation_by_another_trainer_does_not_end_the_monitoring(tmp_path: Path):
    revacnn, model = ReVACNN(), TwoConvs()

    def validate(trainer: pl.Trainer, module: TwoConvs) -> None:
        other = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_checkpointing=False, callbacks=[revacnn],
        )  # fmt: skip
        other.validate(module, batches(1), verbose=False)
        module.train()
        module.trainer = trainer

    submit = At(6, lambda *_: revacnn.steer(AddFilters("conv1")))
    save = At(8, lambda trainer, _: trainer.save_checkpoint(tmp_path / "a.ckpt", True))
    fit(model, [At(3, validate), submit, revacnn, save])
    assert model.conv1.out_channels == 5
    assert "revacnn_steering" in torch.load(tmp_path / "a.ckpt", weights_only=True)
