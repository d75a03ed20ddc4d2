"""Where one more filter would lower the loss most."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

__all__ = ["GrowthGains"]


class GrowthGains(Struct, frozen=True, tag="growth_gains"):
    """The growth gain of each layer of structure ``version``; NaN is unknown.

    A new filter starts with outgoing weights v of zero. ``gains`` are the norms of the gradient
    ∂L/∂v if its coefficients have the best direction and the length of those of the layer's median
    filter: the larger, the faster it lowers the loss. ``second`` are those of the best direction
    that is orthogonal to it: there is room for two. The non-linearity behind the filter is left out
    (Evci et al. 2022, "GradMax", arXiv:2201.05125).
    """

    run: str
    version: int
    step: int
    gains: np.ndarray  # float32 (layers,)
    second: np.ndarray  # float32 (layers,)
    images: int = 0
    loss: float = float("nan")
    notes: list[str] = []  # one per layer: why its gain is unknown; "" if it is known
