"""Fit, validate, test and predict with checkpoints of other structures than the model's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from revacnn_lightning import (
    AddFilters,
    InsertLayer,
    RemoveFilters,
    RemoveLayer,
    ReVACNN,
    SteeringError,
    Undo,
    load_edited,
)
from revacnn_lightning.steering.edit_mark import MARK_KEY
from tests.small import At, TwoConvs, batches, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:You're resuming from a checkpoint that ended before",
    "ignore:The dataloader, predict_dataloader",
)

IMAGES = torch.randn(3, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
FILES = ["unedited", "older", "newest", "newest weights"]
STAGES = ["fit", "validate", "test", "predict"]


class Staged(TwoConvs):
    """The network with all stages."""

    test_step = TwoConvs.validation_step

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0])


class Run:
    """A training that saves a file before, between and after its edits.

    Attributes:
        logits: of `IMAGES` by the model in each file.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.model, self.revacnn = root, Staged(), ReVACNN()
        self.logits: dict[str, Tensor] = {}
        steps: dict[int, Callable[..., object]] = {
            1: lambda trainer, _: self.save(trainer, "unedited"),
            2: lambda *_: self.steer(AddFilters("conv1", 2), RemoveLayer("relu2")),
            4: lambda trainer, _: self.save(trainer, "older"),
            5: lambda *_: self.steer(InsertLayer("conv1"), RemoveFilters("conv1", [1, 3])),
            8: lambda trainer, _: self.save(trainer, "newest"),
        }
        callbacks = [At(step, action) for step, action in steps.items()]
        self.trainer = fit(self.model, [*callbacks, self.revacnn], count=10)
        for request in self.requests:
            request.result()

    def steer(self, *edits: Any) -> None:
        self.requests = [*getattr(self, "requests", []), *map(self.revacnn.steer, edits)]

    def save(self, trainer: pl.Trainer, name: str) -> None:
        trainer.save_checkpoint(self.file(name))
        trainer.save_checkpoint(self.file(f"{name} weights"), weights_only=True)
        self.logits[name] = self.logits[f"{name} weights"] = logits_of(self.model)

    def file(self, name: str) -> Path:
        return self.root / f"{name}.ckpt"


