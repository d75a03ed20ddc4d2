"""The kernels that reduce all weights on a GPU, against the operations that they replace.

On a machine without a GPU, Triton's interpreter runs them, in a process of its own.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn

from revacnn_lightning.telemetry.recording import fused_group, grouped_filter_norms
from revacnn_lightning.telemetry.recording.flat_buffer import ROWS, FlatBuffer
from revacnn_lightning.telemetry.recording.fused_group import FusedGroup, has_dense_filters
from revacnn_lightning.telemetry.recording.grouped_filter_norms import GroupedFilterNorms

HAS_TRITON = fused_group.load_filter_kernels() is not None  # one that is new enough
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"

runs_kernels = pytest.mark.skipif(
    not HAS_TRITON or not (IS_INTERPRETED or torch.cuda.is_available()),
    reason="needs Triton, and a CUDA device or TRITON_INTERPRET=1",
)

Weights = Callable[[], list[Tensor]]


def filters(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(DEVICE, dtype)


WEIGHTS: dict[str, Weights] = {
    "odd sizes": lambda: [filters(5, 3, 3, 3), filters(7, 5, 1, 1), filters(3, 1, 7, 5)],
    "a layer of one filter": lambda: [filters(1, 3, 3, 3), filters(1, 1, 1, 1), filters(1, 2)],
    "a layer of one coefficient": lambda: [filters(4, 1), filters(1, 1)],
    "longer than a block": lambda: [filters(3, 1025), filters(2, 128, 3, 3), filters(2, 1024)],
    "one shape": lambda: [filters(4, 2, 3, 3) for _ in range(3)],
    "channels_last": lambda: [
        filters(4, 8, 3, 3).to(memory_format=torch.channels_last),
        filters(4, 1, 3, 3).to(memory_format=torch.channels_last),
    ],
    "half": lambda: [filters(3, 40, dtype=torch.float16), filters(2, 3, 3, dtype=torch.float16)],
    "bfloat16": lambda: [filters(3, 40, dtype=torch.bfloat16)],
    "several dtypes": lambda: [
        filters(3, 5, dtype=torch.float16),
        filters(3, 5),
        filters(2, 6, dtype=torch.float64),
    ],
    "not dense": lambda: [filters(6, 4)[::2], filters(4, 6).t()[:4], filters(3, 5)],
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fuse weights on the CPU, too."""
    kernels = fused_group.load_filter_kernels()

    def is_fusible(weight: Tensor) -> bool:
        return kernels is not None and weight.dtype in kernels.TYPES and has_dense_filters(weight)

    if IS_INTERPRETED:
        monkeypatch.setattr(grouped_filter_norms, "is_fusible", is_fusible)
    monkeypatch.setattr(FusedGroup, "has_failed", False)
    monkeypatch.setattr(grouped_filter_norms, "MIN_FUSED", 1)


def grouped(weights: Sequence[Tensor]) -> tuple[GroupedFilterNorms, FlatBuffer]:
    columns, start = [], 1  # a layer of another device has the first column
    for weight in weights:
        columns.append(slice(start, start + len(weight)))
        start += len(weight)
    buffer = FlatBuffer(start, weights[0].device)
    convs = [nn.Linear(1, 1) for _ in weights]
    return GroupedFilterNorms(convs, weights, columns, buffer), buffer


def obvious(weights: Sequence[Tensor], order: int) -> Tensor:
    norms = [torch.linalg.vector_norm(each.double().flatten(1), order, 1) for each in weights]
    return torch.cat([torch.zeros(1, device=DEVICE), *norms]).float()


def assert_rows(buffer: FlatBuffer, expected: dict[str, Tensor], rtol: float = 1e-6) -> None:
    for row in ROWS:
        values = expected.get(row, torch.zeros_like(buffer.row(row)))
        torch.testing.assert_close(buffer.row(row), values, rtol=rtol, atol=1e-6, msg=row)
    assert buffer.values[0] == 0


@runs_kernels
@pytest.mark.parametrize("name", WEIGHTS)
def test_norms_are_those_of_the_operations(name: str, fused: None) -> None:
    weights = WEIGHTS[name]()
    groups, buffer = grouped(weights)
    others = [2 * weight for weight in weights]
    groups.write_l1_norms("gradient", others)
    groups.write_l2_norms({"weight_norm": weights})
    groups.write_l2_norms({"update_ratio": others, "norm_after_step": weights})
    expected = {
        "gradient": obvious(others, 1),
        "weight_norm": obvious(weights, 2),
        "update_ratio": obvious(others, 2),
        "norm_after_step": obvious(weights, 2),
    }
    assert_rows(buffer, expected)
    assert not FusedGroup.has_failed


@runs_kernels
@pytest.mark.parametrize("name", WEIGHTS)
def test_changes_are_those_of_the_operations(name: str, fused: None) -> None:
    weights = WEIGHTS[name]()
    groups, buffer = grouped(weights)
    before = [weight.clone() for weight in weights]
    copies = groups.copy(weights)
    for weight in weights:
        weight.mul_(1.5)
    groups.write_change_norms(weights, copies)
    is_rounded = any(weight.dtype.itemsize < 4 for weight in weights)
    changes = [now.double() - then.double() for now, then in zip(weights, before, strict=True)]
    expected = {"update_ratio": obvious(changes, 2), "norm_after_step": obvious(weights, 2)}
    assert_rows(buffer, expected, rtol=1e-2 if is_rounded else 1e-6)


