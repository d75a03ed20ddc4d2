"""Edits in trainings that keep copies of the network: averages, momentum encoders, snapshots."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    ModelPruning,
    StochasticWeightAveraging,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from revacnn_lightning import (
    AddFilters,
    Freeze,
    InsertLayer,
    RemoveFilters,
    RemoveLayer,
    ReVACNN,
    Undo,
)
from tests.small import At, fit


class Net(pl.LightningModule):
    """Two convs with a batch norm between them, and a head; on 6x6 images, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(4, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2),
        )  # fmt: skip
        self.double()

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def averaged(target: nn.Module, source: nn.Module) -> None:
    with torch.no_grad():
        for q, p in zip(target.parameters(), source.parameters(), strict=True):
            q.data.lerp_(p.data, 0.1)


class Registered(Net):
    def __init__(self) -> None:
        super().__init__()
        self.ema = copy.deepcopy(self.net).requires_grad_(False)

    def on_train_batch_end(self, *args: Any) -> None:
        averaged(self.ema, self.net)

    @property
    def twin(self) -> nn.Module:
        return self.ema


class InList(Net):
    def __init__(self) -> None:
        super().__init__()
        self.others = [copy.deepcopy(self.net)]

    def on_train_batch_end(self, *args: Any) -> None:
        averaged(self.others[0], self.net)

    @property
    def twin(self) -> nn.Module:
        return self.others[0]


class Averaged(Net):
    def __init__(self) -> None:
        super().__init__()
        self.average = AveragedModel(self.net, avg_fn=get_ema_avg_fn(0.9), use_buffers=True)

    def on_train_batch_end(self, *args: Any) -> None:
        self.average.update_parameters(self.net)

    @property
    def twin(self) -> nn.Module:
        return self.average.module


class InCallback(pl.Callback):
    def on_fit_start(self, trainer, pl_module):
        self.twin = copy.deepcopy(pl_module.net)

    def on_train_batch_end(self, trainer, pl_module, *args):
        averaged(self.twin, pl_module.net)


class Shadow(pl.Callback):
    """A moving average as a dict by name."""

    def on_fit_start(self, trainer, pl_module):
        self.shadow = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, *args):
        for name, p in pl_module.named_parameters():
            self.shadow[name].lerp_(p.detach(), 0.1)


class ShadowList(pl.Callback):
    """A moving average as a list, and one keyed by parameters."""

    def on_fit_start(self, trainer, pl_module):
        self.shadow = [p.detach().clone() for p in pl_module.net.parameters()]
        self.keyed = {p: p.detach().clone() for p in pl_module.net.parameters()}

    def on_train_batch_end(self, trainer, pl_module, *args):
        parameters = list(pl_module.net.parameters())
        assert len(parameters) == len(self.shadow) == len(self.keyed)
        for q, p in zip(self.shadow, parameters, strict=True):
            q.lerp_(p.detach(), 0.1)
            self.keyed[p].lerp_(p.detach(), 0.1)


def edit_all(*edits: Any, revacnn: ReVACNN, check: Callable[[], None] = lambda: None) -> list:
    """Return callbacks that apply an edit before each of the batches 2, 3, ..."""
    replies: list[Any] = []

    def steer(edit: Any) -> Callable[..., None]:
        return lambda *_: replies.append(revacnn.steer(edit))

    return [At(2 + i, steer(edit)) for i, edit in enumerate(edits)], replies


EDITS = [
    AddFilters("net.0", 2),
    RemoveFilters("net.3", [1]),
    InsertLayer("net.0"),
    Freeze("net.0", [0]),
    RemoveLayer("net.3"),
    AddFilters("net.5", 1, split_from=0),
    Undo(3),
    AddFilters("net.0.inserted1.conv", 1),
]
KINDS: dict[str, Callable[[], tuple[pl.LightningModule, list[pl.Callback]]]] = {
    "registered": lambda: (Registered(), []),
    "in a list": lambda: (InList(), []),
    "averaged model": lambda: (Averaged(), []),
    "callback": lambda: (Net(), [InCallback()]),
    "dict of a callback": lambda: (Net(), [Shadow()]),
    "list of a callback": lambda: (Net(), [ShadowList()]),
    "WeightAveraging": lambda: (Net(), [EMAWeightAveraging(decay=0.9)]),
    "StochasticWeightAveraging": lambda: (
        Net(),
        [StochasticWeightAveraging(1e-2, swa_epoch_start=2)],
    ),
    "all": lambda: (
        Averaged(),
        [InCallback(), InCallback(), EMAWeightAveraging(decay=0.9), Shadow()],
    ),
}


def reasons(replies: list[Any]) -> list[str]:
    return [getattr(pending.reply, "reason", "") for pending in replies]


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_with_copies_after_edits_of_all_kinds(kind: str) -> None:
    module, callbacks = KINDS[kind]()
    revacnn = ReVACNN()
    ats, replies = edit_all(*EDITS, revacnn=revacnn)
    trainer = fit(
        module, [*callbacks, *ats, revacnn], max_epochs=3, validate=True, record_all=False
    )
    assert reasons(replies) == [""] * len(EDITS)
    assert trainer.global_step >= 36
    trained = {id(p) for g in trainer.optimizers[0].param_groups for p in g["params"]}
    assert trained >= {id(p) for p in module.net.parameters()}


