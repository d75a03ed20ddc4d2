"""The statistics of a batch: what hooks see of it, reduced on the device, copied to the host once.

What the hooks see is reduced to one number per filter (`statistics`) within the batch. The sums
stay on the device; the end of the batch concatenates them and copies the result to the host, once.
Counts (images, pixels, coefficients) and the loss scale are divided out there.

Maps come from forward hooks (`listening`), weight gradients from hooks on the weights (`weights`),
optimizer steps from hooks on all optimizers (`stepping`). Copies, pickles and checkpoints of the
model know nothing of us.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.inspection.downsampling import maps_of_image
from revacnn_lightning.telemetry.inspection.layer_detail import (
    DETAIL_HZ,
    DetailRecorder,
    DetailSample,
)
from revacnn_lightning.telemetry.inspection.top_images import ResponseRecorder
from revacnn_lightning.telemetry.recording.activation_meter import FINDS, ActivationMeter
from revacnn_lightning.telemetry.recording.activation_sums import settle_signals
from revacnn_lightning.telemetry.recording.batch_recording import Recording, RecordingAssembler
from revacnn_lightning.telemetry.recording.host_copy import HostCopy
from revacnn_lightning.telemetry.recording.module_hooks import ModuleHooks
from revacnn_lightning.telemetry.recording.observed_layer import (
    ObservedLayer,
    forward_order,
    new_layer,
)
from revacnn_lightning.telemetry.recording.optimizer_hooks import OptimizerHooks
from revacnn_lightning.telemetry.recording.overhead_costs import shared_out
from revacnn_lightning.telemetry.recording.overhead_governor import OverheadGovernor
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.recording.weight_sums import GradientReader, weight_of
from revacnn_lightning.telemetry.statistics import (
    DEFAULT,
    OF_STEPS,
    PROTECTED,
    STATISTICS,
    WHILE_LOOKED_AT,
    Conv,
)

__all__ = ["Recorder", "Recording"]

log = logging.getLogger(__name__)

# What a compiled module says when it is called while any hook on all modules is there. Ours leaves
# compiled regions alone.
_COMPILED_WARNING = r"Using `torch\.compile\(module\)` when there are global hooks"


class Recorder:
    """Statistics of every filter of every conv of a model, batch by batch.

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
        self.details = DetailRecorder(hz=detail_hz)
        self.excitement = ResponseRecorder()
        self.elsewhere = 0.0
        self._model = model
        self._layers: list[ObservedLayer] = []
        self._attached = False
        self._counting = False
        self._asked_for: frozenset[str] = frozenset()
        self._looked_at: frozenset[str] = frozenset()  # in this batch
        self._due: frozenset[str] = frozenset()  # statistics of this batch
        self._filter: Any = None
        self._began: Any = 0.0
        self._loss_scale: Tensor | float = 1.0
        self._governor = OverheadGovernor(max_overhead, PROTECTED)
        self._stopwatch = Stopwatch()
        self._meter = ActivationMeter(self.details, self.excitement, self._stopwatch)
        self._reader = GradientReader(self._stopwatch)
        self._listener = ModuleHooks(self._meter, self._reader)
        self._steps = OptimizerHooks(self._stopwatch, self._reader)
        self._assembler = RecordingAssembler()
        self._transfer: HostCopy[Recording] = HostCopy()
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
        if self._attached:
            return
        self._attached = True
        self._listener.attach()
        self._steps.attach()
        if self._filter is None and any(map(_is_compiled, self._model.modules())):
            warnings.filterwarnings("ignore", _COMPILED_WARNING, UserWarning)
            self._filter = warnings.filters[0]

    def detach(self) -> None:
        """Remove every trace. May be called at any time, any number of times."""
        self._stop()
        self._attached = False
        self._listener.detach()
        self._steps.detach()
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
        known: dict[nn.Module, ObservedLayer] = {layer.conv: layer for layer in self._layers}
        layers: list[ObservedLayer] = []
        for name, module in self._model.named_modules():  # each module once, even when shared
            if isinstance(module, Conv):
                layer = known.pop(module, None) or new_layer(module)
                layer.name, layer.width, layer.place = name, module.out_channels, len(layers)
                self._reader.unhook(layer.weights)
                layer.forget()
                layers.append(layer)
        for layer in known.values():
            self._reader.unhook(layer.weights)
        self._layers = forward_order(layers)
        self._listener.follow(layers)
        self._steps.follow(layers)
        if self._attached:
            self._listener.attach()

    # ------------------------------------------------------------------ a batch

    def begin_batch(self, *, loss_scale: Tensor | float = 1.0) -> None:
        """From here to `end_batch`, forwards and backwards count.

        Args:
            loss_scale: what mixed precision multiplies the loss by. A tensor on the device is
                copied there, without waiting for it.
        """
        if not self._attached:
            return
        self._counting = self._meter.counting = True
        self._stopwatch.begin(self._device())
        self._began = self._stopwatch.now()
        self._loss_scale = (
            loss_scale.detach().clone() if isinstance(loss_scale, Tensor) else loss_scale
        )
        self._looked_at = self._asked_for
        if self.details.layers:
            self.details.begin(self._convs())
            self._looked_at |= self.details.layers
        finds = [FINDS] if self.excitement.filters else []
        due = frozenset(self._governor.due([*self._names(), *finds]))
        self.excitement.begin(FINDS in due)
        self._steps.begin(due & OF_STEPS)
        self._due = due - (OF_STEPS & self._governor.every.keys())  # those when a step has come
        everywhere = self._due.intersection(self.statistics)
        for layer in self._layers:
            layer.begin(self._due if layer.name in self._looked_at else everywhere)
        self._reader.begin(layer.weights for layer in self._layers)
        self._listener.begin()
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
            self._layers = self._listener.settle(self._layers)
            if self._steps.stepped:
                self._due |= self._steps.owed
                for layer in self._layers:
                    layer.wanted |= self._steps.owed
            recording = self._send(grad_scale, tag)
        self._stop()
        self._stopwatch.add("step", self._began)
        self._stopwatch.end()
        for seconds in self._stopwatch.read():
            self._govern(seconds)
        return recording

    def rest(self) -> None:
        """No batch is recorded for a while: hold nothing of the last one, its gradients above all.

        What is still on its way from a GPU is given up.
        """
        self._transfer.clear()
        for layer in self._layers:
            layer.weights.begin()
            layer.begin(frozenset())

    def read_details(self, *, grad_scale: float = 1.0, tag: Any = None) -> list[DetailSample]:
        """The details that are due, of the batch that `end_batch` has ended.

        Args:
            grad_scale: what the loss was multiplied by in all, `begin_batch`'s scale included.
            tag: goes into the details.
        """
        if not self.details.layers:
            return []
        return self.details.end(self._model, self._convs(), grad_scale, tag)

    def details_between(
        self,
        layers: Iterable[str],
        image: Tensor | None = None,
        forward: Callable[[Tensor], Any] | None = None,
    ) -> list[DetailSample]:
        """The details of these open layers while no batch is trained, as far as they are known.

        Args:
            image: (channels, H, W), whose maps are made; None: none are.
            forward: takes it as a batch of one through the model; None: the model itself.
        """
        convs = self._convs()
        wanted = {name: convs[name] for name in layers if name in convs}
        maps = {}
        if image is not None and wanted:
            maps = maps_of_image(self._model, image, wanted, forward)
        return self.details.between(wanted, convs, maps)

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
        costs = shared_out(seconds, self._due)
        if self._governor.update(step, costs, fixed + self.elsewhere * step):
            log.info(
                "Gathering costs %.1f %% of a step; gathered on every n-th batch only: %s",
                100 * self._governor.overhead,
                self._governor.every or "none",
            )

    def _stop(self) -> None:
        self._counting = self._meter.counting = False
        self._reader.end()
        self._listener.end()
        self._steps.end()

    def _send(self, grad_scale: float, tag: Any) -> Recording | None:
        begin = self._stopwatch.now()
        if "weight_norm" in self._due:
            for layer in self._layers:
                layer.weights.norm_now()
            self._stopwatch.add("weight_norm", begin)
            begin = self._stopwatch.now()
        if "signal_to_noise" in self._due:
            settle_signals(layer.map for layer in self._layers)
            self._stopwatch.add("signal_to_noise", begin)
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
