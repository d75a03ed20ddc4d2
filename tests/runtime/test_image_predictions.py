from __future__ import annotations

from typing import Any

import torch
from torch import nn

from revacnn_lightning.runtime.image_predictions import (
    LabelAndClassNames,
    PredictionsBeforeAndAfterEdit,
)


def predictions_of(
    model: nn.Module, *, is_image_shown: bool = True
) -> PredictionsBeforeAndAfterEdit:
    predictions = PredictionsBeforeAndAfterEdit(model, model, lambda: is_image_shown)
    predictions.choose_image(torch.ones(3, 4, 4), LabelAndClassNames(1, ("cat", "dog")))
    return predictions


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Dropout(0.5), nn.Linear(8, 2))


def test_a_prediction_is_that_of_the_model_in_evaluation() -> None:
    model = classifier().train()
    found = predictions_of(model).predict(step=7, version=2)
    assert found is not None
    with torch.no_grad():
        expected = model.eval()(torch.ones(1, 3, 4, 4)).softmax(1)[0]
    assert (found.step, found.version, found.note) == (7, 2, "")
    for score in found.classes:
        assert abs(score.probability - float(expected[score.index])) < 1e-6
        assert score.name == ("cat", "dog")[score.index]
    assert found.truth is not None
    assert found.truth.index == 1


def test_nothing_is_predicted_while_no_viewer_shows_an_image() -> None:
    assert predictions_of(classifier(), is_image_shown=False).predict(0, 0) is None
    predictions = predictions_of(classifier())
    predictions.choose_image(None, LabelAndClassNames())
    assert predictions.predict(0, 0) is None
    assert predictions.last_prediction(0, 0) is None


def test_a_failing_forward_or_an_unknown_output_never_raises() -> None:
    class Fails(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("of the user")

    class Unreadable(nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            return torch.zeros(1, 2, device="meta")

    assert predictions_of(Fails()).predict(0, 0) is None
    found = predictions_of(Unreadable()).predict(0, 0)
    assert found is not None
    assert found.classes == []
    assert "cannot be read" in found.note


def test_an_edit_is_compared_once_it_is_applied_and_another_image_forgets_it() -> None:
    model = classifier()
    predictions = predictions_of(model)
    before = predictions.predict(3, 0)
    with torch.no_grad():
        model[3].weight.neg_()  # type: ignore[union-attr]
    predictions.record_change_by_edit(before, 3, 1)
    assert predictions.before_edit is before
    assert predictions.after_edit is not None
    assert predictions.after_edit.version == 1
    assert predictions.after_edit.classes != predictions.before_edit.classes
    predictions.choose_image(torch.zeros(3, 4, 4), LabelAndClassNames())
    assert predictions.before_edit is predictions.after_edit is None


def test_a_prediction_is_not_repeated_once_the_forward_fails() -> None:
    model = classifier()
    predictions = predictions_of(model)
    assert predictions.predict(3, 0) is not None
    del model[3]  # type: ignore[attr-defined]
    del model[1]  # type: ignore[attr-defined]
    model.append(nn.Linear(5, 2))  # type: ignore[operator]
    assert predictions.predict(4, 0) is None
    assert predictions.last_prediction(4, 0) is None
