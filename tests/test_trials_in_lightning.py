"""Trials of edits in real trainings: kept or discarded, both bit by bit."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from revacnn_lightning import (
    AddFilters,
    ControlRun,
    DiscardTrial,
    EditRefusedError,
    Freeze,
    InsertLayer,
    KeepTrial,
    Reinitialize,
    RemoveFilters,
    ReVACNN,
    Run,
    ScaleLearningRate,
    SetHyperparameter,
    TryEdits,
    Undo,
)
from revacnn_lightning.protocol.trial_state import TrialState
from revacnn_lightning.runtime.trial.trial_loop import optimizer_refusal
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.edited_models import find_journal
from tests.runtime.live_run import train_with
from tests.small import At, TwoConvs, fit

BATCHES = 3
Others = Callable[[ReVACNN], Sequence[pl.Callback]]  # makes further callbacks
EDITS: dict[str, list[Any]] = {
    "remove": [RemoveFilters("conv1", [1])],
    "add": [AddFilters("conv1", 2)],
    "freeze": [Freeze("conv1", [0, 2])],
    "scale": [ScaleLearningRate("conv1", 0.1)],
    "restart": [Reinitialize("conv1", [1])],
    "insert": [InsertLayer("conv1", "dirac")],
    "rate": [SetHyperparameter(0, 0, "lr", 0.01)],
    "several": [RemoveFilters("conv1", [0]), Freeze("conv1", [3]), AddFilters("conv2")],
}


class Normed(TwoConvs):
    """With batch norm and dropout, in float32."""

    def __init__(self, optimizer: str = "adamw") -> None:
        super().__init__(optimizer)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.float()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu1(self.norm(self.conv1(images.float())))
        return self.linear(self.drop(self.relu2(self.conv2(hidden)).flatten(1)))


def are_equal(one: Any, other: Any) -> bool:
    """Return whether nested values are equal, bit by bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(are_equal, one, other))
    return bool(one == other)


class Trained:
    """A training, and what is left of it at the end."""

    def __init__(self, model: TwoConvs, callbacks: Sequence[pl.Callback], **options: Any) -> None:
        pl.seed_everything(3, verbose=False)
        self.model = model
        self.trainer = fit(model, callbacks, count=10, record_all=False, **options)
        self.random = torch.get_rng_state()
        self.steps: set[int] = set()  # before which it was edited

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    def assert_equals(self, other: Trained) -> None:
        """Check that two trainings have ended the same, bit by bit."""
        own, others = self.model.state_dict(), other.model.state_dict()
        assert own.keys() == others.keys()
        assert [name for name in own if not torch.equal(own[name], others[name])] == []
        own_state, other_state = self.optimizer.state_dict(), other.optimizer.state_dict()
        assert own_state["param_groups"] == other_state["param_groups"]
        assert own_state["state"].keys() == other_state["state"].keys()
        assert are_equal(own_state["state"], other_state["state"])
        assert torch.equal(self.random, other.random)
        steps = (self.trainer.global_step, other.trainer.global_step)
        assert steps[0] == steps[1]
        metrics = (self.trainer.callback_metrics, other.trainer.callback_metrics)
        assert metrics[0] == metrics[1]


class Tried(Trained):
    """A training in which edits are tried, and then kept or discarded."""

    def __init__(
        self,
        edits: Sequence[Any],
        decision: Any,
        model: TwoConvs,
        others: Others = lambda _: [],
        batches: int = BATCHES,
        **options: Any,
    ) -> None:
        self.revacnn = ReVACNN()
        self.decision = decision
        self.replies: list[Any] = []
        self.stages: list[str] = []
        self.state: TrialState | None = None
        start = At(2, lambda *_: self._start(TryEdits(list(edits), batches)))
        super().__init__(model, [*others(self.revacnn), start, self.revacnn], **options)

    def _start(self, command: TryEdits) -> None:
        session = self.revacnn._session
        assert session is not None
        trial, publish = session.trial, session.trial._on_change

        def on_change() -> None:
            publish()
            self.state = trial.state
            assert self.state is not None
            self.stages.append(self.state.stage)
            if self.state.stage == "undecided":
                self.replies.append(self.revacnn.steer(self.decision))

        trial._on_change = on_change
        self.replies.append(self.revacnn.steer(command))

    @property
    def reply(self) -> Any:
        """The reply to the request of the trial."""
        return self.replies[0].result()

    @property
    def found(self) -> TrialState:
        assert self.state is not None
        return self.state


