"""Certificates hold for every input; a filter that may come back gets none."""

from __future__ import annotations

import numpy as np
import pytest

from revacnn_lightning.diagnostics.provably_dead import (
    FilterAndBatchNormParameters,
    find_provably_dead,
)

YES, NO = np.array([True]), np.array([False])


def entries(zero=True, bias=0.0, still=True, norm=None):
    values = () if norm is None else tuple(np.array([value]) for value in norm)
    return FilterAndBatchNormParameters(
        np.array([zero]), np.array([bias]), np.array([still]), *values
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (entries(bias=-1.0), YES),
        (entries(bias=0.1), NO),
        (entries(zero=False, bias=-9.0), NO),  # some input may exceed the bias
        (entries(still=False), NO),
        (entries(bias=np.nan), NO),
        (entries(zero=False, bias=3.0, norm=(0.0, -1.0, 5.0)), YES),
        (entries(zero=False, norm=(0.0, 0.1, 0.0)), NO),
        (entries(zero=False, norm=(1e-9, -1.0, 0.0)), NO),
        (entries(norm=(1.0, 0.0, 2.0)), YES),
        (entries(norm=(1.0, 0.0, -2.0)), NO),  # positive in evaluation mode
        (entries(bias=-1.0, norm=(1.0, 0.0, 0.0)), NO),  # rounding of the mean is not zero
        (entries(zero=False, norm=(0.0, 0.0, 0.0), still=False), NO),
    ],
)
def test_certificates(given, expected):
    np.testing.assert_array_equal(find_provably_dead(given), expected)
