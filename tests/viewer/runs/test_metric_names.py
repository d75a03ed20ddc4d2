from __future__ import annotations

import pytest

from viewer.runs.metric_names import group_by_family, main_metric, metric_family, metric_phase


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train_loss", ("loss", "train")),
        ("val/acc", ("acc", "val")),
        ("loss_step", ("loss", "")),
        ("train_loss_epoch", ("loss", "train")),
        ("valid.top5_acc", ("top5 acc", "val")),
        ("MulticlassAccuracy", ("MulticlassAccuracy", "")),
        ("test", ("test", "test")),
        ("step", ("step", "")),
    ],
)
def test_family_and_phase_of_a_name(name: str, expected: tuple[str, str]) -> None:
    assert (metric_family(name), metric_phase(name)) == expected


def test_loss_is_always_the_first_family() -> None:
    assert list(group_by_family([])) == ["loss"]
    found = group_by_family(["val_acc", "train_acc", "val_loss", "aux"])
    assert list(found) == ["loss", "acc", "aux"]
    assert found["acc"] == ["train_acc", "val_acc"]
    assert found["loss"] == ["val_loss"]


def test_the_main_metric_is_the_chosen_one_else_a_validation_accuracy() -> None:
    names = ["train_loss", "val_loss", "train_acc", "val_acc", "val_f1"]
    assert main_metric(names) == "val_acc"
    assert main_metric(names, "f1") == "val_f1"
    assert main_metric(["train_loss", "val_loss"]) == "val_loss"
    assert main_metric(["train_loss"]) == main_metric([]) == ""
    assert main_metric(["d_loss", "g_loss"], "an old choice") == "d_loss"
