from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

from revacnn_lightning.runtime.image_class import (
    class_names,
    class_probabilities,
    find_class,
    top_classes,
)

IMAGE = torch.zeros(3, 4, 4)


@dataclass
class Sample:
    image: torch.Tensor
    index: int
    label: int


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ((IMAGE, 3), 3),
        ([IMAGE, torch.tensor(2)], 2),
        ((IMAGE, np.int64(1), 17), 1),
        ((IMAGE, np.array([4])), 4),
        ({"index": 9, "image": IMAGE, "Label": torch.tensor([5])}, 5),
        (Sample(IMAGE, 9, 6), 6),
        ((IMAGE, True), None),
        ((IMAGE, 0.5), None),
        ((IMAGE, torch.tensor([1, 0, 1])), None),  # several labels
        ((IMAGE, torch.zeros(4, 4, dtype=torch.long)), None),  # a mask
        ({"index": 9, "image": IMAGE}, None),
        (IMAGE, None),
    ],
)
def test_the_class_of_a_sample_is_found(sample: Any, expected: int | None) -> None:
    assert find_class(sample) == expected


def test_names_are_those_of_the_dataset_or_of_the_one_that_it_is_a_subset_of() -> None:
    class Named(Dataset):
        classes = ("cat", "dog")

        def __getitem__(self, index: int) -> int:
            return index

    assert class_names(Subset(Subset(Named(), [0]), [0])) == ("cat", "dog")
    assert class_names(torch.utils.data.TensorDataset(IMAGE)) == ()


def test_scores_become_probabilities_by_a_softmax_unless_they_are_some() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0]])
    for output in (scores, scores.log_softmax(1), scores.softmax(1), {"logits": scores},
                   (scores, None), scores[..., None, None]):  # fmt: skip
        found, note = class_probabilities(output)
        assert note == ""
        torch.testing.assert_close(found, scores.softmax(1)[0])


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (torch.zeros(1, 2, 4, 4), "shape 1×2×4×4"),
        (torch.zeros(1, 1), "shape 1×1"),
        (torch.zeros(5), "shape 5"),
        ([], "does not return scores"),
        (None, "does not return scores"),
        (torch.tensor([[1.0, float("nan")]]), "not finite"),
    ],
)
def test_other_outputs_have_a_reason(output: Any, reason: str) -> None:
    found, note = class_probabilities(output)
    assert found is None
    assert reason in note


def test_the_top_classes_come_with_their_names_and_the_true_one() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.05, 0.35])
    classes, truth = top_classes(probabilities, 2, ["a", "b", "c", "d"])
    assert [(one.index, one.name) for one in classes] == [(1, "b"), (3, "d"), (0, "a")]
    assert truth is not None
    assert truth.name == "c"
    assert truth.probability == pytest.approx(0.05)
    classes, truth = top_classes(probabilities, 7, ["a"])  # not a class of this model
    assert (classes[0].name, truth) == ("", None)
