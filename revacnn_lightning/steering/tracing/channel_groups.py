"""What a trace found, as data: classes of atoms that must be edited together.

A class is a connected component of the trace's unions. Removing filter 3 of conv1 means removing
every atom of its class: row 3 of conv1.weight, entry 3 of the batch norm behind it, column 3 of
every consumer, and whatever a sum or a group conv ties to these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from revacnn_lightning.steering.tracing.records import TensorDimension
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["ChannelGroups"]

Members = dict[tuple[str, int], np.ndarray]  # (tensor name, dim) -> sorted indices


class ChannelGroups:
    """The classes of a traced model, and what is known of each.

    Attributes:
        sites: the editable dimensions of all parameters and buffers.
        arrival: for each atom, the label that arrives at it (-1: none does).
        filters: conv name -> the atom of each of its filters, in the order of its output.
        edges: (conv, conv) pairs: the filters of the first feed the second.
        untraced: convs that no forward ran.
        unlabelled: convs whose filters could not be followed: those with a single one.
        norm_after: conv -> the batch norms that normalise its output and nothing else.
        shapes: module -> the (input, output) shapes of its calls; None where not one tensor.
        uses: attributes of the model's own classes that count channels.
        products: what the first forward multiplies, on ``samples`` samples.
        epsilon: rounding unit of the coarsest floating type that a conv computed in.
    """

    def __init__(self, trace: Trace, samples: int = 1) -> None:
        self.sites: list[TensorDimension] = trace.sites
        self.constants = trace.constants
        self.filters = trace.filters
        self.edges = sorted(trace.edges)
        self.untraced = [name for name in trace.convs if name not in trace.ran]
        self.unlabelled = sorted(trace.ran - set(trace.filters))
        self.norm_after = trace.norm_after
        self.shapes = trace.shapes
        self.products = trace.products
        self.samples = samples
        self.epsilon = trace.epsilon
        self.uses = trace.uses
        self._by_key = {(site.name, site.dim): site for site in self.sites}
        self._starts = np.array([site.start for site in self.sites], int)
        self._of = _components(trace.atoms, trace.unions)
        self._order = np.argsort(self._of, kind="stable")
        self._bounds = np.searchsorted(self._of[self._order], np.arange(trace.atoms + 1))
        self._pins = self._reasons(trace.pins)
        self._mixes = self._reasons(trace.mixes)
        self._is_input = _mask(trace.atoms, trace.inputs)
        self._is_output = _mask(trace.atoms, trace.outputs)
        self.arrival = np.full(trace.atoms, -1)
        for atoms, arriving in reversed(trace.arrivals):  # the first to arrive is kept
            self.arrival[atoms] = arriving
        dead = trace.watched.copy()
        dead &= np.isin(np.arange(len(dead)), self.arrival) & ~trace.alive[: len(dead)]
        self.dead = np.flatnonzero(dead)  # watched atoms that reach consumers as zeros only

    def _reasons(self, noted: Sequence[tuple[np.ndarray, str]]) -> dict[int, str]:
        """class -> the first reason noted for any of its atoms."""
        found: dict[int, str] = {}
        for atoms, reason in noted:
            for each in np.unique(self._of[atoms]).tolist():
                found.setdefault(each, reason)
        return found

    def classes(self, layer: str, indices: Iterable[int]) -> list[int]:
        """The classes of these filters of a conv."""
        return sorted({int(self._of[self.filters[layer][i]]) for i in indices})

    def count_in(self, classes: Iterable[int], atoms: np.ndarray) -> int:
        """How many of these atoms belong to these classes."""
        return int(self._chosen(classes)[self._of[atoms]].sum())

    def _chosen(self, classes: Iterable[int]) -> np.ndarray:
        """Class -> whether it is one of these."""
        chosen = np.zeros(len(self._bounds), bool)
        chosen[list(classes)] = True
        return chosen

    def class_of(self, atoms: np.ndarray) -> np.ndarray:
        """The class of each atom."""
        return self._of[atoms]

    def classes_of_atoms(self, atoms: np.ndarray) -> list[int]:
        return sorted(set(self._of[atoms].tolist()))

    def pinned(self, classes: Iterable[int]) -> str:
        """Why the first pinned one of these classes may not be edited; "" if all may."""
        return next((self._pins[c] for c in classes if c in self._pins), "")

    def mixed(self, classes: Iterable[int]) -> str:
        """What normalises the channels of these classes together; "" if nothing does."""
        return next((self._mixes[c] for c in classes if c in self._mixes), "")

    def members(self, classes: Iterable[int]) -> Members:
        """Every index of every tensor dimension that belongs to these classes."""
        parts = [self._order[self._bounds[c] : self._bounds[c + 1]] for c in classes]
        atoms = np.unique(np.concatenate(parts)) if parts else np.zeros(0, int)
        at = np.searchsorted(self._starts, atoms, "right") - 1
        members: Members = {}
        for i in np.unique(at[at >= 0]).tolist():
            site = self.sites[i]
            mine = atoms[at == i]
            mine = mine[mine < site.stop]
            if len(mine):
                members[site.name, site.dim] = mine - site.start
        return members

    def site(self, name: str, dim: int) -> TensorDimension:
        return self._by_key[name, dim]

    def arriving(self, name: str, dim: int) -> np.ndarray | None:
        """The label that arrives at each index; None if that is not known of all of them."""
        site = self._by_key.get((name, dim))
        if site is None:  # a dimension of size 1 has no labels
            return None
        labels = self.arrival[site.start : site.stop]
        return None if (labels < 0).any() else labels

    def is_input(self, name: str, dim: int, indices: np.ndarray) -> bool:
        """Whether these indices are columns that multiply an arriving channel."""
        return bool(self._is_input[self.site(name, dim).start + indices].any())

    def is_output(self, name: str, dim: int, indices: np.ndarray) -> bool:
        """Whether these indices are rows that make a channel."""
        return bool(self._is_output[self.site(name, dim).start + indices].any())

    def filters_in(self, classes: Iterable[int]) -> dict[str, list[int]]:
        """Which filters of which convs belong to these classes."""
        wanted = self._chosen(classes)
        found = {
            name: np.flatnonzero(wanted[self._of[atoms]]).tolist()
            for name, atoms in self.filters.items()
        }
        return {name: indices for name, indices in found.items() if indices}

    def locate(self, atom: int) -> tuple[str, int, int] | None:
        """(tensor, dim, index) of an atom; None for one that no tensor owns."""
        i = int(np.searchsorted(self._starts, atom, "right")) - 1
        site = self.sites[i]
        return (site.name, site.dim, atom - site.start) if atom < site.stop else None


def _components(count: int, unions: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The connected component of each of ``count`` atoms."""
    if not unions:
        return np.arange(count)
    left = np.concatenate([a for a, _ in unions])
    right = np.concatenate([b for _, b in unions])
    apart = left != right
    left, right = left[apart], right[apart]
    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _mask(count: int, atoms: Sequence[np.ndarray]) -> np.ndarray:
    mask = np.zeros(count, bool)
    if atoms:
        mask[np.concatenate(atoms)] = True
    return mask
