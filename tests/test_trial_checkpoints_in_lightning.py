"""Checkpoints that are saved during a trial of edits, and after it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from revacnn_lightning import DiscardTrial, KeepTrial, ReVACNN, SteeringError
from revacnn_lightning.runtime.trial.edit_trial import INTERRUPTED
from tests.small import At
from tests.test_trials_in_lightning import (
    BATCHES,
    EDITS,
    Normed,
    Scheduled,
    Trained,
    Tried,
    are_equal,
    directly,
    plain,
)

# The order of the batches after a resume does not matter here: both trainings have the same.
pytestmark = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended")
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "loops")
CASES = [(Normed, name) for name in ("remove", "add", "freeze", "insert", "rate")]

Save = Callable[[pl.Trainer], object]


def saving(path: Path, batch: int = 7) -> list[pl.Callback]:
    """Return a callback that saves a checkpoint before a batch."""
    return [At(batch, lambda trainer, _: trainer.save_checkpoint(path))]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_same_training(one: Path, other: Path, make: Callable[[], Normed] = Normed) -> None:
    """Check that two checkpoints are equal bit by bit, and so are the trainings that resume."""
    first, second = load(one), load(other)
    assert [name for name in COMPARED if not are_equal(first[name], second[name])] == []
    assert ("revacnn_steering" in first) == ("revacnn_steering" in second)
    resumed = Trained(make(), [ReVACNN()], resume=one)
    assert resumed.trainer.global_step > first["global_step"]
    resumed.assert_equals(Trained(make(), [ReVACNN()], resume=other))


@pytest.mark.parametrize(("make", "name"), [*CASES, (Scheduled, "remove")])
def test_a_kept_trial_is_resumed_as_an_edit_is(
    make: Callable[[], Normed], name: str, tmp_path: Path
) -> None:
    kept, edited = tmp_path / "kept.ckpt", tmp_path / "edited.ckpt"
    tried = Tried(EDITS[name], KeepTrial(), make(), lambda _: saving(kept))
    assert tried.stages[-1] == "kept"
    directly(EDITS[name], make(), lambda _: saving(edited))
    assert_same_training(kept, edited, make)


class SavesDuringTrial(pl.Callback):
    """Calls ``save`` once: after a step of a trial, or when it has reached a stage."""

    def __init__(self, revacnn: ReVACNN, moment: str, save: Save) -> None:
        self.revacnn, self.moment, self.save = revacnn, moment, save
        self.has_saved = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.revacnn._session is not None
        trial = self.revacnn._session.trial
        publish, count = trial._on_change, trial._count_step

        def on_change() -> None:
            publish()
            assert trial.state is not None
            self._save_at(trial.state.stage, trainer)

        def count_step() -> None:
            self._save_at("step", trainer)
            count()

        trial._on_change, trial._count_step = on_change, count_step

    def _save_at(self, moment: str, trainer: pl.Trainer) -> None:
        if moment == self.moment and not self.has_saved:
            self.has_saved = True
            self.save(trainer)


def tried_while(moment: str, save: Save) -> Tried:
    """Return a training with a trial, which is discarded, and a checkpoint during it."""
    made: list[SavesDuringTrial] = []

    def others(revacnn: ReVACNN) -> list[SavesDuringTrial]:
        made.append(SavesDuringTrial(revacnn, moment, save))
        return made

    tried = Tried(EDITS["remove"], DiscardTrial(), Normed(), others)
    assert made[0].has_saved
    plain(Normed).assert_equals(tried)
    return tried


def saved_without_trial(path: Path, tried: Tried) -> Path:
    """Return the checkpoint of an unedited training before the batch of the trial."""
    Trained(Normed(), [*saving(path, tried.found.step + BATCHES), ReVACNN()])
    return path


def test_a_checkpoint_before_the_decision_is_that_of_the_unedited_training(tmp_path: Path) -> None:
    saved = tmp_path / "during.ckpt"
    tried = tried_while("undecided", lambda trainer: trainer.save_checkpoint(saved))
    assert_same_training(saved, saved_without_trial(tmp_path / "plain.ckpt", tried))


@pytest.fixture
def on_signal() -> Iterator[list[Callable[[], object]]]:
    """What the handler of SIGUSR1 does."""
    actions: list[Callable[[], object]] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: [action() for action in actions])
    yield actions
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_that_saves_a_checkpoint_saved_the_weights_of_a_trial(
    on_signal: list[Callable[[], object]], tmp_path: Path
) -> None:
    """As Lightning's handler does before a cluster ends a job."""
    saved = tmp_path / "during.ckpt"

    def raise_signal(trainer: pl.Trainer) -> None:
        on_signal.append(lambda: trainer.save_checkpoint(saved))
        signal.raise_signal(signal.SIGUSR1)

    tried = tried_while("step", raise_signal)
    assert tried.stages == ["recording", "training", "discarded"]
    assert tried.found.note == INTERRUPTED
    assert_same_training(saved, saved_without_trial(tmp_path / "plain.ckpt", tried))


def test_a_checkpoint_of_a_trial_is_refused(tmp_path: Path) -> None:
    """As from another thread."""
    saved, refusals = tmp_path / "during.ckpt", []

    def save(trainer: pl.Trainer) -> None:
        with pytest.raises(SteeringError, match="values of a trial") as refusal:
            trainer.save_checkpoint(saved, weights_only=True)
        refusals.append(refusal)

    tried_while("step", save)
    assert len(refusals) == 1
    assert not saved.exists()
