"""The notebook of a traced forward: which channel of which tensor belongs with which.

Rules (`rules/`) read and write labels (`labels.py`) here, and note what must be edited together
(`union`), what may not be edited at all (`pin`), and which label arrives at each column of each
consumer (`arrive`). What was noted becomes `channels.Channels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from revacnn_lightning.steering.tracing.labels import Component, along, dims
from revacnn_lightning.steering.tracing.records import OpCall, OpCost, SizeUse, TensorDimension
from revacnn_lightning.steering.tracing.traced_int import LinearExpression

__all__ = ["Trace"]


class Trace:
    """The facts of one or more forwards of ``model``.

    ``watched`` are atoms of new filters: those that reach a consumer with a value other than zero
    are found in ``alive`` afterwards.
    """

    def __init__(self, model: nn.Module, watched: Iterable[tuple[str, int, int]] = ()) -> None:
        self.model = model
        modules = list(model.named_modules())
        self.names = {id(m): name for name, m in modules}
        self.convs = [name for name, m in modules if isinstance(m, _ConvNd)]
        self.sites: list[TensorDimension] = []
        self.atoms = 0  # how many exist
        self._own: dict[int, list[Component]] = {}  # labels of parameters and buffers, for good
        self._labels: dict[int, list[Component]] = {}  # labels of this forward's tensors
        self._alive: list[Tensor] = []  # holds this forward's tensors, so that ids stay theirs
        self._sources: dict[int, frozenset[str]] = {}  # convs whose filters a tensor is made of
        self._uniform: set[int] = set()  # tensors whose values do not depend on the index
        self._free: set[int] = set()
        self.unions: list[tuple[np.ndarray, np.ndarray]] = []
        self.pins: list[tuple[np.ndarray, str]] = []
        self.mixes: list[tuple[np.ndarray, str]] = []  # normalised or reduced over the channels
        self.inputs: list[np.ndarray] = []  # atoms that multiply an arriving channel
        self.outputs: list[np.ndarray] = []  # atoms that emit a channel
        self.arrivals: list[tuple[np.ndarray, np.ndarray]] = []
        self.constants: list[tuple[int, int]] = []  # atoms given to unlabelled parts of a concat
        self.filters: dict[str, np.ndarray] = {}  # conv -> the atom of each of its filters
        self.ran: set[str] = set()  # convs that some forward ran
        self.edges: set[tuple[str, str]] = set()
        self.norm_after: dict[str, set[str]] = {}  # conv -> batch norms that read it alone
        self.uses: list[SizeUse] = []  # attributes that count channels
        self.counted: dict[LinearExpression, Tensor] = {}  # the first channels that each counts
        self.shapes: dict[str, set[tuple[tuple[int, ...] | None, tuple[int, ...] | None]]] = {}
        self.epsilon = 0.0  # of the coarsest floating type a conv computed in
        self.products: list[OpCost] = []  # of the first forward alone
        self._stack: list[nn.Module] = []
        self._label_model(model)
        self._produced = np.zeros(self.atoms, bool)
        self.watched = np.zeros(self.atoms, bool)
        self.alive = np.zeros(self.atoms, bool)
        starts = {(site.name, site.dim): site.start for site in self.sites}
        for name, dim, index in watched:
            self.watched[starts[name, dim] + index] = True

    def _label_model(self, model: nn.Module) -> None:
        convs = (model.get_submodule(name) for name in self.convs)
        conv_weights = {id(p) for conv in convs for p in conv.parameters() if p.ndim > 2}
        for name, tensor in _tensors_of(model):
            components = []
            # The kernel's own height and width are never edited.
            edited = 2 if id(tensor) in conv_weights else tensor.ndim
            for dim, size in enumerate(tensor.shape[:edited]):
                if size > 1:
                    atoms = self._new_atoms(size)
                    self.sites.append(TensorDimension(name, dim, self.atoms - size, self.atoms))
                    components.append(along(atoms, tensor.ndim, dim))
            self._own[id(tensor)] = components
            if type(tensor) not in (Tensor, nn.Parameter):
                for component in components:
                    self.pin(component, f"{name} is a {type(tensor).__name__}, maybe sharded")

    def _new_atoms(self, count: int) -> Tensor:
        self.atoms += count
        return torch.arange(self.atoms - count, self.atoms)

    # ---------------------------------------------------------------- what rules read and write

    def labels(self, tensor: Any) -> list[Component]:
        """The components of a tensor; none if it carries no channel of the model."""
        found = self._labels.get(id(tensor))
        return self._own.get(id(tensor), []) if found is None else found

    def label(self, tensor: Tensor, components: list[Component]) -> None:
        self._labels[id(tensor)] = components
        self._alive.append(tensor)

    def is_own(self, tensor: Tensor) -> bool:
        """Whether the tensor is a parameter or buffer of the model itself."""
        return id(tensor) in self._own

    def is_uniform(self, tensor: Tensor) -> bool:
        """Whether the tensor is noise or a constant made anew in every forward."""
        return id(tensor) in self._uniform

    def mark_uniform(self, tensor: Tensor) -> None:
        self._uniform.add(id(tensor))
        self._alive.append(tensor)

    def union(self, a: Tensor, b: Tensor) -> None:
        """The atoms at equal (broadcast) positions belong together."""
        self.unions.append(_paired(a, b))

    def pin(self, atoms: Tensor, reason: str) -> None:
        """These may not be edited."""
        self.pins.append((np.unique(atoms.reshape(-1).numpy()), reason))

    def mix(self, atoms: Tensor, reason: str) -> None:
        """These are normalised together: no filter can be added without changing the others."""
        self.mixes.append((np.unique(atoms.reshape(-1).numpy()), reason))

    def consume(self, columns: Tensor, arriving: Tensor) -> None:
        """``columns`` (atoms of a weight) multiply the channels ``arriving``."""
        self.inputs.append(columns.reshape(-1).numpy())
        self.union(columns, arriving)
        self.arrive(columns, arriving)

    def arrive(self, atoms: Tensor, arriving: Tensor) -> None:
        """Write down which label arrives at which atom; the first forward to say so counts."""
        self.arrivals.append(_paired(atoms, arriving))

    def emit(self, atoms: Tensor) -> None:
        """These are rows of a weight: each makes a channel of its own."""
        flat = atoms.reshape(-1).numpy()
        self.outputs.append(flat)
        self._produced[flat[flat < len(self._produced)]] = True

    def is_emitted(self, component: Component) -> bool:
        """Whether these channels are made by rows of a weight (or are constants), so that they
        are what arrives further on."""
        first = int(component.reshape(-1)[0])
        if first < len(self._produced):
            return bool(self._produced[first])
        return first not in self._free

    def constant(self, size: int, reason: str) -> Tensor:
        """Atoms for channels that no parameter makes."""
        atoms = self._new_atoms(size)
        self.constants.append((self.atoms - size, self.atoms))
        self.pin(atoms, reason)
        return atoms

    def free(self, size: int) -> Tensor:
        """Atoms for channels that no parameter makes, whose number may change."""
        atoms = self._new_atoms(size)
        self._free.update(atoms.tolist())
        return atoms

    def line(self, tensor: Tensor, dim: int, reason: str = "") -> Tensor | None:
        """The 1-D atoms along one dimension, or None.

        A component that mixes ``dim`` with others is pinned: nothing is known to edit it.
        """
        dim %= tensor.ndim
        found: Tensor | None = None
        for component in self.labels(tensor):
            said = dims(component)
            if said == {dim}:
                atoms = component.reshape(-1)
                if found is None:
                    found = atoms
                else:
                    self.union(found, atoms)
            elif dim in said:
                self.pin(component, reason or f"are interleaved before {self.where()}")
        return found

    def look_alive(self, x: Tensor, dim: int, atoms: Tensor) -> None:
        """Note which watched filters are not zero everywhere in ``x``, (…, channels, …)."""
        if not self.watched.any():
            return
        flat = atoms.numpy()
        inside = flat < len(self.watched)
        at = np.flatnonzero(inside & self.watched[np.where(inside, flat, 0)])
        if len(at):
            part = x.index_select(dim, torch.from_numpy(at).to(x.device))
            nonzero = (part != 0).movedim(dim, 0).flatten(1).any(1).cpu().numpy()
            self.alive[flat[at[nonzero]]] = True

    # ---------------------------------------------------------------- where we are

    @property
    def module(self) -> nn.Module | None:
        return self._stack[-1] if self._stack else None

    def module_name(self) -> str:
        """The innermost module of the model whose forward is running."""
        for module in reversed(self._stack):
            if id(module) in self.names:
                return self.names[id(module)]
        return ""

    def path(self) -> tuple[str, ...]:
        """The modules of the model whose forwards are running, outermost first."""
        return tuple([self.names[id(m)] for m in self._stack if id(m) in self.names])

    def where(self) -> str:
        return self.module_name() or "the model's forward"

    def sources(self, tensor: Any) -> frozenset[str]:
        """The convs whose filters this tensor's channels are, seen through all but convs."""
        return self._sources.get(id(tensor), frozenset())

    def start_at_conv(self, out: Tensor, x: Tensor) -> str | None:
        """Note the edges into the conv module that is running; its name, if there is one."""
        name = self.module_name()
        if not isinstance(self.module, _ConvNd) or not name:
            return None
        self.ran.add(name)
        self.edges |= {(source, name) for source in self.sources(x)}
        self._sources[id(out)] = frozenset((name,))
        return name

    def carry_sources(self, call: OpCall) -> None:
        """What a call makes comes from the convs that its inputs come from."""
        found = [self._sources[id(t)] for t in call.tensors if id(t) in self._sources]
        if found:
            united = found[0] if len(found) == 1 else frozenset().union(*found)
            for out in call.outs:
                self._sources[id(out)] = united
                self._alive.append(out)

    # ---------------------------------------------------------------- the forward's course

    def enter(self, module: nn.Module) -> None:
        """The forward of a module begins."""
        self._stack.append(module)

    def leave(self, module: nn.Module, args: Any, out: Any) -> None:
        """It ends: the shapes of what went in and came out."""
        if self._stack:
            self._stack.pop()
        name = self.names.get(id(module))
        if name is not None:
            single = len(args) == 1 and isinstance(args[0], Tensor)
            given = tuple(args[0].shape) if single else None
            made = tuple(out.shape) if isinstance(out, Tensor) else None
            self.shapes.setdefault(name, set()).add((given, made))

    def forget(self) -> None:
        """The forward is over: its tensors are let go, what was noted stays."""
        self._labels.clear()
        self._sources.clear()
        self._uniform.clear()
        self._alive.clear()
        self._stack.clear()

    def output(self, value: Any, collect: Callable[[Any], list[Tensor]]) -> None:
        """What a forward returned may not change its shape. Call inside ``watching``."""
        for tensor in collect(value):
            for component in self.labels(tensor):
                self.pin(component, "reach the model's output")


def _paired(a: Tensor, b: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both as 1-D arrays, broadcast to each other."""
    if a.shape != b.shape:
        a, b = torch.broadcast_tensors(a, b)
    return a.reshape(-1).numpy(), b.reshape(-1).numpy()


def _tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Each parameter and buffer once, under the first of its names."""
    seen: set[int] = set()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in seen and tensor.ndim:
            seen.add(id(tensor))
            yield name, tensor
