from __future__ import annotations

import numpy as np
import torch

from revacnn_lightning.telemetry.inspection.half_precision import normalized_half


def test_small_values_keep_their_ratios():
    tiny = torch.tensor([1e-12, -3e-12, 0.0])
    half = normalized_half(tiny)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, tiny / 3e-12, rtol=1e-3)


def test_nonfinite_values_stay_nonfinite():
    half = normalized_half(torch.tensor([1.0, torch.inf, torch.nan]))
    assert half[0] == 1
    assert np.isinf(half[1])
    assert np.isnan(half[2])


def test_zeros_stay_zeros():
    assert (normalized_half(torch.zeros(3)) == 0).all()
