"""Maps that a linear layer computes: (B, C·H·W) -> (B, C, H, W), as at the start of a generator.

A channel of the maps is the block of H·W rows that computes its pixels, so edits add and remove
whole blocks. The projections of an attention over (tokens, features) are viewed alike, as
(tokens, 3, heads, channels). The number of the parts before the heads distinguishes the two.
"""

from __future__ import annotations

from torch import Tensor

from revacnn_lightning.steering.tracing.labels import Label, label_along, labeled_dims
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["couple_unflattened_pixels", "is_unflattening"]

MAX_PARTS = 3  # query, key and value


def is_unflattening(x: Tensor, label: Label, out: Tensor) -> bool:
    """Return whether a view turns features (B, F) into images or volumes.

    Args:
        x: the viewed tensor.
        label: the label of the result.
        out: the result.
    """
    if x.ndim != 2 or out.ndim not in (4, 5) or out.shape[0] != x.shape[0]:
        return False
    wide = {dim for dim in range(1, out.ndim) if out.shape[dim] > 1}
    return labeled_dims(label) == wide and len(wide) > 1 and out.shape[1] > MAX_PARTS


def couple_unflattened_pixels(trace: Trace, label: Label) -> Label:
    """Couple the pixels of each channel (1, C, H, W), and return the label (1, C, 1, 1)."""
    pixels = label.flatten(2)[0]  # (C, H·W)
    trace.couple(pixels[:, :1], pixels)
    return label_along(pixels[:, 0], label.ndim, 1)
