"""What a GPU would stop the process for raises before it runs; everything else passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from revacnn_lightning.telemetry.inspection.index_checks import IndexBoundsMode

X = torch.arange(24.0).reshape(2, 3, 4)
ROWS = X.reshape(8, 3).log_softmax(1)
# An operation on an index, an allowed index, and one that is out of bounds.
OPERATIONS: dict[str, tuple[Callable[[Tensor], Tensor], list[int], list[int]]] = {
    "index": (lambda i: X[:, i], [0, -3], [3, 0]),
    "index_behind_a_mask": (lambda i: X[torch.ones(2, 3).bool(), i], [0, -4, 3, 1, 1, 1], [4] * 6),
    "negative_index": (lambda i: X[:, :, i], [-4], [-5]),
    "index_put": (lambda i: X.clone().index_put((i,), torch.tensor(1.0)), [1, -2], [2, 0]),
    "assignment": (lambda i: X.clone().__setitem__((slice(None), i), 0.0) or X, [2], [3]),
    "index_select": (lambda i: X.index_select(1, i), [2, 0], [3, 0]),
    "index_add": (lambda i: X.clone().index_add_(2, i, X[:, :, :2]), [3, 0], [4, 0]),
    "index_fill": (lambda i: X.index_fill(0, i, 1.0), [1], [2]),
    "gather": (lambda i: X.gather(-1, i.view(1, 1, -1)), [3, 0], [4, 0]),
    "scatter": (lambda i: X.scatter(1, i.view(1, -1, 1), 1.0), [2, 0], [3, 0]),
    "scatter_add": (lambda i: X.clone().scatter_add_(1, i.view(1, -1, 1), X), [2, 0], [3, 0]),
    "take": (lambda i: X.take(i), [23, -24], [24, 0]),
    "embedding": (lambda i: F.embedding(i, X[0]), [2], [3]),
    "embedding_bag": (lambda i: F.embedding_bag(i.view(1, -1), X[0]), [2], [3]),
    "nll_loss": (lambda i: F.nll_loss(ROWS, i), [0, 2, -100, 1, 0, 0, 0, 0], [3] * 8),
    "nll_loss_of_images": (
        lambda i: F.cross_entropy(X.view(1, 3, 2, 4), i.view(1, 2, 4), ignore_index=9),
        [0, 2, 9, 1, 0, 0, 0, 0],
        [0, 2, 4, 1, 0, 0, 0, 0],
    ),
    "multi_margin_loss": (lambda i: F.multi_margin_loss(ROWS, i), [0] * 7 + [2], [0] * 7 + [3]),
    "max_unpool2d": (
        lambda i: F.max_unpool2d(X[:1, :1, :1].view(1, 1, 1, 1), i.view(1, 1, 1, 1), 2), [3], [4]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_only_indices_out_of_bounds_raise(name: str) -> None:
    operation, allowed, wrong = OPERATIONS[name]
    expected = operation(torch.tensor(allowed))
    with IndexBoundsMode("cpu"):
        assert torch.equal(operation(torch.tensor(allowed)), expected)
        with pytest.raises(IndexError, match="is out of the bounds"):
            operation(torch.tensor(wrong))


def test_probabilities_out_of_bounds_raise() -> None:
    target = torch.ones(3)
    with IndexBoundsMode("cpu"):
        F.binary_cross_entropy(torch.tensor([0.0, 0.5, 1.0]), target)
        for wrong in (1.5, float("nan")):
            with pytest.raises(ValueError, match="is out of the bounds 0 to 1"):
                F.binary_cross_entropy(torch.tensor([0.0, 0.5, wrong]), target)


def test_empty_and_meta_indices_pass() -> None:
    with IndexBoundsMode("cpu"):
        assert X[torch.tensor([], dtype=torch.long)].shape == (0, 3, 4)
    with IndexBoundsMode("meta"):
        meta = X.to("meta")
        assert meta[torch.zeros(5, dtype=torch.long, device="meta")].shape == (5, 3, 4)


def test_indices_of_the_cpu_into_a_tensor_of_a_gpu_were_not_checked() -> None:
    with IndexBoundsMode("meta"), pytest.raises(IndexError, match="3 is out of the bounds -3 to 2"):
        X.to("meta")[:, torch.tensor([0, 3])]


def test_tensors_of_other_devices_pass() -> None:
    with (
        IndexBoundsMode("cuda"),
        pytest.raises(IndexError, match=r"out of (range|bounds)") as caught,
    ):
        X[:, torch.tensor([3])]
    assert "the bounds" not in str(caught.value)
