"""How much is written above the columns of a network: its density."""

from __future__ import annotations

__all__ = ["DENSER", "MIN_ROOM", "choose_density", "vertical_margins"]

MAX_RANKS_ROOMY = 8
MAX_RANKS_NORMAL = 30
MIN_RANK_WIDTH_ROOMY = 92.0  # px; for a name, the size of the kernel and three buttons
MIN_RANK_WIDTH = 40.0  # px; in narrower ranks, headers would overlap
# px between the middles of two ranks, where one of them may be wider than the others
MIN_ROOM = {"roomy": 84.0, "normal": 36.0, "crowded": 0.0}
DENSER = {"roomy": "normal", "normal": "crowded"}


def choose_density(n_ranks: int, width: float, overhang: float) -> str:
    """Return ``roomy``, ``normal`` or ``crowded``: how much fits above each column.

    Args:
        n_ranks: the number of ranks.
        width: the width of all columns together, px.
        overhang: by how much headers may extend beyond this width, px.
    """
    if n_ranks > MAX_RANKS_NORMAL or width + overhang < MIN_RANK_WIDTH * n_ranks:
        return "crowded"
    is_roomy = n_ranks <= MAX_RANKS_ROOMY and width >= MIN_RANK_WIDTH_ROOMY * n_ranks
    return "roomy" if is_roomy else "normal"


def vertical_margins(density: str, has_stages: bool) -> tuple[float, float]:
    """Return the space above the columns for headers, and below them for frames of stages, px."""
    if density == "roomy":
        return (104.0 if has_stages else 84.0), 26.0
    if density == "normal":
        return 86.0, 26.0
    return (58.0 if has_stages else 48.0), 24.0
