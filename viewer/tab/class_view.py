"""What a tab shows of classes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MEASURES", "ORDERS", "ClassViewSettings"]

MEASURES = ("activation", "gradient")
ORDERS = ("class", "selectivity", "conflict", "index")


@dataclass
class ClassViewSettings:
    """What a tab has chosen to show of the classes of the data.

    Attributes:
        shown: the class whose filters are colored in the network view; None: they are not.
        measure: what the matrix of filters and classes shows.
        order: the order of the rows of the matrix.
    """

    shown: int | None = None
    measure: str = MEASURES[0]
    order: str = ORDERS[0]