def directly(
    edits: Sequence[Any], model: TwoConvs, others: Others = lambda _: [], **options: Any
) -> Trained:
    """Return a training that is edited before the batch at which `Tried` starts the trial.

    An edit waits for a batch that shows how the network is used. A rate does not.
    """
    revacnn = ReVACNN()
    replies: list[Any] = []

    def steer(are_rates: bool) -> None:
        for edit in edits:
            if isinstance(edit, SetHyperparameter) == are_rates:
                replies.append(revacnn.steer(edit))

    starts = [At(2, lambda *_: steer(False)), At(3, lambda *_: steer(True))]
    trained = Trained(model, [*others(revacnn), *starts, revacnn], **options)
    trained.steps = {reply.result().step for reply in replies}
    return trained


@functools.cache
def plain(make: Callable[..., TwoConvs], *arguments: Any, **options: Any) -> Trained:
    """Return a training without the callback."""
    return Trained(make(*arguments), [], **options)


CASES = [*((name, "adamw") for name in EDITS), ("remove", "sgd-momentum"), ("add", "sgd-momentum")]


@pytest.mark.parametrize(("name", "optimizer"), CASES)
def test_a_discarded_trial_leaves_no_trace(name: str, optimizer: str) -> None:
    tried = Tried(EDITS[name], DiscardTrial(), Normed(optimizer))
    assert tried.stages == ["recording", "training", "undecided", "discarded"]
    plain(Normed, optimizer).assert_equals(tried)
    assert find_journal(tried.model) is None


@pytest.mark.parametrize(("name", "optimizer"), [case for case in CASES if case[0] != "several"])
def test_a_kept_trial_is_a_training_that_was_edited_before_it(name: str, optimizer: str) -> None:
    edits = EDITS[name]
    tried = Tried(edits, KeepTrial(), Normed(optimizer))
    assert tried.stages == ["recording", "training", "undecided", "kept"]
    edited = directly(edits, Normed(optimizer))
    assert edited.steps == {tried.found.step}
    edited.assert_equals(tried)
    assert tried.replies[1].result().version == (-1 if name == "rate" else 1)


def test_the_losses_are_those_of_both_trainings() -> None:
    edits = EDITS["remove"]
    losses: dict[str, list[float]] = {"plain": [], "edited": []}

    def note(name: str) -> list[pl.Callback]:
        def on_end(*args: Any) -> None:
            losses[name].append(float(args[2]["loss"]))

        return [pl.callbacks.LambdaCallback(on_train_batch_end=on_end)]

    Trained(Normed(), note("plain"))
    directly(edits, Normed(), lambda _: note("edited"))
    found = Tried(edits, DiscardTrial(), Normed()).found
    assert found.losses == losses["plain"][3 : 3 + BATCHES]
    assert found.edited_losses == losses["edited"][3 : 3 + BATCHES]
    assert found.change == pytest.approx(
        sum(found.edited_losses) / BATCHES - sum(found.losses) / BATCHES
    )
    assert found.low < found.change < found.high
    assert found.titles == ["Remove conv1 · filter 1"]
    assert found.bytes > 0


def test_an_edit_that_changes_nothing_has_the_same_losses() -> None:
    """The first loss of a network with new filters, whose outgoing weights are zero."""
    found = Tried(EDITS["add"], DiscardTrial(), TwoConvs()).found
    assert found.edited_losses[0] == pytest.approx(found.losses[0], abs=1e-12)
    assert found.edited_losses[1:] != found.losses[1:]


def test_a_kept_trial_is_undone_like_any_other_edit() -> None:
    def undo(revacnn: ReVACNN) -> list[pl.Callback]:
        return [At(7, lambda *_: revacnn.steer(Undo()))]

    tried = Tried(EDITS["remove"], KeepTrial(), TwoConvs(), undo)
    assert tried.model.conv1.out_channels == 4
    directly(EDITS["remove"], TwoConvs(), undo).assert_equals(tried)


