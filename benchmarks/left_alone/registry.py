"""The table of cases. A case is a function that trains something small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.left_alone.training import Training

__all__ = ["CASES", "Case", "add_case", "register_case"]

Train = Callable[["Training"], None]
Output = Callable[[Any, Any], Any]  # (module, batch) -> what an edit must not change


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        name: Unique name.
        group: What it has in common with others; the module that contains it.
        train: Trains, with `Training.fit` in the place of ``Trainer.fit``.
        output: ``(module, batch) -> output`` that edits must keep; None: ``module(images)``.
        observable: Whether it has a convolution that can be opened and edited.
        layer: The layer to open and to edit; "": the first that can be edited.
        steerable: Whether edits must be possible; otherwise they may be refused with a reason.
        raises: Whether the plain training ends with an exception.
        quick: Whether ``--quick`` runs it.
    """

    name: str
    group: str
    train: Train
    output: Output | None = None
    observable: bool = True
    layer: str = ""
    steerable: bool = True
    raises: bool = False
    quick: bool = False


CASES: dict[str, Case] = {}


def add_case(name: str, train: Train, **options: Any) -> None:
    """Add a case to the table.

    Raises:
        ValueError: There is one of this name.
    """
    if name in CASES:
        raise ValueError(f"there are two cases named {name}")
    CASES[name] = Case(name, train.__module__.rpartition(".")[2], train, **options)


def register_case(**options: Any) -> Callable[[Train], Train]:
    """Return a decorator that adds ``train_<name>`` to the table, as the case ``<name>``."""

    def decorate(train: Train) -> Train:
        add_case(train.__name__.removeprefix("train_"), train, **options)
        return train

    return decorate
