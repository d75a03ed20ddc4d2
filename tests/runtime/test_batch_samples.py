"""The first samples of batches of any nesting."""

from __future__ import annotations

import types
from collections import UserDict, namedtuple
from dataclasses import dataclass
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from revacnn_lightning.runtime.batch_nesting import leaves
from revacnn_lightning.runtime.batch_samples import (
    batch_size,
    first_sample_with_image,
    first_samples,
)

IMAGES = torch.rand(5, 3, 8, 8)
LABELS = torch.arange(5)
SIZES = [(8, 8), (8, 10), (12, 8), (8, 8), (9, 9)]

Pair = namedtuple("Pair", "x y")


@dataclass(frozen=True)
class Frozen:
    x: Tensor
    y: Tensor


@attrs.define
class Slotted:
    x: Tensor
    y: Tensor


class Ordered(list):
    pass


def image_list() -> list[Tensor]:
    return [torch.rand(3, *size) for size in SIZES]


def targets() -> list[dict[str, Tensor]]:
    return [{"boxes": torch.rand(5, 4), "labels": torch.arange(5)} for _ in SIZES]


def shapes(node: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in leaves(node) if hasattr(leaf, "shape")]


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS),
        [IMAGES, (LABELS, "name")],
        {"x": IMAGES, "y": LABELS},
        UserDict(x=IMAGES, y=LABELS),
        Pair(IMAGES, LABELS),
        Frozen(IMAGES, LABELS),
        Slotted(IMAGES, LABELS),
        types.SimpleNamespace(x=IMAGES, y=LABELS),
        Ordered([IMAGES, LABELS]),
        {"x": {"inner": [IMAGES]}, "y": Frozen(LABELS, LABELS)},
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_tensors_are_cut_in_every_container(batch):
    small = first_samples(batch, 2)
    assert type(small) is type(batch)
    assert batch_size(batch) == 5
    assert batch_size(small) == 2
    assert shapes(small)[:2] == [(2, 3, 8, 8), (2,)]
    assert shapes(batch)[:2] == [(5, 3, 8, 8), (5,)]


def test_a_list_of_images_was_taken_for_a_batch_of_channels():
    batch = (image_list(), targets())
    images, small_targets = first_samples(batch, 2)
    assert batch_size(batch) == 5
    assert shapes(images) == [(3, 8, 8), (3, 8, 10)]
    assert [t["boxes"].shape for t in small_targets] == [(5, 4), (5, 4)]


def test_three_color_images_and_three_fields_are_told_apart():
    images = tuple(torch.rand(3, 8, 8) for _ in range(3))
    ids = torch.arange(3)
    small = first_samples((images, targets()[:3], ids), 2)
    assert len(small) == 3
    assert [len(part) for part in small] == [2, 2, 2]


def test_a_list_of_samples_is_cut_and_its_samples_are_not():
    batch = [{"image": image, "boxes": torch.rand(5, 4)} for image in image_list()]
    small = first_samples(batch, 2)
    assert batch_size(batch) == 5
    assert shapes(small) == [(3, 8, 8), (5, 4), (3, 8, 10), (5, 4)]


def test_lists_with_one_element_per_sample_are_cut():
    batch = {"image": IMAGES, "name": list("abcde"), "sizes": SIZES, "classes": ["cat", "dog"]}
    small = first_samples(batch, 2)
    assert small["name"] == ["a", "b"]
    assert small["sizes"] == SIZES[:2]
    assert small["classes"] == ["cat", "dog"]


def test_as_many_fields_as_samples_are_not_cut():
    batch = [torch.rand(3, 3, 8, 8), torch.arange(3), torch.rand(3)]
    assert shapes(first_samples(batch, 2)) == [(2, 3, 8, 8), (2,), (2,)]
    features = [torch.rand(5, 4) for _ in range(5)]
    assert shapes(first_samples((IMAGES, features), 2)) == [(2, 3, 8, 8)] + [(2, 4)] * 5


def test_tensors_without_a_batch_dimension_are_not_cut():
    batch = {"image": IMAGES, "scale": torch.rand(3), "anchors": torch.rand(9, 4), "rate": 0.5}
    assert shapes(first_samples(batch, 2)) == [(2, 3, 8, 8), (3,), (9, 4)]


