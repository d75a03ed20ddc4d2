"""Records the statistics of every filter, batch by batch.

Hooks reduce what they observe to one number per filter (`statistics`) within the batch. The sums
stay on the device; the end of the batch concatenates them and copies them to the host, once. Counts
(images, pixels, coefficients) and the loss scale are divided out there.

Activation maps come from forward hooks (`activation_hooks`), gradients from hooks on the weights
(`gradient_reader`), optimizer steps from hooks on all optimizers (`optimizer_hooks`). Copies,
pickles and checkpoints of the model contain nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.conv import device_of
from revacnn_lightning.telemetry.inspection.activation_samples import ActivationSampleRecorder
from revacnn_lightning.telemetry.inspection.layer_detail import (
    DETAIL_HZ,
    DetailRecorder,
    DetailSample,
)
from revacnn_lightning.telemetry.inspection.pooled_maps import PooledMapRecorder, PooledMaps
from revacnn_lightning.telemetry.inspection.responses import ResponseRecorder
from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.recording.activation_hooks import ActivationHooks
from revacnn_lightning.telemetry.recording.activation_meter import ActivationMeter
from revacnn_lightning.telemetry.recording.activation_sums import finalize_signal_to_noise
from revacnn_lightning.telemetry.recording.batch_recording import Recording, RecordingAssembler
from revacnn_lightning.telemetry.recording.batch_state import BatchState
from revacnn_lightning.telemetry.recording.compile_warning import CompileWarningFilter
from revacnn_lightning.telemetry.recording.discovery_result import sort_by_first_forward
from revacnn_lightning.telemetry.recording.gradient_reader import WeightGradientReader
from revacnn_lightning.telemetry.recording.grouped_weights import (
    WeightGrouper,
    measure_unknown_norms,
)
from revacnn_lightning.telemetry.recording.host_copy import HostCopy
from revacnn_lightning.telemetry.recording.known_batches import KnownBatches
from revacnn_lightning.telemetry.recording.observed_layer import (
    ObservedLayer,
    is_current,
    reset_selected_layers,
)
from revacnn_lightning.telemetry.recording.optimizer_hooks import OptimizerHooks
from revacnn_lightning.telemetry.recording.sampling_schedule import (
    CLASSES,
    TOP_IMAGES,
    SamplingSchedule,
)
from revacnn_lightning.telemetry.recording.slot_allocation import SlotAllocation
from revacnn_lightning.telemetry.recording.split_weights import ShardedWeightHooks
from revacnn_lightning.telemetry.recording.timing import Stopwatch
from revacnn_lightning.telemetry.recording.weight_sums import WeightSums
from revacnn_lightning.telemetry.statistics import (
    DEFAULT_STATISTICS,
    OPTIMIZER_STATISTICS,
    REQUESTED_STATISTICS,
    STATISTICS,
)

__all__ = ["Recorder"]


class Recorder:
    """Records statistics of every filter of the selected layers of a model.

    Args:
        model: observed between `attach` and `detach`; never modified.
        statistics: those of `STATISTICS`, or `REQUESTED_STATISTICS`, to record of all layers.
        max_overhead: share of a step that recording may cost. When it would cost more, expensive
            statistics are sampled on every 2nd, 4th, ... batch only; ``gradient`` and
            ``activation`` are always recorded. None: record everything on every batch.
        detail_hz: upper bound of samples per second of an inspected layer.
        selection: which layers are recorded.

    Attributes:
        max_overhead: see above.
        details: samples the layers that a viewer inspects. Of these layers,
            `INSPECTION_STATISTICS` are recorded as well.
        responses: records the filters that a viewer inspects.
        activation_samples: samples the activations of one layer that is examined.
        pooled_maps: pools the maps of layers whose classes a viewer inspects.
        external_overheads: other overhead of ours by its origin, as a share of a step, which counts
            towards ``max_overhead``.
        order_version: rises when `layers` change.

    Raises:
        ValueError: unknown statistics, or ``max_overhead`` is not in (0, 1].
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        statistics: Sequence[str] = DEFAULT_STATISTICS,
        max_overhead: float | None = None,
        detail_hz: float = DETAIL_HZ,
        selection: LayerSelection | None = None,
    ) -> None:
        unknown = set(statistics) - {*STATISTICS, *REQUESTED_STATISTICS}
        if unknown:
            raise ValueError(
                f"unknown statistics {sorted(unknown)}; choose from {list(STATISTICS)}"
            )
        self._batch = BatchState()
        self.details = DetailRecorder(self._batch, max_hz=detail_hz)
        self.responses = ResponseRecorder()
        self.max_overhead = max_overhead
        self._model = model
        self._selection = LayerSelection() if selection is None else selection
        self._layers: list[ObservedLayer] = []
        self._is_attached = False
        self._grad_scale = 1.0  # of the last batch; see `end_batch`
        self._stopwatch = Stopwatch()
        self._schedule = SamplingSchedule(statistics, max_overhead, self._batch, self._stopwatch)
        self.activation_samples = ActivationSampleRecorder()
        self.pooled_maps = PooledMapRecorder()
        self.external_overheads: dict[str, float] = {}
        meter = ActivationMeter(
            self._batch,
            self._stopwatch,
            self.details,
            self.responses,
            self.activation_samples,
            self.pooled_maps,
        )
        self._grouper = WeightGrouper(self._batch)
        self._gradients = WeightGradientReader(self._batch, self._stopwatch, self._grouper)
        self._activation_hooks = ActivationHooks(
            self._batch, meter, self._gradients, self._stopwatch
        )
        self._sharded_weight_hooks = ShardedWeightHooks(self._hook_split_weight)
        self._optimizer_hooks = OptimizerHooks(
            self._batch, self._stopwatch, self._gradients, self._grouper
        )
        self._assembler = RecordingAssembler()
        self._host_copy: HostCopy[Recording] = HostCopy()
        self.order_version = 0
        self._warning_filter = CompileWarningFilter()
        self._slots: SlotAllocation | None = None
        self._all_weights: list[WeightSums] = []
        self._known_batches = KnownBatches()
        self.update_structure()

    # ------------------------------------------------------------------ what is observed

    @property
    def layers(self) -> list[str]:
        """Names of the observed layers, in the order of their first forward."""
        return [layer.name for layer in self._layers]

    @property
    def widths(self) -> list[int]:
        """How many filters each of `layers` has."""
        return [layer.width for layer in self._layers]

    @property
    def is_current(self) -> bool:
        """Whether the observed layers are those of the model: its code may have replaced some."""
        return is_current(self._model, self._selection, self._layers)

    @property
    def activation_sources(self) -> dict[str, str]:
        """Layer -> name of the module whose output is its map; "" for the conv's own output."""
        names = {module: name for name, module in self._model.named_modules()}
        return {
            layer.name: "" if layer.source in (None, layer.conv) else names.get(layer.source, "")
            for layer in self._layers
        }

    @property
    def observed(self) -> dict[str, bool]:
        """Layer -> whether its activation maps are observed.

        False for a layer in a compiled region, where no hook runs, and for the output projection of
        an attention, whose forward does not run. Their weight statistics are recorded all the same.
        """
        return {layer.name: layer.is_observed for layer in self._layers}

    def modules_of_map(self, layer: str) -> tuple[nn.Module, nn.Module] | None:
        """Return the non-linearity whose output is a layer's map, and what it receives.

        That is the output of the first module: the layer itself, or a normalization. None if the
        map is not that of a non-linearity, or it receives the outputs of several modules.
        """
        found = next((each for each in self._layers if each.name == layer), None)
        if found is None or found.nonlinearity is None or found.source is not found.nonlinearity:
            return None
        preactivation_modules = list(found.preactivation_modules)
        return (
            (preactivation_modules[0], found.nonlinearity)
            if len(preactivation_modules) == 1
            else None
        )

    @property
    def statistics(self) -> list[str]:
        """Names of the statistics that are recorded of all layers."""
        return list(self._schedule.names)

    @property
    def defers_recordings(self) -> bool:
        """Whether recordings wait for `completed` or `flush` on a CPU, too, as on a GPU.

        The code that makes a recording is cold after a training step. To make several in a row
        takes half the time.
        """
        return self._host_copy.defers_results

    @defers_recordings.setter
    def defers_recordings(self, defers: bool) -> None:
        self._host_copy.defers_results = defers

    def request_statistics(self, names: Iterable[str]) -> None:
        """Record these statistics of all layers, too, until the next call."""
        self._schedule.request(frozenset(names))

    def require_statistics(self, names: Iterable[str]) -> None:
        """Record these statistics of all layers on every batch, until the next call.

        Whatever they cost: ``max_overhead`` limits what is recorded for viewers, and the run itself
        needs these.
        """
        self._schedule.require(frozenset(names))

    @property
    def overhead(self) -> float:
        """What recording costs a batch that is recorded, as a share of a step; 0 if unknown."""
        return self._schedule.overhead

    def attach(self) -> None:
        """Install the hooks. Does nothing if already attached."""
        if self._is_attached:
            return
        self._is_attached = True
        self._activation_hooks.attach()
        self._sharded_weight_hooks.attach(self._layers)
        self._optimizer_hooks.attach()
        self._warning_filter.install(self._model)

    def detach(self) -> None:
        """Remove everything from the model. May be called at any time, repeatedly."""
        self._stop_recording()
        self._is_attached = False
        self._activation_hooks.detach()
        self._sharded_weight_hooks.detach()
        self._optimizer_hooks.detach()
        self._warning_filter.remove()
        self._host_copy.clear()
        for layer in self._layers:
            self._gradients.unhook(layer.weights)
            layer.weights.reset()
            layer.begin_batch()
        self._slots = None
        self.details.close_all()

    def update_structure(self) -> None:
        """Adopt new, removed and resized convs after an edit. Call between batches.

        Pending recordings (see `end_batch`) belong to the previous structure: `flush` them first.
        """
        for layer in self._layers:
            self._gradients.unhook(layer.weights)
        layers = reset_selected_layers(self._model, self._selection, self._layers)
        self._layers = sort_by_first_forward(layers)
        self.order_version += 1
        self._slots = None
        self._activation_hooks.update_structure(layers)
        self._optimizer_hooks.update_structure(layers)
        if self._is_attached:
            self._activation_hooks.attach()
            self._sharded_weight_hooks.attach(layers)

    @contextmanager
    def hooks_suspended(self) -> Iterator[None]:
        """Leave the modules without hooks meanwhile. Call between batches."""
        self._sharded_weight_hooks.detach()
        try:
            yield
        finally:
            if self._is_attached:
                self._sharded_weight_hooks.attach(self._layers)

    # ------------------------------------------------------------------ a batch

    def begin_batch(self, *, loss_scale: Tensor | float = 1.0) -> None:
        """Record forwards, backwards and optimizer steps until `end_batch`.

        Args:
            loss_scale: what mixed precision multiplies the loss by.
        """
        if not self._is_attached:
            return
        batch = self._batch
        every_batch = self._schedule.needs_every_batch
        self._stopwatch.begin_batch(self._device(), every_batch=every_batch)
        batch.begin(self._stopwatch.now(), loss_scale)
        if self.details.layers:
            self.details.begin_batch(self._weights())
        inspected = self.details.layers
        others = {TOP_IMAGES: self.responses.filters, CLASSES: self.pooled_maps.layers}
        self._schedule.external_overhead = min(1.0, sum(self.external_overheads.values()))
        due = self._schedule.begin_batch(inspected, [name for name, some in others.items() if some])
        self.responses.begin_batch(TOP_IMAGES in due)
        self.pooled_maps.begin_batch(CLASSES in due)
        self.activation_samples.begin_batch()
        self._optimizer_hooks.begin_batch(due & OPTIMIZER_STATISTICS)
        self._prepare_slots()
        self._gradients.begin_batch(self._all_weights)
        self._activation_hooks.begin_batch()
        self._stopwatch.add("fixed", batch.start)

    def _prepare_slots(self) -> None:
        """Allocate slots if a layer has another weight than before, and hook new weights."""
        if self._slots is not None and self._slots.is_valid():
            self._gradients.hook_remaining()
            return
        self._slots = SlotAllocation(self._layers)
        self._all_weights = [layer.weights for layer in self._layers]
        self._gradients.update_structure(self._all_weights)
        self._grouper.use_buffer(self._slots.buffer)
        self._optimizer_hooks.update_structure(self._layers)
        self._activation_hooks.use_buffer(self._slots.buffer)
        self._known_batches.clear()

    def _hook_split_weight(self, weights: WeightSums) -> None:
        """Hook the weight that FSDP has put together for a forward of this batch."""
        if self._batch.is_recording:
            self._batch.guarded(self._gradients.hook)(weights)

    def end_batch(
        self, *, grad_scale: float = 1.0, loss: Tensor | None = None, metadata: Any = None
    ) -> Recording | None:
        """Stop recording and return the statistics.

        Args:
            grad_scale: what else the loss, and with it all gradients, was multiplied by:
                ``1 / accumulate_grad_batches``. It is divided out.
            loss: a scalar that is copied to the host with the statistics: `Recording.loss`.
            metadata: becomes `Recording.metadata`.

        Returns:
            The recording of this batch; on a GPU that of the previous batch, whose copy has
            completed meanwhile. None if there is none yet, or `defers_recordings`.

        Raises:
            Exception: a hook has failed in this batch.
        """
        if self._batch.failure is not None:
            self._stop_recording()
            raise self._batch.failure
        if not self._batch.is_recording:
            return None
        self._grad_scale = grad_scale
        with torch.no_grad():
            if self._optimizer_hooks.has_stepped:
                self._schedule.add_optimizer_statistics(self._optimizer_hooks.pending)
            recording = self._send(grad_scale, loss, metadata)
        self._stop_recording()
        self._stopwatch.add("step", self._batch.start)
        self._stopwatch.end_batch()
        self._schedule.end_batch()
        return recording

    def release_tensors(self) -> None:
        """Release the tensors of the last batch, above all its gradients, and what hooks cost.

        Call it when the next batches are not recorded. No weight has a hook of ours until one is,
        and all modules together have none, unless the network would be compiled again for it.
        """
        for layer in self._layers:
            self._gradients.suspend(layer.weights)
            layer.weights.begin_batch()
            layer.weights.effective.reset()
            layer.weights.norm = None  # no hook shows the steps that leave a weight's version
            layer.begin_batch()
        if not self._warning_filter.is_installed:
            self._activation_hooks.suspend()

    @property
    def has_pending(self) -> bool:
        """Whether recordings are still on their way to the host."""
        return self._host_copy.has_pending

    def completed(self) -> list[Recording]:
        """Return pending recordings whose copy has completed, oldest first, without waiting."""
        return self._host_copy.completed()

    def flush(self) -> list[Recording]:
        """Wait for the device and return all pending recordings, oldest first."""
        return self._host_copy.flush()

    def _stop_recording(self) -> None:
        self._batch.is_recording = False
        self._gradients.end_batch()
        self._activation_hooks.end_batch()

    def _send(self, grad_scale: float, loss: Tensor | None, metadata: Any) -> Recording | None:
        """Finish the sums and start to copy them to the host."""
        self._batch.sum_deferred()
        self._gradients.check_missed_gradients()
        start = self._stopwatch.now()
        if "weight_norm" in self._batch.statistics:
            measure_unknown_norms(self._grouper, self._grouper.group(self._all_weights))
            self._stopwatch.add("weight_norm", start)
            start = self._stopwatch.now()
        self._evaluate()
        flat, finish = self._assembler.assemble(
            self._schedule.intervals,
            grad_scale=grad_scale,
            loss_scale=self._batch.loss_scale,
            loss=loss,
            metadata=metadata,
        )
        recording = self._host_copy.send(flat, finish)
        self._stopwatch.add("fixed", start)
        return recording

    def _evaluate(self) -> None:
        """Evaluate what the batch has done, unless it has done the same as a known one."""
        batch = self._batch
        names = self._schedule.names
        sampled = (*names, batch.statistics, batch.inspected)
        is_known = batch.is_regular and self._activation_hooks.is_settled
        for name, sums in self._activation_hooks.per_image_sums.items():
            start = self._stopwatch.now()
            sums.finalize()
            self._stopwatch.add(name, start)
        layout = is_known and self._known_batches.find_layout(
            sampled, batch.events, self._all_weights
        )
        if layout:
            self._assembler.layout = layout
            return
        for layer in self._layers:
            batch.prepare_sums(layer)
        previous, self._layers = self._layers, self._activation_hooks.evaluate_batch(self._layers)
        self.order_version += self._layers != previous
        if "signal_to_noise" in batch.statistics:
            start = self._stopwatch.now()
            finalize_signal_to_noise([layer.map_sums for layer in self._layers])
            self._stopwatch.add("signal_to_noise", start)
        assert self._slots is not None
        buffer = self._slots.buffer
        if not is_known:
            self._known_batches.clear()  # the next batches may have maps of other shapes
        is_known &= self._assembler.update_layout(names, self._layers, buffer, batch)
        if is_known and self._assembler.layout is not None:
            self._known_batches.keep(
                sampled, batch.events, self._all_weights, self._assembler.layout
            )

    # ------------------------------------------------------------------ inspected layers

    def collect_details(self) -> list[DetailSample]:
        """Return the samples that are due of the batch that `end_batch` has ended."""
        if not self.details.layers:
            return []
        scale = self._grad_scale * self._batch.loss_scale
        return self.details.end_batch(self._model, self._weights(), scale)

    def collect_details_while_paused(
        self,
        layers: Iterable[str],
        image: Tensor | None = None,
        forward: Callable[[Tensor], Any] | None = None,
    ) -> list[DetailSample]:
        """Return samples of these open layers while no batch is trained.

        Args:
            layers: their names.
            image: (channels, H, W), whose maps are computed; None: no maps.
            forward: passes a batch of one image through the model; by default the model itself.
        """
        weights = self._weights()
        selected = {name: weights[name] for name in layers if name in weights}
        return self.details.sample_while_paused(self._model, selected, image, forward)

    def pop_pooled_maps(self) -> dict[str, PooledMaps]:
        """Return the pooled maps of the batch that `end_batch` has ended, by layer."""
        return self.pooled_maps.pop_maps(self._grad_scale * self._batch.loss_scale)

    def current_weight(self, layer: str) -> Tensor | None:
        """Return the weight of a conv, as it is or as the last recorded forward has computed it.

        None before the first recorded forward of a conv that computes its weight in each forward.
        """
        return self._weights()[layer].current_weight()

    def input_shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of the map that a linear layer reads flattened; () if it is no map."""
        return next((each.input_shape for each in self._layers if each.name == layer), ())

    def current_gradient(self, layer: str) -> Tensor | None:
        """Return the gradient of `current_weight`, as the last batch has left it; None without."""
        return self._weights()[layer].current_gradient()

    def _weights(self) -> dict[str, WeightSums]:
        return {layer.name: layer.weights for layer in self._layers}

    def _device(self) -> torch.device:
        if self._slots is not None:
            return self._slots.buffer.values.device
        return device_of(self._layers[0].conv) if self._layers else torch.device("cpu")
