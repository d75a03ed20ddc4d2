from __future__ import annotations

import numpy as np
import pytest
import torch

from revacnn_lightning.telemetry.inspection.histograms import (
    BINS,
    MAX_VALUES,
    histogram_of,
    sample_values,
)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20])
def test_bins_count_as_numpy_does(scale: float) -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * scale
    found = histogram_of(values)
    assert found.limit == pytest.approx(float(values.abs().max()), rel=1e-5)
    edges = np.linspace(-1, 1, BINS + 1)
    expected, _ = np.histogram((values / values.abs().max()).double().numpy(), edges)
    assert np.abs(found.counts - expected).sum() <= 4  # values on an edge, by rounding
    assert found.counts.sum() == 5000


def test_outliers_do_not_widen_the_bins() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    values[0] = 1000.0
    found = histogram_of(values)
    assert found.limit < 100
    assert found.counts[-1] == 1
    assert found.counts.sum() == 10_000


def test_values_that_are_not_finite_are_counted_apart() -> None:
    found = histogram_of(torch.tensor([1.0, -1.0, float("nan"), float("inf")]))
    assert (found.limit, found.nonfinite, found.counts.sum()) == (1.0, 2, 2)


@pytest.mark.parametrize("values", [[0.0, 0.0], [], [float("nan")]])
def test_without_a_value_other_than_zero_the_limit_is_zero(values: list[float]) -> None:
    found = histogram_of(torch.tensor(values))
    assert found.limit == 0
    assert found.counts[BINS // 2] == sum(value == 0 for value in values)


def test_a_sample_takes_every_position_of_the_kernel_alike() -> None:
    weight = torch.arange(9.0).reshape(1, 1, 3, 3).expand(512, 256, 3, 3).contiguous()
    sample = sample_values(weight)
    assert MAX_VALUES / 2 < len(sample) <= MAX_VALUES
    counts = torch.bincount(sample.long(), minlength=9)
    assert counts.max() - counts.min() <= 1


def test_a_sample_is_a_copy_of_all_values_of_a_small_layer() -> None:
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    sample = sample_values(weight)
    assert sample.dtype == torch.float32
    assert not sample.requires_grad
    assert torch.equal(sample, weight.detach().float().flatten())
    sample.zero_()
    assert weight.abs().sum() > 0
