"""Edited runs whose trainers have other callbacks, before and after ours in the list."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning, LearningRateFinder
from pytorch_lightning.tuner import Tuner
from torch import nn

from revacnn_lightning import (
    AddFilters,
    InsertLayer,
    RemoveFilters,
    RemoveLayer,
    ReVACNN,
    Undo,
)
from revacnn_lightning.protocol.requests import Edit
from tests.small import At, TwoConvs, batches, fit
from tests.test_callback import hooks_on
from tests.test_checkpoints_in_lightning import collect_state

pytestmark = pytest.mark.filterwarnings(
    "ignore:Be aware that when using `ckpt_path`",
    "ignore:You're resuming from a checkpoint that ended before",
    "ignore:You defined a `validation_step`",
)


class AtEpoch(pl.Callback):
    """Submits edits before one batch of one epoch, and saves a file before another one."""

    def __init__(self, revacnn: ReVACNN, edits: list[Edit], epoch: int, path: Path) -> None:
        self.revacnn, self.edits, self.epoch, self.path = revacnn, edits, epoch, path
        self.requests: list[Any] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            self.requests = [self.revacnn.steer(edit) for edit in self.edits]

    def on_train_epoch_end(self, trainer, module) -> None:  # type: ignore[no-untyped-def]
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


class WithBackbone(TwoConvs):
    """The network behind a backbone, which is frozen at first."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1)
        self.backbone = nn.Sequential(*layers).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(self.backbone(images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-3)


def group_names(trainer: pl.Trainer) -> list[list[str]]:
    names = {p: name for name, p in trainer.lightning_module.named_parameters()}
    return [[names[p] for p in group["params"]] for group in trainer.optimizers[0].param_groups]


@pytest.mark.parametrize(
    "edits",
    [
        [AddFilters("conv1", 2)],
        [InsertLayer("conv1"), RemoveFilters("conv1", [0])],
        [RemoveLayer("conv2")],
    ],
    ids=["add", "insert", "remove a layer"],
)
@pytest.mark.parametrize("epoch", [0, 1], ids=["frozen", "unfrozen"])
@pytest.mark.parametrize("is_last", [False, True], ids=["before", "after"])
def test_a_finetuning_run_resumes_wherever_the_callback_stands(
    tmp_path: Path, edits: list[Edit], epoch: int, is_last: bool
):
    path = tmp_path / "edited.ckpt"

    def train(*first: pl.Callback, **options: Any) -> pl.Trainer:
        finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False)
        order = [*first, finetuning] if not is_last else [finetuning, *first]
        return fit(WithBackbone(), order, count=3, max_epochs=3, **options)

    revacnn = ReVACNN()
    steer = AtEpoch(revacnn, edits, epoch, path)
    whole = train(steer, revacnn)
    for request in steer.requests:
        request.result()
    resumed = train(ReVACNN(), resume=path)
    assert group_names(resumed) == group_names(whole)
    state, expected = collect_state(resumed), collect_state(whole)
    assert state.keys() == expected.keys()
    if epoch == 0:  # a resumed BackboneFinetuning does not unfreeze what is unfrozen in the file
        for name, value in expected.items():
            assert torch.equal(state[name], value), name


