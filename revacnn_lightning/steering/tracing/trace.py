"""`Trace`: what the rules record during traced forwards. `channel_groups` defines the terms.

Rules (`rules/`) read and write labels (`labels.py`) here. They record which channels are coupled
(`couple`), which may not be edited (`fix`), and which channel arrives at each column of each
consumer (`record_arrival`). A finished trace becomes `ChannelGroups`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.steering.computed_tensors import computed_tensors
from revacnn_lightning.steering.tracing.call_signature import CallSignature, tensor_positions
from revacnn_lightning.steering.tracing.filter_activity import ZeroNewFilterDetector
from revacnn_lightning.steering.tracing.labels import (
    Label,
    count_runs,
    is_cartesian_product,
    label_along,
    labeled_dims,
)
from revacnn_lightning.steering.tracing.records import (
    AttributesEqualToChannelCount,
    EqualParts,
    OpCall,
    OpCost,
    ParameterDimension,
)
from revacnn_lightning.steering.tracing.tensor_keys import TensorKeys
from revacnn_lightning.steering.tracing.traced_int import (
    LinearExpression,
    SizeAttribute,
    SizeReadFromShape,
    TracedInt,
)
from revacnn_lightning.telemetry.module_tree import list_named_modules, list_named_tensors
from revacnn_lightning.telemetry.unit_layers import UnitLayer, is_transposed, named_unit_layers

__all__ = ["Trace"]


class Trace:
    """Records of forwards of ``model``: the channels of each tensor, and how they depend.

    Args:
        new_filters: (tensor, dim, index) of new filters, whose ``activity`` is recorded.
    """

    def __init__(self, model: nn.Module, new_filters: Iterable[tuple[str, int, int]] = ()) -> None:
        self.model = model
        modules = list_named_modules(model)
        self.names = {id(m): name for name, m in modules}
        self.layers = [name for name, _ in named_unit_layers(model)]
        self.dimensions: list[ParameterDimension] = []
        self.channel_count = 0
        self._permanent_labels: dict[int, list[Label]] = {}  # of parameters and buffers
        self._labels: dict[int, list[Label]] = {}  # of this forward's tensors
        self._keys = TensorKeys()
        self._sources: dict[int, frozenset[str]] = {}  # layers whose filters a tensor consists of
        self._uninitialized: dict[int, Tensor] = {}  # by the address of their memory
        self._uniform: set[int] = set()  # tensors whose values do not depend on the index
        self._free: set[int] = set()
        self._unused: dict[int, str] = {}  # parameters that no operation has read
        self.couplings: list[tuple[np.ndarray, np.ndarray]] = []
        self.position_couplings: list[tuple[np.ndarray, np.ndarray]] = []  # of equal parts
        self.equal_parts: list[EqualParts] = []
        self.fixed: list[tuple[np.ndarray, str]] = []
        self.normalized_together: list[tuple[np.ndarray, str]] = []
        self.reading: list[np.ndarray] = []  # channels that multiply an arriving one
        self.producing: list[np.ndarray] = []  # rows of a weight that produce a channel
        self.arrivals: list[tuple[np.ndarray, np.ndarray]] = []
        self.constants: list[tuple[int, int]] = []  # of unlabeled parts of a concatenation
        self.filters: dict[str, np.ndarray] = {}  # layer -> the channel of each of its filters
        self.executed: set[str] = set()  # layers that some forward ran
        self.unlabeled: dict[str, str] = {}  # layer -> why its filters cannot be traced
        self.edges: set[tuple[str, str]] = set()
        self.norm_after: dict[str, set[str]] = {}  # layer -> batch norms that read only it
        self.size_uses: list[AttributesEqualToChannelCount] = []  # attributes that count channels
        self.kept_whole: list[np.ndarray] = []  # (groups, size): groups of a group norm
        self.first_counted: dict[LinearExpression, Tensor] = {}  # the first channels each counts
        self.shape_sizes: list[Tensor] = []  # the channels of each size that was read from a shape
        self.has_heads = False  # attention splits channels into heads
        self.shapes: dict[str, set[tuple[tuple[int, ...] | None, tuple[int, ...] | None]]] = {}
        self.rounding_unit = 0.0  # of the coarsest floating type a layer computed in
        self.op_costs: list[OpCost] = []  # of the first forward
        tensors = list_named_tensors(model)
        self.signature = CallSignature(tensor_positions(tensors))  # of the first forward
        self._stack: list[nn.Module] = []
        self._priorities: list[tuple[bool, int]] = []  # of the tensors of `dimensions`
        self._label_tensors(tensors)
        self._starts = np.array([each.start for each in self.dimensions], int)
        self._has_gain = np.zeros(self.channel_count, bool)
        self._apply_computations(model)
        self._couple_embeddings(model)
        self._produced = np.zeros(self.channel_count, bool)
        self.activity = ZeroNewFilterDetector(new_filters, self.dimensions, self.channel_count)

    def _label_tensors(self, tensors: Sequence[tuple[str, Tensor]]) -> None:
        layers = dict(named_unit_layers(self.model))
        conv_weights = {
            id(t) for each in layers.values() for t in (*each.parameters(), *each.buffers())
            if t.ndim > 2
        }  # fmt: skip
        self._layer_of_weight = {
            id(layer._parameters.get("weight")): name
            for name, layer in reversed(list(layers.items()))
        }
        for name, tensor in tensors:
            if not tensor.ndim:
                self._keys.record_permanent(tensor)
                continue
            if isinstance(tensor, nn.Parameter):
                self._unused[id(tensor)] = name
            labels = []
            # The height and width of a kernel are never edited.
            editable = 2 if id(tensor) in conv_weights else tensor.ndim
            for dim, size in enumerate(tensor.shape[:editable]):
                if size > 1:
                    channels = self._new_channels(size)
                    start = self.channel_count - size
                    self.dimensions.append(ParameterDimension(name, dim, start, self.channel_count))
                    self._priorities.append((isinstance(tensor, nn.Parameter), tensor.numel()))
                    labels.append(label_along(channels, tensor.ndim, dim))
            self._permanent_labels[self._keys.record_permanent(tensor)] = labels
            if type(tensor) not in (Tensor, nn.Parameter):
                for label in labels:
                    self.fix(label, f"{name} is a {type(tensor).__name__}, which may be sharded")

    def _apply_computations(self, model: nn.Module) -> None:
        """Fix the channels of tensors that no edit can resize; note those that a gain rescales."""
        by_tensor: dict[str, list[ParameterDimension]] = {}
        for dimension in self.dimensions:
            by_tensor.setdefault(dimension.tensor, []).append(dimension)
        for computed in computed_tensors(model):
            if computed.refusal:
                for name in computed.originals:
                    for each in by_tensor.get(name, ()):
                        self.fix(torch.arange(each.start, each.stop), computed.refusal)
            elif computed.gain:
                for each in by_tensor.get(computed.direction, ()):
                    self._has_gain[each.start : each.stop] = True

    def _couple_embeddings(self, model: nn.Module) -> None:
        """Couple what ``nn.MultiheadAttention`` reads and what its heads return: as many channels.

        It computes the sizes of its views in a function that no mode can enter.
        """
        for _, module in list_named_modules(model):
            if isinstance(module, nn.MultiheadAttention):
                query = (
                    module.q_proj_weight if module.in_proj_weight is None else module.in_proj_weight
                )
                read, returned = (
                    self.channels_along(weight, 1) for weight in (query, module.out_proj.weight)
                )
                if read is not None and returned is not None:
                    self.couple(read, returned)

    def _new_channels(self, count: int) -> Tensor:
        self.channel_count += count
        return torch.arange(self.channel_count - count, self.channel_count)

    # ---------------------------------------------------------------- labels

    def labels(self, tensor: Any) -> list[Label]:
        """Return the labels of a tensor; empty if it has no channel of the model."""
        key = self._keys.find(tensor)
        found = self._labels.get(key)
        return self._permanent_labels.get(key, []) if found is None else found

    def set_labels(self, tensor: Tensor, labels: list[Label]) -> None:
        """Set the labels of a tensor of this forward."""
        self._labels[self._keys.record(tensor)] = labels

    def channels_along(self, tensor: Tensor, dim: int) -> Tensor | None:
        """Return the 1-D channels along one dimension; None if it has no label of its own.

        Channels that are labeled along both ``dim`` and other dimensions become fixed. Where each
        of some channels meets each of others, as after two dimensions were flattened to one, the
        others are fixed: an edit of either would change how many positions the other one has.
        """
        dim %= tensor.ndim
        found: Tensor | None = None
        for label in self.labels(tensor):
            dims = labeled_dims(label)
            if dims == {dim}:
                channels = label.reshape(-1)
                if found is None:
                    found = channels
                elif is_cartesian_product(found, channels):
                    found, others = sorted((found, channels), key=count_runs)
                    self.fix(others, f"are flattened with other filters before {self.where()}")
                else:
                    self.couple(found, channels)
            elif dim in dims:
                self.fix(label, f"are interleaved before {self.where()}")
        return found

    def constant_channels(self, size: int, reason: str) -> Tensor:
        """Return new, fixed channels for values that no parameter produces."""
        channels = self._new_channels(size)
        self.constants.append((self.channel_count - size, self.channel_count))
        self.fix(channels, reason)
        return channels

    def free_channels(self, size: int) -> Tensor:
        """Return new channels for values that no parameter produces, whose number may change."""
        channels = self._new_channels(size)
        self._free.update(channels.tolist())
        return channels

    def is_uniform(self, tensor: Tensor) -> bool:
        """Return whether the tensor is noise or a constant that every forward creates again."""
        return self._keys.find(tensor) in self._uniform

    def mark_uniform(self, tensor: Tensor) -> None:
        """Record that the tensor's values do not depend on the index."""
        self._uniform.add(self._keys.record(tensor))

    def record_uninitialized(self, tensor: Tensor) -> None:
        """Record a tensor of this forward that its parts will be written to."""
        self._uninitialized[tensor.untyped_storage().data_ptr()] = tensor

    def uninitialized_whole(self, part: Tensor) -> Tensor | None:
        """Return the tensor that was created uninitialized and that this one is a part of."""
        return self._uninitialized.get(part.untyped_storage().data_ptr())

    @property
    def unused(self) -> set[str]:
        """The names of the parameters that no operation has read."""
        return set(self._unused.values())

    def record_use(self, tensors: Iterable[Tensor]) -> None:
        """Record that an operation reads these tensors."""
        for tensor in tensors:
            self._unused.pop(id(tensor), None)

    # ---------------------------------------------------------------- what rules record

    def couple(self, a: Tensor, b: Tensor) -> None:
        """Couple the channels at equal (broadcast) positions."""
        self.couplings.append(_paired(a, b))

    def record_equal_parts(self, parts: Sequence[Tensor], *, is_split: bool = False) -> None:
        """Record that these parts keep equal sizes, and couple the channels at equal positions.

        That is one way to keep them equal; see `planning/equal_parts.py` for others.
        """
        arrays = tuple([part.reshape(-1).numpy() for part in parts])
        self.equal_parts.append(EqualParts(arrays, is_split, self.where()))
        if len({len(each) for each in arrays}) == 1:
            self.position_couplings += [(arrays[0], each) for each in arrays[1:]]

    def fix(self, channels: Tensor, reason: str) -> None:
        """Record that these channels may not be edited. The reason continues "these filters …"."""
        self.fixed.append((np.unique(channels.reshape(-1).numpy()), reason))

    def normalize_together(self, channels: Tensor, reason: str) -> None:
        """Record that these channels are normalized together: a new one changes all others.

        Not those of a weight norm: an edit adapts its gain, which keeps the others as they are.
        """
        flat = np.unique(channels.reshape(-1).numpy())
        inside = flat < len(self._has_gain)
        is_kept = inside & self._has_gain[np.where(inside, flat, 0)]
        if not is_kept.all():
            self.normalized_together.append((flat[~is_kept], reason))

    def keep_groups_whole(self, per_group: Tensor) -> None:
        """Record that channels (groups, size) are edited by whole groups, which are adjacent."""
        self.couple(per_group[:, :1], per_group)
        self.kept_whole.append(per_group.numpy())

    def record_count_attribute(self, name: str, channels: Tensor, entry: int = -1) -> None:
        """Record that an attribute of the running module is the number of these channels.

        ``entry``: that entry of the attribute, a tuple.
        """
        path = self.names.get(id(self.running_module))
        if path is None:
            self.fix(channels, f"are counted by a module in {self.where()} that is not registered")
            return
        attribute = SizeAttribute(path, name, entry)
        expression = LinearExpression(((attribute, Fraction(1)),))
        self.size_uses.append(AttributesEqualToChannelCount(expression, channels, self.where()))

    def read_size(self, channels: Tensor) -> TracedInt:
        """Return the number of these channels, which the model reads from a shape."""
        source = SizeReadFromShape(len(self.shape_sizes), len(channels))
        self.shape_sizes.append(channels)
        expression = LinearExpression(((source, Fraction(1)),))
        self.first_counted[expression] = channels
        return TracedInt(len(channels), expression)

    def record_producing_rows(self, channels: Tensor) -> None:
        """Record that these rows of a weight each produce a channel of their own."""
        flat = channels.reshape(-1).numpy()
        self.producing.append(flat)
        self._produced[flat[flat < len(self._produced)]] = True

    def is_produced(self, label: Label) -> bool:
        """Return whether rows of a weight produce these channels, or they are those of constants.

        Such channels, not those of the parameters that scale them, arrive at consumers.
        """
        first = int(label.reshape(-1)[0])
        if first < len(self._produced):
            return bool(self._produced[first])
        return first not in self._free

    def product_priority(self, label: Label) -> tuple[bool, int]:
        """Return how much the tensor of these channels determines a product with another tensor.

        A parameter determines more than a buffer, such as a mask, and a tensor of the result's
        shape more than a gain.
        """
        first = int(label.reshape(-1)[0])
        at = int(np.searchsorted(self._starts, first, "right")) - 1
        if at < 0 or first >= self.dimensions[at].stop:
            return (False, 0)
        return self._priorities[at]

    def record_reading_columns(self, columns: Tensor, arriving: Tensor) -> None:
        """Record that these columns of a weight multiply the channels ``arriving``."""
        self.reading.append(columns.reshape(-1).numpy())
        self.couple_arrival(columns, arriving)

    def record_arrival(self, channels: Tensor, arriving: Tensor) -> None:
        """Record which channel arrives at which; the first record of a channel counts."""
        self.arrivals.append(_paired(channels, arriving))

    def couple_arrival(self, channels: Tensor, arriving: Tensor) -> None:
        """Couple channels with those that arrive at them, and record their arrival."""
        pair = _paired(channels, arriving)
        self.couplings.append(pair)
        self.arrivals.append(pair)

    def record_conv(
        self, out: Tensor, x: Tensor, weight: Tensor, *, transposed: bool
    ) -> str | None:
        """Record the edges into the conv that runs, and return its name if there is one.

        It is the running module, or the one whose weight, or what is computed from it, another
        module passes to ``conv2d``. A decoder may pass the weight of a conv to
        ``conv_transpose2d``, which has other filters.
        """
        name = self.running_module_name()
        if not isinstance(self.running_module, UnitLayer) or not name:
            name = self._layer_of_weight.get(id(weight)) or self._layer_of_computed(weight)
            layer: Any = self.model.get_submodule(name)
            name = name if name and is_transposed(layer) == transposed else ""
        return self._record_layer(name, out, x)

    def record_linear(self, out: Tensor, x: Tensor, produced: Tensor | None) -> str | None:
        """Record the edges into the linear layer that runs, and return its name if there is one.

        It is the running module, or the one whose weight, with the rows ``produced``, another
        module passes to ``linear``.
        """
        module, name = self.running_module, self.running_module_name()
        is_layer = isinstance(module, nn.Linear) and module.out_features == out.shape[-1]
        if not is_layer or not name:
            name = "" if produced is None else self._layer_of_rows(produced, nn.Linear)
        return self._record_layer(name, out, x)

    def _layer_of_computed(self, weight: Tensor) -> str:
        """Return the conv whose weight this one is computed from, filter by filter; "" if none."""
        produced = self.channels_along(weight, 0)
        if produced is None:
            return ""
        name = self._layer_of_rows(produced, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        is_whole = bool((produced.diff() == 1).all())
        layer: Any = self.model.get_submodule(name)
        return name if name and is_whole and len(produced) == layer.out_channels else ""

    def _layer_of_rows(self, produced: Tensor, kinds: Any) -> str:
        """Return the layer of these kinds whose weight has these rows; "" if none has."""
        first = int(produced[0])
        at = int(np.searchsorted(self._starts, first, "right")) - 1
        if at < 0 or first >= self.dimensions[at].stop or self.dimensions[at].dim != 0:
            return ""
        name, _, attribute = self.dimensions[at].tensor.rpartition(".")
        is_layer = isinstance(self.model.get_submodule(name), kinds)
        return name if attribute == "weight" and is_layer else ""

    def _record_layer(self, name: str, out: Tensor, x: Tensor) -> str | None:
        if not name:
            return None
        self.executed.add(name)
        self.edges |= {(source, name) for source in self.source_layers(x)}
        self._sources[self._keys.record(out)] = frozenset((name,))
        return name

    def source_layers(self, tensor: Any) -> frozenset[str]:
        """Return the layers whose filters reach this tensor through anything but layers."""
        return self._sources.get(self._keys.find(tensor), frozenset())

    def propagate_sources(self, call: OpCall) -> None:
        """Give the outputs of a call the sources of its inputs."""
        keys = [self._keys.find(tensor) for tensor in call.tensors]
        found = [self._sources[key] for key in keys if key in self._sources]
        if found:
            united = found[0] if len(found) == 1 else frozenset().union(*found)
            for out in call.outs:
                self._sources[self._keys.record(out)] = united

    def fix_outputs(self, value: Any, collect: Callable[[Any], list[Tensor]]) -> None:
        """Fix the channels of a forward's result, whose shape may not change.

        Call this before `release_tensors`. ``collect`` returns the tensors in ``value``.
        """
        for tensor in collect(value):
            self.fix_tensor(tensor, "reach the model's output")

    def fix_tensor(self, tensor: Tensor, reason: str) -> None:
        """Fix the channels of a tensor of this forward, for a reason as in `fix`."""
        with torch._C.DisableTorchFunctionSubclass():
            for label in self.labels(tensor):
                self.fix(label, reason)

    # ---------------------------------------------------------------- the running modules

    @property
    def running_module(self) -> nn.Module | None:
        """The innermost module whose forward runs."""
        return self._stack[-1] if self._stack else None

    def running_module_name(self) -> str:
        """Return the innermost module of the model whose forward runs."""
        for module in reversed(self._stack):
            if id(module) in self.names:
                return self.names[id(module)]
        return ""

    def running_module_path(self) -> tuple[str, ...]:
        """Return the modules of the model whose forwards run, outermost first."""
        return tuple([self.names[id(m)] for m in self._stack if id(m) in self.names])

    def where(self) -> str:
        """Return the running module for use in a reason."""
        return self.running_module_name() or "the model's forward"

    def enter_module(self, module: nn.Module) -> None:
        """Record that the forward of a module begins."""
        self._stack.append(module)

    def leave_module(self, module: nn.Module, args: Any, out: Any) -> None:
        """Record that the forward of a module ends, and the shapes of its input and output."""
        if self._stack:
            self._stack.pop()
        name = self.names.get(id(module))
        if name is not None:
            single = len(args) == 1 and isinstance(args[0], Tensor)
            given = tuple(args[0].shape) if single else None
            returned = tuple(out.shape) if isinstance(out, Tensor) else None
            self.shapes.setdefault(name, set()).add((given, returned))

    def release_tensors(self) -> None:
        """Release the tensors of a finished forward. Everything recorded remains."""
        self._labels.clear()
        self._sources.clear()
        self._uniform.clear()
        self._uninitialized.clear()
        self._keys.clear()
        self._stack.clear()


def _paired(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return both as 1-D arrays, broadcast to each other."""
    if a.shape != b.shape:
        a, b = torch.broadcast_tensors(a, b)
    return a.reshape(-1).numpy(), b.reshape(-1).numpy()
