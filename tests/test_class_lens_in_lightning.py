"""How filters answer to classes in a real training, and that observing them changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import EditRefusedError, ReVACNN, Run
from revacnn_lightning.protocol.requests import InspectClass, InspectClasses
from revacnn_lightning.runtime.batch_classes import NUMBERS
from tests.runtime.live_run import train_with
from tests.small import At, TwoConvs, fit


class Regression(TwoConvs):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        batch[1] = batch[1].double()  # as a dataset of numbers returns them
        return nn.functional.mse_loss(self(batch[0]).sum(1), batch[1])


def test_a_client_gets_the_classes_and_the_confusion(tmp_path: Path) -> None:
    def client(run: Run) -> dict:
        lens = run.class_lens("conv2", batches=5)
        answers = run.class_answers(1)
        return {"lens": lens, "answers": answers, "confusion": run.confusion()}

    result, _ = train_with(client, tmp_path, validate=True, num_sanity_val_steps=0)
    lens, answers, confusion = result["lens"], result["answers"], result["confusion"]
    assert (lens.classes, lens.activation.shape, lens.batches >= 5) == ([0, 1], (3, 2), True)
    assert np.isfinite(lens.gradient).all()
    assert answers.effects.shape == (7,)
    assert np.isfinite(answers.effects).all()
    assert confusion.counts.sum() == 8  # two batches of four images


def test_targets_that_are_numbers_are_refused_by_name(tmp_path: Path) -> None:
    def client(run: Run) -> dict:
        with pytest.raises(EditRefusedError) as refused:
            run.class_lens("conv2")
        return {"reason": str(refused.value)}

    result, _ = train_with(client, tmp_path, Regression())
    assert result["reason"] == f"conv2: {NUMBERS}"


def test_a_training_is_bitwise_the_same_with_and_without_it() -> None:
    trained = []
    for is_observed in (False, True):
        model, callback = TwoConvs(), ReVACNN()

        def look(*_: object, callback: ReVACNN = callback) -> None:
            callback.steer(InspectClasses("conv1"))
            callback.steer(InspectClass(0))

        extra = [At(2, look)] if is_observed else []
        fit(model, [callback, *extra], validate=True)
        state = [*model.state_dict().values(), torch.get_rng_state()]
        trained.append(state)
    for plain, observed in zip(*trained, strict=True):
        assert torch.equal(plain, observed)
