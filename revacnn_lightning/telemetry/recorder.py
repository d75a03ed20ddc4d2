"""Hooks on the convs, one flat device buffer, one copy to the host per batch.

What the hooks see is reduced to one number per filter (`statistics`) within the batch. The sums
stay on the device; the end of the batch concatenates them and copies the result to the host, once.
Counts (images, pixels, coefficients) and the loss scale are divided out there.

Maps come from one hook on all module calls of the process, weight gradients from hooks on the
weights, optimizer steps from hooks on all optimizers: nothing is stored in the model, so its
copies, pickles and checkpoints know nothing of us.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.hooks import RemovableHandle

from revacnn_lightning.telemetry.detail import DETAIL_HZ, Detail, Details
from revacnn_lightning.telemetry.exciting import Excitement
from revacnn_lightning.telemetry.following import Trail, is_nonlinearity, is_norm
from revacnn_lightning.telemetry.governor import Governor
from revacnn_lightning.telemetry.layer import Layer, forward_order, new_layer, settle_source
from revacnn_lightning.telemetry.maps import MapQueue, MapSums, in_backward
from revacnn_lightning.telemetry.recording import Assembler, Recording
from revacnn_lightning.telemetry.statistics import (
    DEFAULT,
    MAP_GRADIENTS,
    OF_STEPS,
    PROTECTED,
    STATISTICS,
    WHILE_LOOKED_AT,
    Conv,
)
from revacnn_lightning.telemetry.timing import Stopwatch
from revacnn_lightning.telemetry.transfer import Transfer
from revacnn_lightning.telemetry.weights import GradientReader, WeightSums, weight_of

__all__ = ["Recorder", "Recording"]

log = logging.getLogger(__name__)

_FINDS = "finds"  # is thinned out like a statistic

# What a compiled module says when it is called while any hook on all modules is there. Ours leaves
# compiled regions alone.
_COMPILED_WARNING = r"Using `torch\.compile\(module\)` when there are global hooks"


class Recorder:
    """Statistics of every filter of every conv of a model, batch by batch.

    The first batch is *traced*: it finds out the forward order and whose output is the map of each
    conv. The batches after it rely on that and check that it still holds; a network that takes
    another way from batch to batch is traced on every batch, which costs a little more.

    Args:
        model: observed from `attach` to `detach`; the model itself is never changed.
        statistics: which of `STATISTICS` to gather of all layers.
        max_overhead: share of a step that gathering may cost. Where it would cost more, the dear
            statistics are gathered on every 2nd, 4th, ... batch; never ``gradient`` and
            ``activation``, those always. None: everything, always.
        detail_hz: how often per second a detail of an opened layer is made at most.

    Attributes:
        details: what is shown of the layers that a viewer has open. Their dearer statistics are
            gathered as well.
        excitement: what excites the filters that a viewer inspects.
        elsewhere: what else of ours costs the training, as a share of its time.

    Raises:
        ValueError: a statistic that does not exist, a share that is none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        statistics: Sequence[str] = DEFAULT,
        max_overhead: float | None = None,
        detail_hz: float = DETAIL_HZ,
    ) -> None:
        unknown = set(statistics) - set(STATISTICS)
        if unknown:
            raise ValueError(f"unknown statistics {sorted(unknown)}; there are {list(STATISTICS)}")
        self.statistics = [name for name in STATISTICS if name in statistics]
        self._model = model
        self._layers: list[Layer] = []
        self._of_conv: dict[nn.Module, Layer] = {}
        self.details = Details(hz=detail_hz)
        self.excitement = Excitement()
        self.elsewhere = 0.0
        self._asked_for: frozenset[str] = frozenset()
        self._looked_at: frozenset[str] = frozenset()  # in this batch
        self._handles: list[RemovableHandle] = []
        self._filter: Any = None
        self._counting = False
        self._tracing = True
        self._restless = False  # the network has taken another way than the trace
        self._trail = Trail()
        self._awaited: set[Layer] = set()  # called outside of a trace, and not traced so far
        self._taps: dict[nn.Module, Layer | None] = {}
        self._norms: dict[nn.Module, Layer | None] = {}
        self._mixed: set[nn.Module] = set()  # norms that are not of one conv alone
        self._turns = itertools.count()
        self._governor = Governor(max_overhead, PROTECTED)
        self._due: frozenset[str] = frozenset()  # statistics of this batch
        self._owed: frozenset[str] = frozenset()  # to be gathered at the next optimizer step
        self._stepped = False  # in this batch
        self._mine: dict[int, list[tuple[WeightSums, dict[str, Any]]]] = {}  # in this batch
        self._stopwatch = Stopwatch()
        self._began: Any = 0.0
        self._queue = MapQueue(self._stopwatch)
        self._reader = GradientReader(self._stopwatch)
        self._assembler = Assembler()
        self._transfer: Transfer[Recording] = Transfer()
        self._loss_scale: Tensor | float = 1.0
        self.follow()

    # ------------------------------------------------------------------ what is observed

    @property
    def layers(self) -> list[str]:
        """Names of the observed convs, in the order of their first forward."""
        return [layer.name for layer in self._layers]

    @property
    def widths(self) -> list[int]:
        """How many filters each of `layers` has."""
        return [layer.width for layer in self._layers]

    @property
    def activation_of(self) -> dict[str, str]:
        """Layer -> name of the module whose output is its map; "" for the conv's own output."""
        names = {module: name for name, module in self._model.named_modules()}
        return {
            layer.name: "" if layer.source in (None, layer.conv) else names.get(layer.source, "")
            for layer in self._layers
        }

    @property
    def observed(self) -> dict[str, bool]:
        """Layer -> whether its maps reach us.

        False for a conv in a compiled region, where no hook runs. Its weights, and what the
        optimizer does to them, are known all the same.
        """
        return {layer.name: not layer.hidden for layer in self._layers}

    @property
    def every(self) -> dict[str, int]:
        """Statistic -> it is gathered on every n-th batch, of all that are gathered now."""
        return {name: self._governor.every.get(name, 1) for name in self._names()}

    @property
    def overhead(self) -> float:
        """What gathering costs now, as a share of a step, averaged over about ten batches."""
        return self._governor.overhead

    def look_at(self, layers: Iterable[str]) -> None:
        """Gather of these layers also what is gathered only while somebody looks at them."""
        self._asked_for = frozenset(layers)

    def attach(self) -> None:
        """Begin to observe. Does nothing if already attached."""
        if self._handles:
            return
        self._handles = [
            register_module_forward_hook(self._on_forward),
            register_optimizer_step_pre_hook(self._on_stepping),
            register_optimizer_step_post_hook(self._on_stepped),
        ]
        if self._filter is None and any(map(_is_compiled, self._model.modules())):
            warnings.filterwarnings("ignore", _COMPILED_WARNING, UserWarning)
            self._filter = warnings.filters[0]

    def detach(self) -> None:
        """Remove every trace. May be called at any time, any number of times."""
        self._stop()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._filter in warnings.filters:
            warnings.filters.remove(self._filter)  # type: ignore[attr-defined]
        self._filter = None
        self._transfer.clear()
        for layer in self._layers:
            self._reader.unhook(layer.weights)
            layer.weights.forget()
            layer.begin(frozenset())
        self.details.close_all()

    def follow(self) -> None:
        """Take note of a structural edit: new, removed, resized convs. Between batches only.

        Recordings that are still under way (see `end_batch`) are of the structure before: take
        them with `flush` first.
        """
        known, self._of_conv = self._of_conv, {}
        for name, module in self._model.named_modules():  # each module once, even when shared
            if isinstance(module, Conv):
                layer = known.pop(module, None) or new_layer(module)
                layer.name, layer.width = name, module.out_channels
                self._reader.unhook(layer.weights)
                layer.forget()
                self._of_conv[module] = layer
        for layer in known.values():
            self._reader.unhook(layer.weights)
        self._layers = forward_order(list(self._of_conv.values()))
        self._tracing, self._restless = True, False
        self._taps, self._norms, self._mixed, self._awaited = {}, {}, set(), set()

    # ------------------------------------------------------------------ a batch

    def begin_batch(self, *, loss_scale: Tensor | float = 1.0) -> None:
        """From here to `end_batch`, forwards and backwards count.

        Args:
            loss_scale: what mixed precision multiplies the loss by. A tensor on the device is
                copied there, without waiting for it.
        """
        if not self._handles:
            return
        self._counting = True
        self._stopwatch.begin(self._device())
        self._began = self._stopwatch.now()
        self._loss_scale = (
            loss_scale.detach().clone() if isinstance(loss_scale, Tensor) else loss_scale
        )
        self._turns = itertools.count()
        self._looked_at = self._asked_for
        if self.details.layers:
            self.details.begin(self._convs())
            self._looked_at |= self.details.layers
        finds = [_FINDS] if self.excitement.filters else []
        self._due = frozenset(self._governor.due([*self._names(), *finds]))
        self.excitement.begin(_FINDS in self._due)
        self._owed = (frozenset() if self._stepped else self._owed) | (self._due & OF_STEPS)
        self._stepped = False
        self._mine.clear()
        self._due -= OF_STEPS & self._governor.every.keys()  # only when a step has come
        everywhere = self._due.intersection(self.statistics)
        for layer in self._layers:
            layer.begin(self._due if layer.name in self._looked_at else everywhere)
        self._reader.begin(layer.weights for layer in self._layers)
        self._stopwatch.add("fixed", self._began)

    def end_batch(self, *, grad_scale: float = 1.0, tag: Any = None) -> Recording | None:
        """Stop counting; what the batch told us.

        From a GPU that is the recording of the batch before, whose copy has finished meanwhile.

        Args:
            grad_scale: what else the loss was multiplied by before the backward pass, and with it
                all gradients: ``1 / accumulate_grad_batches``. It is divided out again.
            tag: goes into the recording of this batch.
        """
        if not self._counting:
            return None
        with torch.no_grad():
            self._queue.flush()
            self._settle()
            recording = self._send(grad_scale, tag)
        self._stop()
        self._stopwatch.add("step", self._began)
        self._stopwatch.end()
        for seconds in self._stopwatch.read():
            self._govern(seconds)
        return recording

    def read_details(self, *, grad_scale: float = 1.0, tag: Any = None) -> list[Detail]:
        """The details that are due, of the batch that `end_batch` has ended.

        Args:
            grad_scale: what the loss was multiplied by in all, `begin_batch`'s scale included.
            tag: goes into the details.
        """
        if not self.details.layers:
            return []
        return self.details.end(self._model, self._convs(), grad_scale, tag)

    def flush(self) -> list[Recording]:
        """The recordings that are still under way, oldest first; waits for the device."""
        return self._transfer.flush()

    def _names(self) -> list[str]:
        """The statistics that are gathered now, of all or of some layers."""
        if not self._looked_at:
            return self.statistics
        return [name for name in STATISTICS if name in {*self.statistics, *WHILE_LOOKED_AT}]

    def _convs(self) -> dict[str, Conv]:
        return {layer.name: layer.conv for layer in self._layers}

    def _device(self) -> torch.device:
        weight = weight_of(self._layers[0].conv) if self._layers else None
        return torch.device("cpu") if weight is None else weight.device

    def _govern(self, seconds: dict[str, float]) -> None:
        """Have the governor know what a batch has cost."""
        step, fixed = seconds.pop("step"), seconds.pop("fixed", 0.0)
        fixed += self.elsewhere * step
        # Two statistics come out of one pass; what is between them is a matter of counting reads.
        maps = seconds.pop("maps", 0.0)
        firing = 0.5 * maps if "firing" in self._due else 0.0
        seconds |= {"activation": maps - firing}
        gradients = seconds.pop("map gradients", 0.0)
        both = self._due & MAP_GRADIENTS
        seconds |= {name: gradients / len(both) for name in both}
        if "firing" in self._due:
            seconds["firing"] = firing
        if self._governor.update(step, seconds, fixed):
            log.info(
                "Gathering costs %.1f %% of a step; gathered on every n-th batch only: %s",
                100 * self._governor.overhead,
                self._governor.every or "none",
            )

    def _stop(self) -> None:
        self._counting = False
        self._reader.end()
        self._queue.clear()
        self._trail.clear()

    # ------------------------------------------------------------------ hooks

    def _on_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        if is_compiling():
            return  # a compiled region leaves us out; `observed` says so
        if module in self._taps:
            if self._counting and isinstance(output, Tensor):
                self._measure(self._taps[module], module, args, output)
        elif self._counting and self._tracing and isinstance(output, Tensor) and output.dim() == 4:
            self._trace(module, args, output)

    def _measure(self, layer: Layer | None, module: nn.Module, args: Any, output: Tensor) -> None:
        """A call of one of the modules that the trace has found to matter.

        ``layer``: the conv whose map the output is, or, where it is to be handed on to a
        non-linearity, is going to be; None: the module is such a non-linearity.
        """
        again = in_backward()  # activation checkpointing computes what was counted already
        if layer is None:
            layer = self._trail.take(args[0], output) if args else None
            if layer is None:
                return
        elif not layer.seen:
            self._awaited.add(layer)
            return
        elif layer.source is not module:
            layer.marks += not again
            self._trail.mark(output, layer)
            return
        sums = layer.map
        self._watch_gradient(layer, sums, output)
        if again:
            return
        if self.details.wants_map(layer.name):
            self.details.saw_map(layer.name, output)
        self._see(layer.name, output)
        sums.seen(output)
        if "activation" not in layer.wanted and "firing" not in layer.wanted:
            return
        if sums.at_once:
            sums.add(output.detach(), "firing" in layer.wanted)
        else:
            self._queue.put(sums, output, sums.add, "firing" in layer.wanted)

    def _trace(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """A call of any module, while it is not known which ones matter."""
        layer = self._of_conv.get(module)
        if layer is not None:
            self._trail.mark(output, (layer, module))
            self._measure_traced(layer, layer.own, output)
        elif args and is_norm(module):
            layer, _ = self._trail.take(args[0], output) or (None, None)
            self._note_norm(module, layer)
            if layer is not None:
                self._trail.mark(output, (layer, module))
        elif args and is_nonlinearity(module):
            layer, feeder = self._trail.take(args[0], output) or (None, None)
            if layer is not None:
                layer.follower = module
                layer.feeders.add(feeder)
                self._measure_traced(layer, layer.passed_on, output)

    def _note_norm(self, norm: nn.Module, layer: Layer | None) -> None:
        if self._norms.setdefault(norm, layer) is not layer:
            self._mixed.add(norm)

    def _measure_traced(self, layer: Layer, sums: MapSums, output: Tensor) -> None:
        self._watch_gradient(layer, sums, output)
        if in_backward():
            return
        if layer.turn < 0:
            layer.turn = next(self._turns)
            self._reader.hook(layer.weights)  # a lazy conv has its weight only now
        if layer.source is not None and sums is layer.map:
            if self.details.wants_map(layer.name):
                self.details.saw_map(layer.name, output)
            self._see(layer.name, output)
        sums.seen(output)
        sums.add(output.detach(), "firing" in layer.wanted)
        self._queue.put(sums, output, None)

    def _see(self, layer: str, maps: Tensor) -> None:
        """Look for what excites the filters that somebody inspects."""
        if self.excitement.wants(layer):
            begin = self._stopwatch.now()
            self.excitement.saw(layer, maps)
            self._stopwatch.add(_FINDS, begin)

    def _watch_gradient(self, owner: Layer, sums: MapSums, output: Tensor) -> None:
        if not output.requires_grad or owner.wanted.isdisjoint(MAP_GRADIENTS):
            return
        magnitude = "activation_gradient" in owner.wanted
        per_image = "signal_to_noise" in owner.wanted

        def arrive(gradient: Tensor) -> None:
            if self._counting:
                self._queue.put(sums, gradient.detach(), sums.add_gradient, magnitude, per_image)

        output.register_hook(arrive)

    def _on_stepping(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        if not self._counting or "update_ratio" not in self._owed:
            return None
        mine = self._weights_of(optimizer)
        if not mine:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0]: the optimizer
        if closure is None:
            self._copy_weights(mine, optimizer)
            return None

        def closure_then_copy() -> Any:  # backward runs in it: a copy before would cost its memory
            result = closure()
            self._copy_weights(mine, optimizer)
            return result

        if len(args) > 1:
            return (args[0], closure_then_copy, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure_then_copy}

    def _on_stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self._counting:
            return
        mine = self._weights_of(optimizer) if self._owed else []
        if not mine:
            return
        with torch.no_grad():
            begin = self._stopwatch.now()
            if "update_ratio" in self._owed:
                for weights, group in mine:
                    weights.stepped(group, optimizer)
                self._stopwatch.add("update_ratio", begin)
            begin = self._stopwatch.now()
            if "optimizer_gradient" in self._owed:
                for weights, _ in mine:
                    weights.took()
                self._stopwatch.add("optimizer_gradient", begin)
        self._stepped = True
        self._due |= self._owed
        for layer in self._layers:
            layer.wanted |= self._owed

    def _copy_weights(
        self,
        weights: Collection[tuple[WeightSums, dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        begin = self._stopwatch.now()
        with torch.no_grad():
            for each, group in weights:
                each.stepping(group, optimizer)
        self._stopwatch.add("update_ratio", begin)

    def _weights_of(
        self, optimizer: torch.optim.Optimizer
    ) -> list[tuple[WeightSums, dict[str, Any]]]:
        """Our weights that the optimizer changes, each with its parameter group."""
        if id(optimizer) not in self._mine:
            mine = {id(weight_of(layer.conv)): layer.weights for layer in self._layers}
            self._mine[id(optimizer)] = [
                (mine[id(parameter)], group)
                for group in optimizer.param_groups
                for parameter in group["params"]
                if id(parameter) in mine
            ]
        return self._mine[id(optimizer)]

    # ------------------------------------------------------------------ the end of a batch

    def _settle(self) -> None:
        """Draw the conclusions of a traced batch, or see whether the trace still holds."""
        if self._tracing:
            for layer in self._layers:
                settle_source(layer)
            self._settle_order()
            self._settle_hidden()
            self._settle_taps()
        elif not self._as_traced():
            self._restless = True
        self._awaited = {layer for layer in self._awaited if not layer.seen}
        self._tracing = self._restless or bool(self._awaited)
        if self._tracing:
            self._taps = {}

    def _settle_order(self) -> None:
        """Sort by this batch's forward, if it called a layer that was not seen before."""
        if any(layer.turn >= 0 and not layer.seen for layer in self._layers):
            for layer in self._layers:
                layer.rank = layer.turn
                layer.seen = layer.seen or layer.turn >= 0
            self._layers = forward_order(list(self._of_conv.values()))

    def _settle_hidden(self) -> None:
        """Layers that got a gradient without having been called run where no hook does."""
        unseen = [layer for layer in self._layers if not layer.seen]
        compiled = any(layer.weights.arrived for layer in unseen)
        hidden = [layer for layer in unseen if compiled and not layer.hidden]
        for layer in self._layers:
            layer.hidden = compiled and layer in unseen
        if hidden:
            names = ", ".join(layer.name for layer in hidden)
            log.warning(
                "The activation maps of %s are not observed: they run in a compiled region "
                "(torch.compile, torch.jit), where no hook is called. Their weights are.",
                names,
            )

    def _settle_taps(self) -> None:
        """Which modules to listen to from now on. See `_measure` for what they stand for."""
        self._taps = {}
        for layer in self._layers:
            if not layer.seen or layer.source is layer.conv:
                self._taps[layer.conv] = layer
            elif layer.source is not None:
                self._taps[layer.source] = None
                self._taps.update(dict.fromkeys(layer.feeders, layer))
        self._restless = self._restless or not self._mixed.isdisjoint(self._taps)

    def _as_traced(self) -> bool:
        """Whether the network took the way that was traced; maps that it missed are lost."""
        holds = True
        for layer in self._layers:
            missed = layer.weights.arrived and not layer.map.calls and not layer.hidden
            strayed = layer.source is not layer.conv and layer.marks != layer.map.calls
            if layer.seen and (missed or strayed):
                holds = False
            layer.map.lost = layer.map.lost or missed or strayed
        return holds

    def _send(self, grad_scale: float, tag: Any) -> Recording | None:
        begin = self._stopwatch.now()
        if "weight_norm" in self._due:
            for layer in self._layers:
                layer.weights.norm_now()
            self._stopwatch.add("weight_norm", begin)
            begin = self._stopwatch.now()
        names = self._names()
        every = [self._governor.every.get(name, 1) for name in names]
        flat, finish = self._assembler.assemble(
            names, self._layers, grad_scale, self._loss_scale, every, tag
        )
        recording = self._transfer.send(flat, finish)
        self._stopwatch.add("fixed", begin)
        return recording


def _is_compiled(module: nn.Module) -> bool:
    return "_orig_mod" in module._modules  # without importing the compiler to ask for its class
