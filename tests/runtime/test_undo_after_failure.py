"""After an internal error monitoring stops, but the edits stay and can be undone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from revacnn_lightning import AddFilters, EditRefusedError, Freeze, Redo, ReVACNN, Undo, load_edited
from revacnn_lightning.runtime.session import Session
from tests.small import At, TwoConvs, fit


@pytest.fixture
def broken_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the session raise at the end of a batch."""

    def break_at(step: int) -> None:
        end_batch = Session.end_batch

        def broken(self: Session, **kwargs: Any) -> None:
            end_batch(self, **kwargs)
            if self._batch.step == step:
                raise RuntimeError("a bug of ours")

        monkeypatch.setattr(Session, "end_batch", broken)

    return break_at


def test_edits_are_undone_and_redone_after_an_internal_error(broken_at: Any) -> None:
    broken_at(5)
    model, revacnn, widths = TwoConvs(), ReVACNN(), []
    replies: dict[str, Any] = {}

    def steer(name: str, edit: Any) -> Any:
        def action(*_: object) -> None:
            replies[name] = revacnn.steer(edit)

        return action

    def measure(*_: object) -> None:
        widths.append(model.conv1.out_channels)

    callbacks = [
        At(2, steer("add", AddFilters("conv1", 2))),
        At(6, steer("undo", Undo())), At(7, measure),
        At(7, steer("redo", Redo())), At(8, measure),
        At(8, steer("more", AddFilters("conv1"))),
        revacnn,
    ]  # fmt: skip
    fit(model, callbacks)
    assert widths == [4, 6]
    assert replies["undo"].result().step == 6
    assert replies["redo"].result().version == 3
    with pytest.raises(EditRefusedError, match=r"Internal error.*can only be undone"):
        replies["more"].result()
    with pytest.raises(EditRefusedError, match="no training is running"):
        revacnn.steer(Undo())


def test_requests_that_are_pending_at_the_error_are_refused(broken_at: Any) -> None:
    broken_at(5)
    model, revacnn, pending = TwoConvs(), ReVACNN(), []

    def late(*_: object) -> None:
        pending.append(revacnn.steer(AddFilters("conv1")))

    fit(model, [revacnn, At(5, late)])  # behind: it is pending when batch 5 ends
    with pytest.raises(EditRefusedError, match="has ended"):
        pending[0].result()


def test_frozen_filters_stay_frozen_and_checkpoints_hold_the_edits(
    broken_at: Any, tmp_path: Path
) -> None:
    broken_at(5)
    model, revacnn, weights = TwoConvs(), ReVACNN(), []
    freeze = At(2, lambda *_: revacnn.steer(Freeze("conv1", [1])))
    add = At(3, lambda *_: revacnn.steer(AddFilters("conv2", 1)))
    note = At(7, lambda *_: weights.append(model.conv1.weight[1].detach().clone()))
    trainer = fit(model, [freeze, add, revacnn, note])
    assert torch.equal(model.conv1.weight[1], weights[0])
    assert not model.conv1._forward_hooks
    trainer.save_checkpoint(tmp_path / "edited.ckpt")
    assert load_edited(TwoConvs, tmp_path / "edited.ckpt").conv2.out_channels == 4


def test_the_next_fit_is_monitored_again(broken_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_at(5)
    revacnn = ReVACNN()
    fit(TwoConvs(), [revacnn])
    monkeypatch.undo()
    files: list[Path | None] = []
    fit(TwoConvs(), [revacnn, At(8, lambda *_: files.append(revacnn.connection_file))])
    assert files[0] is not None
