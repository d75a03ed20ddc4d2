"""The result of a trace: groups of channels that must be edited together.

The vocabulary of the tracer:

channel
    One index of one dimension of one parameter or buffer, numbered across the model: row 3 of
    ``conv1.weight`` is one channel, entry 3 of ``bn1.bias`` another. Dimensions of size 1 and the
    height and width of kernels have none.
label
    An int64 tensor that says which channel each position of an activation belongs to
    (`labels.py`). Rules (`rules/`) carry labels from the inputs of an operation to its outputs.
coupled
    Two channels are coupled if removing one requires removing the other: where labels meet in a
    sum, and where a channel is read by a column of the next layer.
channel group
    A connected component of coupled channels, like a group of DepGraph (Fang et al. 2023,
    "DepGraph: Towards any structural pruning", arXiv:2301.12900). Removing filter 3 of conv1 means
    removing its group: row 3 of ``conv1.weight``, entry 3 of the batch norm after it, column 3 of
    every consumer, and what sums and group convs couple to these.
fixed
    A channel that may not be edited, with the reason: it reaches the model's output, or an
    operation without a rule reads it.
normalized together
    Channels whose values depend on each other through a layer norm, a group norm or a reduction:
    they may be removed, but the others change.
arrival
    The channel that a column of a consumer multiplies, or that an entry of a norm scales. It
    decides where columns go after an edit (`planning/index_mapping.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from revacnn_lightning.steering.tracing.records import ParameterDimension
from revacnn_lightning.steering.tracing.trace import Trace

__all__ = ["ChannelGroups"]

Members = dict[tuple[str, int], np.ndarray]  # (tensor name, dim) -> sorted indices


class ChannelGroups:
    """The channel groups of a traced model, numbered by integers.

    Attributes:
        dimensions: the editable dimensions of all parameters and buffers.
        constants: (start, stop) of the channels of constants in concatenations.
        arrival: for each channel, the channel that arrives at it; -1 if none does.
        filters: layer -> the channel of each of its filters, in the order of its output.
        edges: (layer, layer) pairs: the filters of the first feed the second.
        untraced: layers that no forward ran.
        unlabeled: layer -> why its filters cannot be traced, as the end of "<layer> …".
        unused: the names of the parameters that no operation has read.
        norm_after: layer -> the batch norms that normalize its output and nothing else.
        shapes: module -> the (input, output) shapes of its calls; None where not one tensor.
        size_uses: attributes of the model's own classes that count channels.
        shape_sizes: the channels of each size that the model reads from a shape; see
            `SizeReadFromShape`.
        has_heads: whether attention splits channels into heads.
        keeps_positions: whether equal parts lose and get channels at equal positions.
        equal_parts: the parts of equal size into which channels are divided, in this order.
        op_costs: the multiplications of the first forward, on ``samples`` samples.
        rounding_unit: rounding unit of the coarsest floating type that a layer computed in.
        call_signature: the `CallSignature` of the first forward.
        silent_channels: the channels of new filters that reach consumers as zeros only.
    """

    def __init__(self, trace: Trace, samples: int = 1) -> None:
        self.dimensions: list[ParameterDimension] = trace.dimensions
        self.constants = trace.constants
        self.filters = trace.filters
        self.edges = sorted(trace.edges)
        self.untraced = [name for name in trace.layers if name not in trace.executed]
        self.unlabeled = {
            name: reason for name, reason in trace.unlabeled.items() if name not in trace.filters
        }
        self.unused = trace.unused
        self.norm_after = trace.norm_after
        self.shapes = trace.shapes
        self.op_costs = trace.op_costs
        self.samples = samples
        self.rounding_unit = trace.rounding_unit
        self.size_uses = trace.size_uses
        self.shape_sizes = trace.shape_sizes
        self.has_heads = trace.has_heads
        self.call_signature = trace.signature.value
        self._by_key = {(each.tensor, each.dim): each for each in self.dimensions}
        self._starts = np.array([each.start for each in self.dimensions], int)
        self.keeps_positions = True
        self.equal_parts = trace.equal_parts
        count = trace.channel_count
        self._couplings, self._kept_whole = trace.couplings, trace.kept_whole
        self._noted = trace.fixed, trace.normalized_together
        self._connect(count, [*trace.couplings, *trace.position_couplings])
        self._reading = _mask(count, trace.reading)
        self._producing = _mask(count, trace.producing)
        self.arrival = np.full(count, -1)
        for channels, arriving in reversed(trace.arrivals):  # the first arrival is kept
            self.arrival[channels] = arriving
        self.silent_channels = trace.activity.silent_channels()

    def _connect(self, count: int, couplings: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        """Make the groups of ``count`` channels with these couplings."""
        self._group_of = _connected_components(count, couplings)
        self._order = _stable_order(self._group_of)
        sizes = np.bincount(self._group_of, minlength=count)
        self._bounds = np.concatenate([[0], np.cumsum(sizes)])
        self._fixed, self._normalized_together = map(self._reasons, self._noted)
        self._whole: dict[int, int] = {}
        for array in self._kept_whole:
            for group in np.unique(self._group_of[array]).tolist():
                self._whole[group] = max(self._whole.get(group, 1), array.shape[1])

    @cached_property
    def ignoring_part_positions(self) -> ChannelGroups:
        """The groups if equal parts need not lose or get channels at equal positions."""
        finer = copy.copy(self)
        finer.keeps_positions = False
        finer._connect(len(self.arrival), self._couplings)
        return finer

    # ---------------------------------------------------------------- groups of channels

    def groups_of_filters(self, layer: str, indices: Iterable[int]) -> list[int]:
        """Return the groups of these filters of a conv."""
        return sorted({int(self._group_of[self.filters[layer][i]]) for i in indices})

    def groups_of_channels(self, channels: np.ndarray) -> list[int]:
        """Return the distinct groups of these channels."""
        return sorted(set(self._group_of[channels].tolist()))

    def group_of_each(self, channels: np.ndarray) -> np.ndarray:
        """Return the group of each channel."""
        return self._group_of[channels]

    def count_in(self, groups: Iterable[int], channels: np.ndarray) -> int:
        """Return how many of these channels belong to these groups."""
        return int(self._is_chosen(groups)[self._group_of[channels]].sum())

    def why_fixed(self, groups: Iterable[int]) -> str:
        """Return why the first fixed one of these groups may not be edited; "" if all may."""
        return next((self._fixed[g] for g in groups if g in self._fixed), "")

    def why_normalized_together(self, groups: Iterable[int]) -> str:
        """Return what normalizes the channels of these groups together; "" if nothing does."""
        reasons = self._normalized_together
        return next((reasons[g] for g in groups if g in reasons), "")

    def channels_per_norm_group(self, groups: Iterable[int]) -> int:
        """Return how many channels a group norm keeps together, in groups of equal size; else 1."""
        return max((self._whole.get(group, 1) for group in groups), default=1)

    # ---------------------------------------------------------------- members of groups

    def members(self, groups: Iterable[int]) -> Members:
        """Return every index of every tensor dimension that belongs to these groups."""
        parts = [self._order[self._bounds[g] : self._bounds[g + 1]] for g in groups]
        channels = np.unique(np.concatenate(parts)) if parts else np.zeros(0, int)
        at = np.searchsorted(self._starts, channels, "right") - 1
        members: Members = {}
        for i in np.unique(at[at >= 0]).tolist():
            dimension = self.dimensions[i]
            own = channels[at == i]
            own = own[own < dimension.stop]
            if len(own):
                members[dimension.tensor, dimension.dim] = own - dimension.start
        return members

    def filters_in(self, groups: Iterable[int]) -> dict[str, list[int]]:
        """Return layer -> indices of its filters that belong to these groups."""
        chosen = self._is_chosen(groups)
        found = {
            name: np.flatnonzero(chosen[self._group_of[channels]]).tolist()
            for name, channels in self.filters.items()
        }
        return {name: indices for name, indices in found.items() if indices}

    def locate(self, channel: int) -> tuple[str, int, int] | None:
        """Return (tensor, dim, index) of a channel; None if no tensor has it."""
        i = int(np.searchsorted(self._starts, channel, "right")) - 1
        dimension = self.dimensions[i]
        if channel >= dimension.stop:
            return None
        return (dimension.tensor, dimension.dim, channel - dimension.start)

    # ---------------------------------------------------------------- tensor dimensions

    def dimension(self, tensor_name: str, dim: int) -> ParameterDimension:
        """Return an editable dimension by its tensor's name."""
        return self._by_key[tensor_name, dim]

    def start_of(self, tensor_name: str, dim: int) -> int | None:
        """Return the first channel of a dimension; None if it has a single entry."""
        found = self._by_key.get((tensor_name, dim))
        return None if found is None else found.start

    def arriving_channels(self, tensor_name: str, dim: int) -> np.ndarray | None:
        """Return the channel that arrives at each index; None unless all are known."""
        dimension = self._by_key.get((tensor_name, dim))
        if dimension is None:  # a dimension of size 1 has no channels
            return None
        arriving = self.arrival[dimension.start : dimension.stop]
        return None if (arriving < 0).any() else arriving

    def reads_channels(self, tensor_name: str, dim: int, indices: np.ndarray) -> bool:
        """Return whether these indices are columns that multiply an arriving channel."""
        return bool(self._reading[self.dimension(tensor_name, dim).start + indices].any())

    def produces_channels(self, tensor_name: str, dim: int, indices: np.ndarray) -> bool:
        """Return whether these indices are rows that produce a channel."""
        return bool(self._producing[self.dimension(tensor_name, dim).start + indices].any())

    # ---------------------------------------------------------------- helpers

    def _reasons(self, noted: Sequence[tuple[np.ndarray, str]]) -> dict[int, str]:
        """Return group -> the first reason noted for any of its channels."""
        found: dict[int, str] = {}
        for channels, reason in noted:
            for group in np.unique(self._group_of[channels]).tolist():
                found.setdefault(group, reason)
        return found

    def _is_chosen(self, groups: Iterable[int]) -> np.ndarray:
        """Return, for each group of the model, whether it is one of these."""
        chosen = np.zeros(len(self._bounds), bool)
        chosen[list(groups)] = True
        return chosen


def _connected_components(
    count: int, couplings: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return the connected component of each of ``count`` channels."""
    if not couplings:
        return np.arange(count)
    left = np.concatenate([a for a, _ in couplings])
    right = np.concatenate([b for _, b in couplings])
    differ = left != right
    left, right = left[differ], right[differ]
    graph = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _stable_order(keys: np.ndarray) -> np.ndarray:
    """Return what a stable ``argsort`` of 32-bit numbers does, by a radix sort in two digits.

    NumPy sorts numbers of 16 bits in linear time.
    """
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    return order[np.argsort((keys[order] >> 16).astype(np.uint16), kind="stable")]


def _mask(count: int, channels: Sequence[np.ndarray]) -> np.ndarray:
    mask = np.zeros(count, bool)
    if channels:
        mask[np.concatenate(channels)] = True
    return mask