def test_each_batch_of_a_batch_of_batches_is_cut_on_its_own():
    labeled, unlabeled = (IMAGES, LABELS), [torch.rand(16, 3, 8, 8)]
    for batch in ({"a": labeled, "b": unlabeled}, [labeled, unlabeled], (labeled, unlabeled, None)):
        small = first_samples(batch, 2)
        assert shapes(small) == [(2, 3, 8, 8), (2,), (2, 3, 8, 8)]


def test_a_bank_beside_the_images_is_no_batch():
    batch = {"data": {"image": IMAGES}, "extra": {"bank": torch.rand(16, 3, 4, 4)}}
    assert shapes(first_samples(batch, 2)) == [(2, 3, 8, 8), (16, 3, 4, 4)]


def test_numpy_arrays_are_cut():
    small = first_samples({"image": IMAGES, "index": np.arange(5)}, 2)
    assert small["index"].tolist() == [0, 1]


def test_packed_sequences_are_left_whole():
    packed = pack_sequence([torch.rand(4, 2) for _ in range(5)])
    images, copied = first_samples((IMAGES, packed), 2)
    assert images.shape == IMAGES.shape
    assert torch.equal(copied.data, packed.data)
    assert copied.data is not packed.data


def test_graph_batches_are_left_whole():
    class Graph:
        num_graphs = 5

    images, graph = first_samples((IMAGES, Graph()), 2)
    assert images.shape == IMAGES.shape
    assert graph.num_graphs == 5


@pytest.mark.parametrize("count", [2, 5, 9])
def test_changing_the_copy_leaves_the_batch_alone(count):
    names = [["a"] for _ in range(5)]
    batch = (torch.ones(5, 3, 8, 8), {"y": torch.ones(5), "scale": torch.ones(1), "names": names})
    small = first_samples(batch, count)
    small[0].zero_()
    small[1]["y"].zero_()
    small[1]["scale"].zero_()
    small[1]["names"][0].append("b")
    small[1]["new"] = 1
    assert all(tensor.all() for tensor in (batch[0], batch[1]["y"], batch[1]["scale"]))
    assert batch[1]["names"][0] == ["a"]
    assert "new" not in batch[1]


def test_an_object_that_is_in_the_batch_twice_is_one_in_the_copy():
    small = first_samples({"x": IMAGES, "again": IMAGES}, 2)
    assert small["x"] is small["again"]


def test_a_batch_that_contains_itself_ends():
    batch: list[Any] = [IMAGES]
    batch.append(batch)
    assert first_samples(batch, 2)[0].shape == (2, 3, 8, 8)


def test_what_cannot_be_copied_is_passed_on():
    generator = (i for i in range(3))
    assert first_samples((IMAGES, generator), 2)[1] is generator


def test_the_users_images_decide_what_is_cut():
    batch = (torch.rand(4, 3, 8, 8), torch.rand(5, 1, 8, 8), LABELS)
    small = first_samples(batch, 2, lambda batch: batch[1])
    assert shapes(small) == [(4, 3, 8, 8), (2, 1, 8, 8), (2,)]
    assert batch_size(batch, lambda batch: batch[1]) == 5


def test_a_batch_without_images_has_the_size_of_its_first_tensor():
    assert batch_size({"rate": torch.tensor(1.0), "x": torch.rand(7, 2)}) == 7
    assert batch_size("nothing") == 0
    assert first_samples("nothing", 2) == "nothing"


@pytest.mark.parametrize("nest", [lambda x: (x, LABELS), lambda x: {"image": x, "y": [LABELS]}])
def test_the_image_of_a_batch_is_replaced(nest):
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    batch = nest(IMAGES)
    single = first_sample_with_image(batch, image)
    assert batch_size(single) == 1
    assert next(leaves(single)) is image
    assert shapes(single)[1:] == [(1,)]
    assert shapes(batch)[0] == (5, 3, 8, 8)


def test_the_image_of_a_list_is_replaced():
    image = torch.rand(1, 3, 9, 7)
    images, boxes = first_sample_with_image((image_list(), targets()), image)
    assert len(images) == len(boxes) == 1
    assert torch.equal(images[0], image[0])


def test_an_image_is_put_only_where_one_was():
    image = torch.rand(1, 3, 8, 8)
    assert first_sample_with_image((LABELS, "name"), image) is None
    assert first_sample_with_image((IMAGES, LABELS), image, lambda batch: batch[0] / 2) is None
