"""What a tab shows of classes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MEASURES", "ORDERS", "ClassView"]

MEASURES = ("activation", "gradient")
ORDERS = ("class", "selectivity", "conflict", "index")


@dataclass
class ClassView:
    """What a tab shows of classes.

    Attributes:
        shown: the class whose filters are colored in the network view; None: they are not.
        measure: what the matrix of filters and classes shows.
        order: of its rows.
    """

    shown: int | None = None
    measure: str = MEASURES[0]
    order: str = ORDERS[0]
