"""What `benchmarks.peers_edits` does with every tool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.peers.networks import EditSubject
from benchmarks.steering_models import train_step

__all__ = ["Batch", "MakeOptimizer", "Observed", "Tool"]

Batch = tuple[Tensor, Tensor]
MakeOptimizer = Callable[[Any], Optimizer]
Observed = Callable[[], AbstractContextManager[None]]


class Tool(ABC):
    """A network in training, and a tool that edits it.

    Args:
        network: the network. The attribute of this name is always the one in use.
        optimizer: what trains it. The attribute of this name is always the one in use.
        make_optimizer: parameters -> a new optimizer of the same kind, with the same settings.
        subject: the layer and the filters that are edited.
        batches: the next batches of the training.
    """

    name: ClassVar[str]
    package: ClassVar[str]  # in the package index
    edits: ClassVar[Sequence[str]]  # of "remove" and "add"
    measures_undo: ClassVar[bool] = False  # by `undo`
    undo_offered: ClassVar[str] = "not offered"  # where it is not measured
    resumes: ClassVar[str | None] = None  # how `resume` continues a saved training
    resume_offered: ClassVar[str] = "not offered"  # where it is not measured

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        make_optimizer: MakeOptimizer,
        subject: EditSubject,
        batches: Sequence[Batch],
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.make_optimizer = make_optimizer
        self.subject = subject
        self.batches = batches
        self.seconds = 0.0  # of the last edit

    @classmethod
    def version(cls) -> str | None:
        """Return the installed version, or None if the tool is not installed."""
        try:
            return metadata.version(cls.package)
        except metadata.PackageNotFoundError:
            return None

    @abstractmethod
    def edit(self, edit: str, observed: Observed) -> list[float]:
        """Remove the subject's filters, or add one, ``with observed():``.

        Returns:
            The losses of the batches that were trained meanwhile, by tools that edit in a batch.
        """

    def train(self, batches: Sequence[Batch]) -> list[float]:
        """Train on these batches and return the losses of those that did not fail."""
        return [train_step(self.network, self.optimizer, *batch) for batch in batches]

    def undo(self) -> None:
        """Undo the edit. Called only if `measures_undo`."""
        raise NotImplementedError

    def resume(self, folder: Path) -> Tool:
        """Save the training and return one that continues it. Called only if `resumes`."""
        raise NotImplementedError

    def with_resumed_network(self, network: nn.Module, optimizer: Optimizer) -> Tool:
        """Return the tool for another network in the same training."""
        return type(self)(network, optimizer, self.make_optimizer, self.subject, self.batches)

    @contextmanager
    def time_edit(self) -> Iterator[None]:
        """Measure the duration of an edit."""
        start = perf_counter()
        yield
        self.seconds = perf_counter() - start