@runs_kernels
def test_tensors_at_new_addresses_are_read(fused: None) -> None:
    weights = WEIGHTS["odd sizes"]()
    groups, buffer = grouped(weights)
    for scale in (1, 2, 3):
        gradients = [scale * weight for weight in weights]
        groups.write_l1_norms("gradient", gradients)
        assert_rows(buffer, {"gradient": obvious(gradients, 1)})


@runs_kernels
def test_the_same_tensors_with_new_values_are_read(fused: None) -> None:
    weights = WEIGHTS["odd sizes"]()
    groups, buffer = grouped(weights)
    for _ in range(3):
        groups.write_l1_norms("gradient", weights)
        assert_rows(buffer, {"gradient": obvious(weights, 1)})
        weights[0].mul_(2)


@runs_kernels
def test_a_gradient_that_is_not_dense_is_reduced_by_operations(fused: None) -> None:
    weights = WEIGHTS["odd sizes"]()
    groups, buffer = grouped(weights)
    gradients = [weights[0], torch.ones(1, 1, 1, 1, device=DEVICE).expand(7, 5, 1, 1), weights[2]]
    groups.write_l1_norms("gradient", gradients)
    assert_rows(buffer, {"gradient": obvious(gradients, 1)})


@runs_kernels
def test_a_weight_whose_memory_format_changes_within_a_step_is_compared_correctly(
    fused: None,
) -> None:
    weights = [filters(4, 8, 3, 3), filters(3, 5)]
    groups, buffer = grouped(weights)
    before = [weight.clone() for weight in weights]
    copies = groups.copy(weights)
    weights = [(weights[0] + 1).to(memory_format=torch.channels_last), weights[1] + 1]
    groups.write_change_norms(weights, copies)
    changes = [now - then for now, then in zip(weights, before, strict=True)]
    assert_rows(
        buffer, {"update_ratio": obvious(changes, 2), "norm_after_step": obvious(weights, 2)}, 1e-5
    )


@runs_kernels
def test_infinite_and_missing_values_reach_the_norms(fused: None) -> None:
    weights = [filters(3, 5)]
    weights[0][0, 1], weights[0][2, 4] = torch.inf, torch.nan
    groups, buffer = grouped(weights)
    groups.write_l1_norms("gradient", weights)
    torch.testing.assert_close(buffer.row("gradient")[1:], weights[0].abs().sum(1), equal_nan=True)


@runs_kernels
def test_a_kernel_that_does_not_compile_is_replaced_by_operations(
    fused: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernels = fused_group.load_filter_kernels()
    assert kernels is not None
    monkeypatch.setattr(kernels, "write_filter_norms", {})  # KeyError
    weights = WEIGHTS["odd sizes"]()
    groups, buffer = grouped(weights)
    with caplog.at_level(logging.WARNING):
        groups.write_l1_norms("gradient", weights)
        groups.write_l1_norms("gradient", weights)
    assert_rows(buffer, {"gradient": obvious(weights, 1)})
    assert len([each for each in caplog.records if "without Triton" in each.message]) == 1


def test_a_triton_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_group, "version", lambda _: "3.3.1")
    assert fused_group.load_filter_kernels.__wrapped__() is None


def _is_interpreter_broken() -> bool:
    """Return whether this NumPy does not convert what Triton's interpreter converts."""
    triton, numpy = (Version(version(name)) for name in ("triton", "numpy"))
    return triton < Version("3.8") and numpy >= Version("2.4")


@pytest.mark.skipif(IS_INTERPRETED, reason="runs in the interpreter already")
@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU")
@pytest.mark.skipif(
    HAS_TRITON and _is_interpreter_broken(), reason="Triton's interpreter needs an older NumPy"
)
def test_kernels_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout


@pytest.mark.parametrize(
    ("tensor", "is_dense"),
    [
        (torch.zeros(4, 3, 2, 2), True),
        (torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last), True),
        (torch.zeros(4, 1, 2, 2).to(memory_format=torch.channels_last), True),
        (torch.zeros(4, 3, 1, 1).to(memory_format=torch.channels_last), True),
        (torch.zeros(4, 3, 2, 2)[:, :2], False),
        (torch.zeros(4, 3, 2, 2)[::2], False),
        (torch.zeros(1, 3).expand(4, 3), False),
        (torch.zeros(4, 1).expand(4, 3), False),
        (torch.zeros(3, 4).t(), False),
        (torch.zeros(1, 5), True),
        (torch.zeros(5, 1), True),
    ],
)
def test_dense_filters_are_recognized(tensor: Tensor, is_dense: bool) -> None:
    assert has_dense_filters(tensor) == is_dense


def test_weights_on_a_cpu_are_not_fused() -> None:
    assert not fused_group.is_fusible(torch.zeros(4, 3))
