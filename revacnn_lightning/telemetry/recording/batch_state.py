"""The batch under way, shared by everything that records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from revacnn_lightning.telemetry.recording.map_reducer import MapReducer
    from revacnn_lightning.telemetry.recording.observed_layer import ObservedLayer

__all__ = ["BatchState"]


@dataclass(eq=False)
class BatchState:
    """The state of the batch that is being recorded. The recorder writes it, the hooks read it.

    A specialized hook (`specialized_hooks`) adds an event to ``events`` and does nothing else but
    its reduction. A regular batch with the events of an earlier one has its divisors, too, so
    that nothing has to be computed per layer. Any other hook makes the batch irregular.

    Attributes:
        is_recording: whether forwards, backwards and optimizer steps count. Hooks return
            immediately otherwise, and gradients that arrive after the batch are ignored.
        statistics: those sampled on this batch, of all or of some layers.
        of_all_layers: those sampled of layers that are not inspected.
        inspected: names of the layers that a viewer inspects.
        loss_scale: what mixed precision multiplies the loss by.
        start: when the batch began, on the stopwatch.
        failure: the first error of a hook in this batch, which has ended its recording.
        events: what specialized hooks and groups have done, in this order.
        is_regular: whether that is all that has happened.
        must_specialize: whether a specialized hook did not find what it was specialized for.
        reducers: the reducers, by layer, that the hooks of this batch are specialized for.
        sum_deferred: sums the maps and gradients of the batch that wait to be summed together.
        sum_deferred_maps: sums the maps alone, when the forward is over.
        touched: layers whose sums are those of this batch. What the sums of another layer hold is
            of an earlier batch.
    """

    is_recording: bool = False
    statistics: frozenset[str] = frozenset()
    of_all_layers: frozenset[str] = frozenset()
    inspected: frozenset[str] = frozenset()
    loss_scale: Tensor | float = 1.0
    start: Any = 0.0
    failure: Exception | None = None
    events: list[Any] = field(default_factory=list)
    is_regular: bool = True
    must_specialize: bool = False
    reducers: Mapping[ObservedLayer, MapReducer] = field(default_factory=dict)
    sum_deferred: Callable[[], None] = lambda: None
    sum_deferred_maps: Callable[[], None] = lambda: None
    touched: set[ObservedLayer] = field(default_factory=set)

    def begin(self, start: Any, loss_scale: Tensor | float) -> None:
        """Start to record. A loss scale on a device is copied there, without synchronization."""
        self.is_recording, self.failure = True, None
        self.start = start
        self.events.clear()
        self.touched.clear()
        self.is_regular, self.must_specialize = True, False
        if isinstance(loss_scale, Tensor):  # mixed precision updates it within the batch
            loss_scale = loss_scale.detach().clone()
        self.loss_scale = loss_scale

    def prepare_sums(self, layer: ObservedLayer) -> None:
        """Prepare the sums of a layer for an addition that is not an event."""
        self.is_regular = False
        if layer not in self.touched:
            self.sum_deferred()
        if layer in self.touched:
            return
        self.touched.add(layer)
        layer.begin_batch()
        reducer = self.reducers.get(layer)
        if reducer is not None:
            reducer.update_sums(self.events)

    def sampled_statistics(self, layer: str) -> frozenset[str]:
        """Return the statistics sampled of a layer."""
        return self.statistics if layer in self.inspected else self.of_all_layers

    def end_recording(self, error: Exception) -> None:
        """End the recording of the batch because of an error in this package. Training goes on."""
        self.is_recording = False
        self.failure = self.failure or error

    def guarded(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return a hook whose errors end the recording of the batch, but not the user's step.

        `Recorder.end_batch` raises them. Outside a recorded batch, the hook does nothing.
        """

        def call(*args: Any) -> Any:
            if not self.is_recording:
                return None
            try:
                return hook(*args)
            except Exception as error:  # noqa: BLE001 - a bug here must not stop the training
                self.end_recording(error)
                return None

        return call
