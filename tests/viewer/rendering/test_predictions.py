from __future__ import annotations

from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import ClassScore, ImagePrediction, LayerDetail
from tests.viewer.fake_detail import FakeDetails
from viewer.rendering.predictions import NOT_CHOSEN, describe_predictions_around_edit


def detail(image: int | None = 3) -> LayerDetail:
    return FakeDetails().detail("run", 0, 3, "conv1", [0, 1], 3, True, set(), image)


def predicted(step: int, index: int, probability: float) -> ImagePrediction:
    scores = [ClassScore(index, probability), ClassScore(1 - index, 1 - probability)]
    return ImagePrediction(step, 0, scores, truth=next(one for one in scores if one.index == 1))


def test_a_batch_image_has_no_prediction_but_the_way_to_one() -> None:
    assert describe_predictions_around_edit(detail(image=None)) == {"note": NOT_CHOSEN}


def test_the_prediction_before_and_after_the_edit_is_marked_right_or_wrong() -> None:
    edited = replace(
        detail(),
        prediction=predicted(90, 1, 0.9),
        before_edit=predicted(80, 1, 0.8),
        after_edit=predicted(80, 0, 0.7),
    )
    shown = describe_predictions_around_edit(edited)
    assert shown["truth"] == "class 1"
    assert [(m["label"], m["name"], m["correct"]) for m in shown["moments"]] == [
        ("before edit", "class 1", True),
        ("after edit", "class 0", False),
        ("now", "class 1", True),
    ]
    assert abs(shown["moments"][1]["truth_probability"] - 0.3) < 1e-9
    assert shown["moments"][1]["details"] == "Batch 80: class 0 70.0 %, class 1 30.0 %"


def test_without_an_edit_or_a_truth_only_the_present_prediction_is_shown() -> None:
    shown = describe_predictions_around_edit(
        replace(detail(), prediction=replace(predicted(9, 0, 0.6), truth=None))
    )
    (now,) = shown["moments"]
    assert (shown["truth"], now["label"], now["correct"]) == ("", "now", None)


def test_an_output_that_is_no_class_says_so() -> None:
    note = "The model returns a tensor of shape 1×3×8×8, not one score per class."
    regression = replace(detail(), prediction=ImagePrediction(9, 0, note=note))
    assert describe_predictions_around_edit(regression) == {"note": note}