def test_edits_name_filters_as_they_are_before_the_trial() -> None:
    edits = [RemoveFilters("conv1", [0]), RemoveFilters("conv1", [0, 1])]
    tried = Tried(edits, KeepTrial(), TwoConvs())
    assert tried.model.conv1.out_channels == 2
    assert [title.split(" · ")[1] for title in tried.found.titles] == ["filter 0", "filter 0"]


def test_resuming_without_a_decision_discards_the_trial() -> None:
    tried = Tried(EDITS["add"], ControlRun("resume"), TwoConvs())
    assert tried.stages[-1] == "discarded"
    assert "resumed" in tried.found.note
    plain(TwoConvs).assert_equals(tried)


def test_gradient_clipping_is_part_of_a_step() -> None:
    options = {"gradient_clip_val": 0.05}
    tried = Tried(EDITS["remove"], DiscardTrial(), Normed(), **options)
    assert tried.stages[-2:] == ["undecided", "discarded"]
    plain(Normed, **options).assert_equals(tried)
    kept = Tried(EDITS["remove"], KeepTrial(), Normed(), **options)
    directly(EDITS["remove"], Normed(), **options).assert_equals(kept)


class Scheduled(Normed):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=12)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def test_a_schedule_goes_on_and_its_rates_are_those_of_the_batches() -> None:
    tried = Tried(EDITS["remove"], KeepTrial(), Scheduled())
    assert tried.stages[-1] == "kept"
    directly(EDITS["remove"], Scheduled()).assert_equals(tried)


def test_a_training_in_half_precision_can_be_tried() -> None:
    tried = Tried(EDITS["remove"], DiscardTrial(), Normed(), precision="bf16-mixed")
    assert tried.stages[-2:] == ["undecided", "discarded"]
    plain(Normed, precision="bf16-mixed").assert_equals(tried)


def test_new_filters_of_an_earlier_edit_go_on_growing() -> None:
    """They train with a bias correction of their own, whose ages are part of the training."""

    def add(revacnn: ReVACNN) -> list[pl.Callback]:
        return [At(0, lambda *_: revacnn.steer(AddFilters("conv1")))]

    tried = Tried(EDITS["remove"], DiscardTrial(), TwoConvs(), add)
    assert tried.stages[-2:] == ["undecided", "discarded"]
    directly([], TwoConvs(), add).assert_equals(tried)


def test_frozen_filters_and_their_statistics_stay_frozen_in_both_networks() -> None:
    def freeze(revacnn: ReVACNN) -> list[pl.Callback]:
        return [At(0, lambda *_: revacnn.steer(Freeze("conv1", [0, 2])))]

    tried = Tried(EDITS["remove"], KeepTrial(), Normed(), freeze)
    assert tried.stages[-2:] == ["undecided", "kept"]
    directly(EDITS["remove"], Normed(), freeze).assert_equals(tried)
    discarded = Tried(EDITS["remove"], DiscardTrial(), Normed(), freeze)
    directly([], Normed(), freeze).assert_equals(discarded)


def test_a_client_tries_keeps_undoes_and_discards(tmp_path: Path) -> None:
    def client(run: Run) -> dict[str, Any]:
        run.wait_for(lambda run: run.structure)
        cost = run.trial_cost(EDITS["remove"], batches=4)
        trial = run.try_edits(EDITS["remove"], batches=4)
        before = run.structure.version
        words = trial.keep()
        width = run.structure.layers[0].out_channels
        edits = [(edit.title, edit.version) for edit in run.history().edits]
        run.undo()
        again = run.try_edits(AddFilters("conv2"), batches=2)
        again.discard()
        who = [one.title for one in run.history().requests]
        return {
            "cost": cost,
            "trial": trial,
            "words": words,
            "width": width,
            "edits": edits,
            "version": before,
            "who": who,
            "last": run.structure.layers[1].out_channels,
        }

    found, _ = train_with(client, tmp_path)
    trial = found["trial"]
    assert found["cost"].batches == 4
    assert found["cost"].bytes / 1e6 == pytest.approx(trial.megabytes, rel=0.3)
    assert len(trial.losses) == len(trial.edited_losses) == 4
    assert trial.interval[0] < trial.change < trial.interval[1]
    assert "Remove conv1" in repr(trial)
    assert (found["width"], found["last"]) == (3, 3)
    assert found["words"] == "Kept: Remove conv1 · filter 1"
    assert found["edits"] == [("Remove conv1 · filter 1", found["version"] + 1)]
    assert found["who"][:2] == ["Try an edit on 4 batches", "Keep the trial"]
    assert found["who"][-1] == "Discard the trial"