class NewOptimizer(pl.Callback):
    """Sets the optimizers up again, or replaces them, at the start of the second epoch."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch != 1:
            return
        if self.how == "setup_optimizers":
            trainer.strategy.setup_optimizers(trainer)
        elif self.how == "assignment":
            trainer.optimizers = [torch.optim.SGD(pl_module.parameters(), 0.1, momentum=0.9)]
        else:
            parameters = list(pl_module.net[0].parameters())
            for p in parameters:
                p.requires_grad_(True)
            trainer.optimizers[0].add_param_group({"params": parameters})


class Unfrozen(Net):
    """Its first layer is frozen until a callback adds it to the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].requires_grad_(False)

    def configure_optimizers(self):
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad])


@pytest.mark.parametrize("how", ["setup_optimizers", "assignment", "add_param_group"])
def test_edits_after_training_has_replaced_its_optimizers(how: str) -> None:
    module = Unfrozen() if how == "add_param_group" else Net()
    revacnn = ReVACNN()
    replies: list[Any] = []

    def steer(trainer: pl.Trainer, _: Any) -> None:
        if trainer.current_epoch == 1:
            for edit in (Freeze("net.0", [1]), AddFilters("net.0", 2), InsertLayer("net.0")):
                replies.append(revacnn.steer(edit))

    class Steer(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                steer(trainer, pl_module)

    trainer = fit(module, [NewOptimizer(how), Steer(), revacnn], max_epochs=3, record_all=False)
    assert reasons(replies) == [""] * 3
    listed = [id(p) for g in trainer.optimizers[0].param_groups for p in g["params"]]
    assert sorted(listed) == sorted(id(p) for p in module.parameters())
    state = trainer.optimizers[0].state
    assert all(state[p] for p in module.net[0].inserted1.parameters())


class OwnOptimizer(Net):
    """Manual optimization with an optimizer that the trainer does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        self.own = torch.optim.Adam(self.net.parameters())

    def training_step(self, batch, batch_idx):
        self.own.zero_grad()
        super().training_step(batch, batch_idx).backward()
        self.own.step()


@pytest.mark.filterwarnings("ignore:.*configure_optimizers.*:UserWarning")
def test_an_optimizer_of_the_module_is_edited_along() -> None:
    module, revacnn = OwnOptimizer(), ReVACNN()
    ats, replies = edit_all(AddFilters("net.0", 1), InsertLayer("net.0"), revacnn=revacnn)
    fit(module, [*ats, revacnn], record_all=False)
    assert reasons(replies) == ["", ""]
    assert all(module.own.state[p] for p in module.parameters())


def pruning(**options: Any) -> ModelPruning:
    return ModelPruning("l1_unstructured", amount=0.2, **options)


@pytest.mark.parametrize("lottery", [True, False])
def test_pruning_goes_on_after_an_edit_before_the_first_mask(lottery: bool) -> None:
    module, revacnn = Net(), ReVACNN()
    edits = [AddFilters("net.0", 2), RemoveFilters("net.3", [0]), InsertLayer("net.3")]
    ats, replies = edit_all(*edits, RemoveLayer("net.5"), revacnn=revacnn)
    callback = pruning(use_lottery_ticket_hypothesis=lottery)
    fit(module, [callback, *ats, revacnn], max_epochs=3, record_all=False)
    assert reasons(replies)[:3] == ["", "", ""]
    assert "ModelPruning" in reasons(replies)[3]


AVERAGES: dict[str, Callable[[], pl.Callback]] = {
    "WeightAveraging": lambda: EMAWeightAveraging(decay=0.9),
    "StochasticWeightAveraging": lambda: StochasticWeightAveraging(1e-2, swa_epoch_start=1),
    "ModelPruning": pruning,
}


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("kind", AVERAGES)
def test_an_edited_run_resumes_with_its_averages(kind: str, first: bool, tmp_path: Any) -> None:
    edits = [AddFilters("net.0", 2), InsertLayer("net.3"), RemoveFilters("net.3", [0])]
    path = tmp_path / "edited.ckpt"

    def run(resume: Any, *extra: Any, **options: Any) -> tuple[pl.Trainer, Any]:
        module, revacnn, average = Registered(), ReVACNN(), AVERAGES[kind]()
        given = [average, revacnn] if first else [revacnn, average]
        ats, replies = edit_all(*(extra or edits), revacnn=revacnn)
        trainer = fit(module, [*ats, *given], resume=resume, record_all=False, **options)
        assert reasons(replies) == [""] * len(replies)
        return trainer, module

    trainer, _ = run(None, max_epochs=2)
    trainer.save_checkpoint(path)
    resumed, again = run(path, Undo(3), max_epochs=4)  # the third may update batch norms only
    assert resumed.global_step > trainer.global_step
    assert again.net[0].out_channels == 4
    assert [p.shape for p in again.ema.parameters()] == [p.shape for p in Net().net.parameters()]
