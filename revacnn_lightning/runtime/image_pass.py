"""Runs the network on an input that viewers show: `ImagePass` messages."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.protocol.inspections import (
    FilterlessModule,
    ImagePass,
    ImagePrediction,
)
from revacnn_lightning.protocol.requests import InspectImage
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.batch_input import channel_l1_norms, encode_downsampled_input
from revacnn_lightning.runtime.batch_nesting import leaves
from revacnn_lightning.runtime.image_predictions import Forward, LabelAndClassNames
from revacnn_lightning.runtime.input_images import DataAndViewerImages
from revacnn_lightning.runtime.layer_details import EMPTY
from revacnn_lightning.runtime.output_summary import OutputSummarizer, OutputSummary
from revacnn_lightning.runtime.step_images import (
    FindImageFlow,
    StepImageFlow,
    find_no_image_flow,
)
from revacnn_lightning.steering.tracing.forward_probe import eager_code
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.module_flow import ModuleFlow, ModuleFlowResult
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free

__all__ = ["ImagePassCollector"]

log = logging.getLogger(__name__)

SELECTION_SECONDS = 10.0  # how long a selection lasts unless it is renewed
PASS_SECONDS = 1.0  # minimum time between two passes
MAX_TIME_SHARE = 0.005  # of the time; if a pass takes longer, there are fewer
CHANGE_TIME_SHARE = 0.03  # of the time, while a viewer chooses or paints one image after another
RETRY_SECONDS = 30.0  # after a forward that has failed
NO_INPUT = (
    "This batch holds no image, signal or row of numbers. The option images=... says where its "
    "images are."
)
NO_FORWARD = (
    "The module cannot be run on an input alone. If its forward needs more, pass "
    "the option forward=...."
)
SEVERAL_NETWORKS = (
    "The training step uses several networks, so there is no output of this input alone."
)


class ImagePassCollector:
    """Runs the model on the input that viewers show, in evaluation mode and without side effects.

    All viewers share one input. While nobody shows it, nothing runs.

    Args:
        recorder: knows the layers.
        model: the network.
        images: the images that viewers can choose.
        forward: runs the model on a batch of one; None if this is not possible.
        class_names: the class names that the user has given; () uses those of the data.
        clock: returns monotonic seconds.
        find_image_flow: returns who reads images in a training step, where the model cannot be run
            on an input alone.
    """

    def __init__(
        self,
        recorder: Recorder,
        model: nn.Module,
        images: DataAndViewerImages,
        forward: Forward | None,
        class_names: Sequence[str] = (),
        clock: Callable[[], float] = time.perf_counter,
        find_image_flow: FindImageFlow = find_no_image_flow,
    ) -> None:
        self._recorder = recorder
        self._model = model
        self._images = images
        self._forward = forward
        self._summarizer = OutputSummarizer(class_names)
        self._clock = clock
        self._find_step_images = find_image_flow
        self._index: int | None = None
        self._chosen: Tensor | None = None
        self._truth = LabelAndClassNames()
        self._known_modules = -1  # structure version whose modules the viewer knows
        self._expires_at = self._due_at = -math.inf
        self._next_change = -math.inf  # when a pass of another image may run
        self._flow: ModuleFlowResult | None = None  # of this structure
        self._is_new_flow = False  # not sent yet
        self._shown_paused: tuple[Any, ...] = ()

    def select(self, request: InspectImage) -> None:
        """Run the network on an input for the next few seconds.

        Raises:
            EditRefusedError: there is no such image.
        """
        index = request.image_index
        if index != self._index:
            image = None if index is None else self._images.image(index)
            self._truth = LabelAndClassNames() if index is None else self._images.truth(index)
            self._index, self._chosen, self._due_at = index, image, self._next_change
        if request.known_modules != self._known_modules:
            self._known_modules, self._due_at = request.known_modules, self._next_change
        if request.known_modules < 0:  # of a script, which waits for the reply also in a pause
            self._shown_paused = ()
        if self._clock() >= self._expires_at:
            self._shown_paused, self._due_at = (), self._next_change
        self._expires_at = self._clock() + SELECTION_SECONDS

    def collect(self, context: BatchContext) -> list[ImagePass]:
        """Return the pass that is due, if any."""
        now = self._clock()
        if now >= self._expires_at:
            self._chosen, self._index, self._flow = None, None, None
            return []
        key = (context.step, context.version, self._index, self._known_modules)
        if now < self._due_at or (context.is_paused and key == self._shown_paused):
            return []
        self._shown_paused = key
        began = self._clock()
        message = self._pass(context)
        duration = self._clock() - began
        has_failed = self._forward is not None and message.prediction is None
        interval = RETRY_SECONDS if has_failed and message.image.size else PASS_SECONDS
        self._due_at = self._clock() + max(interval, duration / MAX_TIME_SHARE)
        self._next_change = self._clock() + duration / CHANGE_TIME_SHARE
        return [message]

    def reset(self) -> None:
        """Discard what was seen of the old network."""
        self._flow, self._due_at, self._shown_paused = None, self._next_change, ()

    # ------------------------------------------------------------------ a pass

    def _pass(self, context: BatchContext) -> ImagePass:
        values = self._chosen if self._index is not None else context.batch.get_input()
        summary = OutputSummary()
        if values is not None and self._index is None:
            self._images.remember_shown_input(values, context.batch.get_truth())
        if values is not None:
            summary = self._run(values, context)
        flow = self._flow or ModuleFlowResult()
        return ImagePass(
            run=context.run,
            version=context.version,
            step=context.step,
            image=EMPTY if values is None else encode_downsampled_input(values),
            image_index=self._index,
            input_shape=[] if values is None else list(values.shape),
            channel_sums=[] if values is None else channel_l1_norms(values),
            input_note=NO_INPUT if values is None else "",
            image_note=self._images.preparation_note(self._index),
            prediction=summary.prediction,
            class_count=summary.class_count,
            class_names_note=summary.names_note,
            loss=summary.loss,
            output_shapes=summary.shapes,
            readers=flow.input_readers,
            output_layers=[name for name in flow.layer_order if name in flow.output_sources],
            modules=self._modules(flow, context.version),
            generated=summary.generated,
            class_map_shape=list(summary.class_map_shape),
        )

    def _run(self, values: Tensor, context: BatchContext) -> OutputSummary:
        """Run the model or, where it cannot be run on the input alone, the training step."""
        step, version = context.step, context.version
        summary = OutputSummary(ImagePrediction(step, version, note=NO_FORWARD), has_failed=True)
        if self._forward is not None:
            summary = self._run_forward(self._forward, values, context)
        images = self._replay_step(values) if summary.has_failed else None
        if images is None:
            return summary
        self._is_new_flow = self._is_new_flow or self._flow is None
        self._flow = images.flow
        generated = (
            None
            if images.generated_image is None
            else encode_downsampled_input(images.generated_image)
        )
        prediction = ImagePrediction(step, version, note=SEVERAL_NETWORKS)
        return OutputSummary(prediction, generated=generated)

    def _run_forward(
        self, forward: Forward, values: Tensor, context: BatchContext
    ) -> OutputSummary:
        """Run the model; an exception of the user's code becomes a note."""
        step, version = context.step, context.version
        try:
            output = self._observe(forward, values)
            return self._summarizer.summarize(output, self._truth_of(context), context)
        except Exception as error:  # the user's forward may raise anything
            log.info("Cannot run the network on the shown input", exc_info=True)
            reason = f"The network cannot be run on this input alone: {type(error).__name__}."
            return OutputSummary(ImagePrediction(step, version, note=reason), has_failed=True)

    def _replay_step(self, values: Tensor) -> StepImageFlow | None:
        """Return who reads inputs like this one in the training step; None if that is not known."""
        if self._is_compiled():
            return None
        try:
            with side_effect_free(self._model, training=False), eager_code():
                return self._find_step_images(self._layers(), values.shape)
        except Exception:  # the user's modules may raise anything
            log.info("Cannot replay the training step for its images", exc_info=True)
            return None

    def _is_compiled(self) -> bool:
        return any("_orig_mod" in each._modules for each in self._model.modules())

    def _observe(self, forward: Forward, values: Tensor) -> Any:
        """Return the model's output; the first time, observe which modules the input passes."""
        batch = values.detach().clone().unsqueeze(0)
        with side_effect_free(self._model, training=False), eager_code():
            if self._flow is not None or self._is_compiled():
                return forward(batch)
            with ModuleFlow(self._model, self._layers()) as flow:
                output = forward(flow.mark_input(batch))
                self._flow = flow.finish(list(leaves(output)))
                self._is_new_flow = True
        return output

    def _layers(self) -> dict[str, nn.Module]:
        modules = dict(self._model.named_modules())
        return {name: modules[name] for name in self._recorder.layers if name in modules}

    def _truth_of(self, context: BatchContext) -> LabelAndClassNames:
        if self._index is not None:
            return self._truth
        return context.batch.get_truth()

    def _modules(self, flow: ModuleFlowResult, version: int) -> list[FilterlessModule] | None:
        if self._known_modules == version and not self._is_new_flow:
            return None
        self._is_new_flow = False
        return [
            FilterlessModule(
                one.name,
                one.module_type,
                flow.last_called(one.sources),
                list(one.input_shape[1:]),
                list(one.output_shape[1:]),
            )
            for one in flow.non_layer_calls
            if one.sources  # others process neither the input nor what is computed from it
        ]
