"""Filters that nothing can revive: their activation is zero for every input, and stays so.

A filter that is silent on all recorded batches may answer to other inputs, or be revived by a
gradient. A certificate excludes both from the values of its own tensors alone, as ORMAS does for
units whose incoming weights make their ReLU zero on every input. It holds as long as training
changes weights by gradients of the loss, momentum and weight decay only, and with a learning rate
times weight decay of at most 1; code that writes to weights can revive anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["FilterAndBatchNormParameters", "find_provably_dead"]


@dataclass(frozen=True)
class FilterAndBatchNormParameters:
    """The parameters of the C filters of a layer, and of the batch norm before the ReLU.

    Attributes:
        weight_is_zero: whether all coefficients of a filter are exactly zero, bool (C,).
        bias: bias of the layer, (C,); zeros if it has none.
        changes_only_by_decay: whether no optimizer step changes any entry of the filter except by
            weight decay towards zero, which needs a gradient and a momentum of exactly zero, bool
            (C,).
        norm_weight: γ of the batch norm between the layer and the ReLU, (C,); None without one.
        norm_bias: β of that batch norm, (C,).
        norm_mean: its running mean, (C,); zeros if it keeps none.
    """

    weight_is_zero: np.ndarray
    bias: np.ndarray
    changes_only_by_decay: np.ndarray
    norm_weight: np.ndarray | None = None
    norm_bias: np.ndarray | None = None
    norm_mean: np.ndarray | None = None


def find_provably_dead(parameters: FilterAndBatchNormParameters) -> np.ndarray:
    """Return which filters are zero behind the ReLU for every finite input, now and later, (C,).

    One of these, exactly:

    - Without a batch norm: the coefficients are zero and the bias is at most zero.
    - γ is zero and β at most zero: the ReLU receives β.
    - The coefficients and the bias are zero, and β is at most zero: the batch norm receives zeros.
      In training mode it returns β. In evaluation mode it returns β - γ·mean/σ, so that γ·mean must
      not be negative.

    The ReLU then passes no gradient, so that only momentum could change the filter:
    ``changes_only_by_decay`` excludes it. Weight decay shrinks values and keeps their signs. Cost:
    a comparison of each coefficient.

    Source: follows the certificates for ReLU units of ORMAS; that the gradient of a ReLU is 0 at 0
    is PyTorch's convention.
    """
    has_zero_weight = parameters.weight_is_zero
    scale, mean = parameters.norm_weight, parameters.norm_mean
    if scale is None or parameters.norm_bias is None:
        is_silent = has_zero_weight & (parameters.bias <= 0)
    else:
        mean = np.zeros_like(scale) if mean is None else mean
        by_weight = has_zero_weight & (parameters.bias == 0) & (scale * mean >= 0)
        is_silent = ((scale == 0) | by_weight) & (parameters.norm_bias <= 0)
    certified: np.ndarray = is_silent & parameters.changes_only_by_decay
    return certified