# ---------------------------------------------------------------------- refusals


class Manual(TwoConvs):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()
        return loss


class OverridesClipping(TwoConvs):
    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Clip nothing."""


class Closures(TwoConvs):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), lr=0.01)


class Averaged(TwoConvs):
    def __init__(self) -> None:
        super().__init__()
        self.average = torch.optim.swa_utils.AveragedModel(nn.Sequential(self.conv1, self.conv2))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        own = [p for name, p in self.named_parameters() if not name.startswith("average")]
        return torch.optim.SGD(own, lr=0.01)


class HookedOptimizer(TwoConvs):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        optimizer.register_step_post_hook(lambda *_: None)
        return optimizer


class NotesGradients(pl.Callback):
    def on_after_backward(self, *args: Any) -> None:
        """Note something."""


@pytest.mark.parametrize(
    ("make", "callbacks", "options", "reason"),
    [
        (Manual, [], {}, "manual optimization"),
        (TwoConvs, [], {"accumulate_grad_batches": 2}, "accumulated"),
        (OverridesClipping, [], {}, "OverridesClipping overrides configure_gradient_clipping"),
        (Closures, [], {}, "LBFGS runs several forwards"),
        (Averaged, [], {}, "a copy of the network"),
        (HookedOptimizer, [], {}, "hooks are registered on the SGD"),
        (TwoConvs, [NotesGradients()], {}, "NotesGradients overrides on_after_backward"),
    ],
)
def test_what_cannot_be_repeated_is_refused_by_name_before_anything_is_touched(
    make: type[TwoConvs], callbacks: list[pl.Callback], options: dict[str, Any], reason: str
) -> None:
    tried = Tried(EDITS["remove"], KeepTrial(), make(), lambda _: callbacks, **options)
    with pytest.raises(EditRefusedError, match=reason):
        tried.reply  # noqa: B018
    assert tried.stages == []
    Trained(make(), callbacks, **options).assert_equals(tried)


def test_a_compiled_network_and_several_optimizers_are_refused_by_name() -> None:
    model = TwoConvs()
    one, other = (torch.optim.SGD(c.parameters(), 0.1) for c in (model.conv1, model.conv2))
    assert "2 optimizers" in optimizer_refusal(model, Editor(model, [one, other]))
    model.add_module("compiled", nn.ModuleDict({"_orig_mod": nn.Identity()}))
    assert "compiled" in optimizer_refusal(model, Editor(model, [one]))


def test_a_refused_edit_refuses_the_trial_before_its_first_batch() -> None:
    edits = [*EDITS["add"], RemoveFilters("conv1", [9])]
    tried = Tried(edits, KeepTrial(), TwoConvs())
    with pytest.raises(EditRefusedError, match="conv1"):
        tried.reply  # noqa: B018
    plain(TwoConvs).assert_equals(tried)


class Unseen(TwoConvs):
    """Its step changes the weights in a way that no replay knows."""

    def on_train_batch_end(self, *args: Any) -> None:
        with torch.no_grad():
            self.conv1.weight.mul_(0.999)


def test_steps_that_cannot_be_repeated_exactly_end_the_trial() -> None:
    tried = Tried(EDITS["remove"], KeepTrial(), Unseen())
    assert tried.stages == ["recording", "training", "failed"]
    assert "have another loss in step 2 of 3" in tried.found.note
    plain(Unseen).assert_equals(tried)


def test_edits_wait_for_the_decision() -> None:
    replies: list[Any] = []

    def edit(revacnn: ReVACNN) -> list[pl.Callback]:
        return [At(4, lambda *_: replies.append(revacnn.steer(AddFilters("conv2"))))]

    Tried(EDITS["remove"], DiscardTrial(), TwoConvs(), edit)
    with pytest.raises(EditRefusedError, match="keep or discard it first"):
        replies[0].result()


def test_a_training_that_ends_ends_its_trial() -> None:
    tried = Tried(EDITS["remove"], KeepTrial(), TwoConvs(), batches=200)
    assert tried.stages == ["recording", "failed"]
    assert "has ended" in tried.found.note
    assert math.isnan(tried.found.change)