def logits_of(model: nn.Module) -> Tensor:
    training = model.training
    with torch.no_grad():
        logits: Tensor = model.eval()(IMAGES)
    model.train(training)
    return logits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def quiet_trainer(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    quiet = dict.fromkeys(
        ["logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"], False
    )
    return pl.Trainer(accelerator="cpu", devices=1, callbacks=list(callbacks), **quiet, **options)


def run_stage(stage: str, trainer: pl.Trainer, model: pl.LightningModule, path: Path) -> None:
    if stage == "fit":
        trainer.fit(model, batches(10), batches(1), ckpt_path=path)
    elif stage == "predict":
        trainer.predict(model, batches(1), ckpt_path=path)
    else:
        getattr(trainer, stage)(model, batches(1), ckpt_path=path, verbose=False)


def edited_copy_of(run: Run) -> pl.LightningModule:
    return copy.deepcopy(run.model)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("stage", STAGES[1:])
@pytest.mark.parametrize("make", [lambda _: Staged(), edited_copy_of], ids=["unedited", "edited"])
def test_every_stage_loads_a_file_of_any_structure(run: Run, make, stage: str, file: str):
    model = make(run)
    run_stage(stage, quiet_trainer(ReVACNN()), model, run.file(file))
    assert torch.equal(logits_of(model), run.logits[file])
    assert {"on_load_checkpoint", "on_save_checkpoint"}.isdisjoint(vars(model))


@pytest.mark.parametrize("file", FILES[:3])
@pytest.mark.parametrize("make", [lambda _: Staged(), edited_copy_of], ids=["unedited", "edited"])
def test_a_run_resumes_from_a_file_of_any_structure(run: Run, tmp_path: Path, make, file: str):
    model, revacnn, loaded = make(run), ReVACNN(), []

    class Note(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
            loaded.append(logits_of(module))
            revacnn.steer(AddFilters("conv2"))

    trainer = quiet_trainer(Note(), revacnn, max_epochs=1)
    run_stage("fit", trainer, model, run.file(file))
    assert torch.equal(loaded[0], run.logits[file])
    assert model.conv2.out_channels == 4
    trainer.save_checkpoint(tmp_path / "resumed.ckpt")
    again = load_edited(Staged, tmp_path / "resumed.ckpt")
    assert torch.equal(logits_of(again), logits_of(model))


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_run_resumes_with_either_way_of_unpickling(run: Run, weights_only: bool):
    model = Staged()
    trainer = quiet_trainer(ReVACNN(), max_epochs=1)
    trainer.fit(
        model, batches(10), batches(1), ckpt_path=run.file("newest"), weights_only=weights_only
    )
    assert trainer.global_step == 10


def test_a_fit_after_testing_an_older_file_continues_with_its_structure(run: Run, tmp_path: Path):
    model, revacnn = Staged(), ReVACNN()
    trainer = quiet_trainer(revacnn, max_epochs=1)
    run_stage("fit", trainer, model, run.file("newest"))
    run_stage("test", trainer, model, run.file("older"))
    requests: list = []
    submit = At(2, lambda *_: requests.extend(map(revacnn.steer, [Undo(2), AddFilters("conv1")])))
    second = fit(model, [submit, revacnn])
    for request in requests:
        request.result()
    assert model.conv1.out_channels == 5
    assert isinstance(model.relu2, nn.ReLU)
    [group] = second.optimizers[0].param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}
    second.save_checkpoint(tmp_path / "second.ckpt")
    again = load_edited(Staged, tmp_path / "second.ckpt")
    assert torch.equal(logits_of(again), logits_of(model))


def test_best_and_last_are_loaded_although_the_network_has_been_edited_since(tmp_path: Path):
    revacnn, model = ReVACNN(), Staged()
    keep = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, save_last=True)
    at = {
        (0, 2): lambda: revacnn.steer(AddFilters("conv1")),
        (1, 2): lambda: revacnn.steer(InsertLayer("conv2")),
    }

    class Steer(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
            at.get((trainer.current_epoch, batch_idx), lambda: None)()

    trainer = fit(
        model, [Steer(), revacnn, keep], count=4, max_epochs=3, validate=True,
        enable_checkpointing=True,
    )  # fmt: skip
    for path in (*sorted(keep.best_k_models), "best", "last"):
        [metrics] = trainer.test(model, batches(2), ckpt_path=path, verbose=False)
        score = keep.best_k_models.get(path, keep.best_model_score)
        if path != "last":
            assert metrics["val_loss"] == pytest.approx(float(score))


def test_a_file_of_a_resumed_cluster_job_is_loaded(run: Run, tmp_path: Path):
    (tmp_path / "hpc_ckpt_1.ckpt").write_bytes(run.file("newest").read_bytes())
    model = Staged()
    trainer = quiet_trainer(ReVACNN(), default_root_dir=tmp_path)
    trainer.test(model, batches(1), ckpt_path="hpc", verbose=False)
    assert torch.equal(logits_of(model), run.logits["newest"])


def test_a_file_of_weights_without_edits_is_refused_with_what_helps(run: Run, tmp_path: Path):
    """A trainer without the callback saves the weights of an edited model without its edits."""
    content = torch.load(run.file("newest"), weights_only=True)
    content.pop("revacnn_steering")
    torch.save({**content, "callbacks": {}}, tmp_path / "bare.ckpt")
    model = Staged()
    run_stage("test", quiet_trainer(ReVACNN()), model, run.file("older"))
    before = logits_of(model)
    with pytest.raises(SteeringError, match=r"Add 2 filters to conv1.*edits_from"):
        run_stage("test", quiet_trainer(ReVACNN()), model, tmp_path / "bare.ckpt")
    assert torch.equal(logits_of(model), before)
    with pytest.raises(SteeringError, match="edits_from"):
        load_edited(Staged, tmp_path / "bare.ckpt")
    helped = load_edited(Staged, tmp_path / "bare.ckpt", edits_from=run.file("newest"))
    assert torch.equal(logits_of(helped), run.logits["newest"])


def test_weights_without_edits_that_do_not_fit_are_explained(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "late.ckpt"
    content = torch.load(run.file("older"), weights_only=True)
    torch.save({key: content[key] for key in content if "revacnn" not in key}, path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        run_stage("test", quiet_trainer(ReVACNN()), Staged(), path)
    assert "edits_from" in caplog.text


def test_an_edited_file_is_refused_by_another_network_with_the_names_of_the_edits(run: Run):
    class Other(Staged):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv1 = self.conv1, nn.Identity()

    with pytest.raises(SteeringError, match="Add 2 filters to conv1"):
        run_stage("test", quiet_trainer(ReVACNN()), Other(), run.file("newest"))


def test_without_the_callback_the_error_names_the_call_that_helps(run: Run):
    with pytest.raises(RuntimeError, match=r"revacnn_lightning\.load_edited"):
        Staged.load_from_checkpoint(run.file("newest"))


def test_an_edited_model_loads_its_files_without_the_callback(run: Run):
    model = edited_copy_of(run)
    run_stage("test", quiet_trainer(), model, run.file("newest"))
    assert torch.equal(logits_of(model), run.logits["newest"])
    model.load_state_dict(torch.load(run.file("newest"), weights_only=True)["state_dict"])


def test_a_model_with_unknown_edits_is_trained_with_a_warning(
    run: Run, caplog: pytest.LogCaptureFixture
):
    model = edited_copy_of(run)
    model.conv1 = nn.Conv2d(1, 7, 3, padding=1).double()  # no model in this process has 7 filters
    model.conv2 = nn.Conv2d(7, 3, 3).double()
    fit(model, [ReVACNN()], count=2)
    assert "edited before, in a way that is unknown" in caplog.text
    with pytest.raises(SteeringError, match="copy of an edited one"):
        run_stage("test", quiet_trainer(ReVACNN()), model, run.file("older"))


def test_files_of_an_undone_run_are_those_of_an_unedited_one(tmp_path: Path):
    model, revacnn = Staged(), ReVACNN()
    submit = At(2, lambda *_: revacnn.steer(AddFilters("conv1")))
    undo = At(4, lambda *_: revacnn.steer(Undo()))
    trainer = fit(model, [submit, undo, revacnn])
    trainer.save_checkpoint(tmp_path / "undone.ckpt")
    assert MARK_KEY not in torch.load(tmp_path / "undone.ckpt", weights_only=True)["state_dict"]
    Staged.load_from_checkpoint(tmp_path / "undone.ckpt")
    assert set(model._modules) == set(Staged()._modules)


class BuiltLate(Staged):
    """Builds its layers in ``configure_model``, once."""

    def __init__(self) -> None:
        pl.LightningModule.__init__(self)
        self.optimizer, self.conv1 = "adamw", None

    def configure_model(self) -> None:
        if self.conv1 is None:
            vars(self)["_modules"].update(Staged()._modules)
            vars(self).pop("conv1", None)


def test_a_model_built_by_configure_model_is_loaded_by_a_trainer(run: Run):
    model = BuiltLate()
    run_stage("test", quiet_trainer(ReVACNN()), model, run.file("newest"))
    assert torch.equal(logits_of(model), run.logits["newest"])


class BuiltAgain(Staged):
    """Builds its layers again at the beginning of each stage."""

    def setup(self, stage: str) -> None:
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1).double()
        self.conv2 = nn.Conv2d(4, 3, 3).double()


def test_a_model_that_is_built_again_is_not_taken_for_an_edited_one(tmp_path: Path):
    model, revacnn = BuiltAgain(), ReVACNN()
    trainer = fit(model, [At(2, lambda *_: revacnn.steer(AddFilters("conv1"))), revacnn])
    trainer.save_checkpoint(tmp_path / "edited.ckpt")
    trainer.test(model, batches(1), ckpt_path=tmp_path / "edited.ckpt", verbose=False)
    assert model.conv1.out_channels == 5


def test_weights_that_are_loaded_in_part_leave_the_others_as_they_are(run: Run, tmp_path: Path):
    class Partial(Staged):
        def __init__(self) -> None:
            super().__init__()
            self.strict_loading = False

    content = torch.load(run.file("newest"), weights_only=True)
    del content["state_dict"]["linear.bias"]
    torch.save(content, tmp_path / "partial.ckpt")
    model = Partial()
    bias = model.linear.bias.detach().clone()
    run_stage("test", quiet_trainer(ReVACNN()), model, tmp_path / "partial.ckpt")
    assert torch.equal(model.linear.bias, bias)
    assert torch.equal(load_edited(Partial, tmp_path / "partial.ckpt").linear.bias, bias)
    with pytest.raises(SteeringError, match="Missing key"):
        load_edited(Staged, tmp_path / "partial.ckpt")
    load_edited(Staged, tmp_path / "partial.ckpt", strict=False)