class Average(pl.Callback):
    """Holds a copy of the model from the beginning and restores its weights, as averages do."""

    copy: pl.LightningModule | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.module, self.copy = pl_module, copy.deepcopy(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": dict(self.module.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert self.copy is not None
        self.copy.load_state_dict(state["weights"])


@pytest.mark.parametrize("is_last", [False, True], ids=["before", "after"])
def test_a_copy_that_another_callback_holds_gets_the_structure_of_the_file(
    tmp_path: Path, is_last: bool
):
    def train(model: TwoConvs, *ours: pl.Callback, **options: Any) -> Average:
        average = Average()
        fit(model, [average, *ours] if is_last else [*ours, average], count=4, **options)
        return average

    revacnn, model = ReVACNN(), TwoConvs()
    edits: list[Edit] = [AddFilters("conv1"), InsertLayer("conv1"), RemoveLayer("relu2")]
    save = At(1, lambda trainer, _: trainer.save_checkpoint(tmp_path / "before.ckpt"))
    submit = At(2, lambda *_: [revacnn.steer(edit) for edit in edits])
    train(model, submit, revacnn, save)
    edited = tmp_path / "edited.ckpt"
    assert model.trainer is not None
    model.trainer.save_checkpoint(edited)
    fresh = train(TwoConvs(), ReVACNN(), resume=edited)
    assert fresh.copy is not None
    assert isinstance(fresh.copy.relu2, nn.Identity)
    again = train(model, ReVACNN(), resume=tmp_path / "before.ckpt")
    assert again.copy is not None
    assert isinstance(again.copy.relu2, nn.ReLU)
    assert again.copy.relu2 is not model.relu2


def test_a_copy_that_another_callback_makes_has_nothing_of_ours_after_the_run():
    average, model = Average(), TwoConvs()
    fit(model, [ReVACNN(), average])
    assert average.copy is not None
    for each in (average.copy, model):
        assert not [name for name in vars(each) if name.endswith("_checkpoint")]


# ---------------------------------------------------------------------- the tuner


class Tuned(TwoConvs):
    """The network with a rate and a batch size to find."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.batch_size = 1e-3, 2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.rate)

    def train_dataloader(self) -> Any:
        return batches(20, self.batch_size)

    def val_dataloader(self) -> Any:
        return batches(1)


def edited_model_and_trainer(tmp_path: Path, *others: pl.Callback) -> tuple[Tuned, pl.Trainer]:
    model, revacnn = Tuned(), ReVACNN()
    edits: list[Edit] = [AddFilters("conv1"), InsertLayer("conv1")]
    submit = At(2, lambda *_: [revacnn.steer(edit) for edit in edits])
    trainer = fit(model, [submit, revacnn, *others], default_root_dir=tmp_path)
    assert model.conv1.out_channels == 5
    return model, trainer


@pytest.mark.parametrize("find", ["lr_find", "scale_batch_size"])
@pytest.mark.filterwarnings("ignore")  # the tuner's own
def test_the_tuner_restores_an_edited_model(tmp_path: Path, find: str):
    model, trainer = edited_model_and_trainer(tmp_path)
    before = copy.deepcopy(model.state_dict())
    tuner = Tuner(trainer)
    if find == "lr_find":
        trainer.fit_loop.max_epochs = 10
        assert tuner.lr_find(model, num_training=12, update_attr=True, attr_name="rate") is not None
    else:
        assert tuner.scale_batch_size(model, max_trials=2, steps_per_trial=1) is not None
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not [name for name in vars(model) if name.endswith("_checkpoint")]


@pytest.mark.filterwarnings("ignore")  # the tuner's own
@pytest.mark.parametrize("is_last", [False, True], ids=["before", "after"])
def test_a_run_that_finds_its_rate_first_is_edited_and_resumed(tmp_path: Path, is_last: bool):
    def train(*ours: pl.Callback, **options: Any) -> tuple[Tuned, pl.Trainer]:
        model = Tuned()
        finder = LearningRateFinder(num_training_steps=12, attr_name="rate")
        order = [finder, *ours] if is_last else [*ours, finder]
        return model, fit(model, order, default_root_dir=tmp_path, **options)

    revacnn = ReVACNN()
    submit = At(2, lambda *_: revacnn.steer(InsertLayer("conv1")))
    model, trainer = train(submit, revacnn)
    assert len(list(model.conv1.children())) == 1
    trainer.save_checkpoint(tmp_path / "edited.ckpt")
    resumed, _ = train(ReVACNN(), resume=tmp_path / "edited.ckpt", max_epochs=2)
    assert len(list(resumed.conv1.children())) == 1


# ---------------------------------------------------------------------- nothing is left


def test_an_inserted_and_removed_layer_leaves_the_tables_of_its_host_as_they_were():
    model, revacnn = TwoConvs(), ReVACNN()
    insert = At(3, lambda *_: revacnn.steer(InsertLayer("conv1")))
    undo = At(6, lambda *_: revacnn.steer(Undo()))
    fit(model, [insert, undo, revacnn])
    assert list(model.conv1.children()) == []
    assert hooks_on(model) == []
    for name, value in vars(TwoConvs().conv1).items():
        assert type(vars(model.conv1)[name]) is type(value), name
    assert type(model.conv1._forward_hooks) is OrderedDict
