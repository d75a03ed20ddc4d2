"""The loss of the training on a few images, computed again from a recorded step.

Only training_step knows the loss, and it is never run for this. One real step is recorded while it
runs (`step_recorder`), with the calls that lead to the tensor that it returned as the loss: modules
of the network, and torch functions such as ``cross_entropy``. Replaying these calls gives the loss
of the same images with the present weights, whatever the loss is. The replay runs in evaluation
mode: batch norms use their running statistics, and dropout is off. So it is also in a module that
returns its losses in training mode only, such as a detector of torchvision; the rest of it runs in
that mode then, and draws the same random numbers each time.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch_images import ImagesOfBatch, find_images
from revacnn_lightning.runtime.batch_samples import batch_size
from revacnn_lightning.runtime.differentiation import Captured, inputs_and_output_gradients
from revacnn_lightning.runtime.recorded_call import RecordedCall
from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.runtime.replay_groups import GROUP, MIN_GROUPS, ReplayGroup, group_images
from revacnn_lightning.runtime.step_recorder import StepRecorder
from revacnn_lightning.runtime.step_recording import AddResult, recording_step
from revacnn_lightning.steering.tracing.forward_probe import ForwardFailedError, run_forward
from revacnn_lightning.telemetry.inspection.object_state import ObjectState
from revacnn_lightning.telemetry.inspection.side_effects import (
    seed_torch_random_states,
    side_effect_free,
)

__all__ = [
    "GROUP",
    "IMAGES",
    "NOT_YET",
    "NO_LOSS",
    "LossReplay",
    "drop_calls_not_leading_to_loss",
    "why_not_recordable",
    "why_not_replayable",
]

log = logging.getLogger(__name__)

IMAGES = 256  # that are kept, of one batch or of several
MAX_ELEMENTS = 1 << 22  # of all kept images: 16 MB in single precision
MAX_STEPS = 8  # that the images come from
FRESH_BATCHES = 200  # after which another step is recorded
WANTED_SECONDS = 20.0  # how long a request keeps the recording up to date

NO_LOSS = "training_step returns no loss that could be computed again"
COMPILED = "part of the network is compiled, so its loss is not computed between batches"
NOT_YET = "the loss is known after the next batch"


class LossReplay:
    """Records a training step of a module now and then, and computes its loss again.

    Args:
        module: a LightningModule, or any module.
        make_context: makes the context of a forward, such as autocast.
        images: the user's function that returns the images of a batch. None searches for them.
        refusal: why this process must not run the module between two batches; "" if it may.
        clock: returns monotonic seconds.

    Attributes:
        note: why there is no loss; "" if there is.
        step: the newest batch whose images are used.
    """

    def __init__(
        self,
        module: nn.Module,
        make_context: Callable[[], Any] = nullcontext,
        images: ImagesOfBatch | None = None,
        refusal: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._module = module
        self._make_context = make_context
        self._images = images
        self._clock = clock
        self._groups: list[ReplayGroup] = []  # newest batch first
        self._pending: RecordedStep | None = None
        self._version = -1  # structure version of the recorded step
        self._wanted_until = 0.0
        self._limit = IMAGES  # images to keep
        self._refusal = refusal or why_not_recordable(module)
        self.note = self._refusal or NOT_YET
        self.step = -1

    # ---------------------------------------------------------------- recording

    def request_recording(self) -> None:
        """Keep a step recorded for the next seconds."""
        self._wanted_until = self._clock() + WANTED_SECONDS

    def is_ready(self, version: int) -> bool:
        """Return whether the loss of this structure is known, or cannot be."""
        return bool(self._refusal) or self._version == version

    def needs_step(self, version: int, step: int) -> bool:
        """Return whether to record the training step of batch ``step``."""
        if self._refusal or self._clock() >= self._wanted_until:
            return False
        if self._version != version or step - self.step >= FRESH_BATCHES:
            return True
        steps = {id(group.step) for group in self._groups}
        return 0 < self.image_count < self._limit and len(steps) < MAX_STEPS and step > self.step

    def record(self, batch: Any, version: int, step: int, run_step: Callable[[], Any]) -> Any:
        """Run the real training step, record it, and return its output."""
        with self.recording(batch, version, step) as add_result:
            output = run_step()
            add_result(output)
        return output

    def recording(self, batch: Any, version: int, step: int) -> AbstractContextManager[AddResult]:
        """Record the training step that runs inside; see `recording_step`."""

        def finish(recorded: RecordedStep | None, failure: str) -> None:
            self._version, self.step, self._pending = version, step, recorded
            if failure:
                self._refusal = self.note = failure

        return recording_step(lambda: self._make_recorder(batch), finish)

    def _make_recorder(self, batch: Any) -> StepRecorder:
        try:
            found = find_images(batch, self._images)
        except EditRefusedError:  # of the user's function
            found = None
        if found is not None and not isinstance(found, Tensor):
            return self._recorder_of_list(found)
        size = batch_size(batch) if found is None else len(found)
        each = 1 if found is None else max(1, found[:1].numel())
        self._limit = max(2, min(IMAGES, MAX_ELEMENTS // each))
        return StepRecorder(self._module, size, min(self._limit, size or self._limit))

    def _recorder_of_list(self, images: Sequence[Tensor]) -> StepRecorder:
        """Return the recorder of a step on a list of images: no tensor is a batch."""
        count = len(images)
        recorder = StepRecorder(self._module, 0, count)
        recorder.step.images = count
        each = max((image.numel() for image in images), default=0)
        limit = min(IMAGES, MAX_ELEMENTS // max(1, each))
        self._limit = max(count + 1, limit)  # two steps at least, so that there is a spread
        return recorder

    def finish_recording(self) -> None:
        """Prepare the step that was recorded, if one was. Call it between batches."""
        step, self._pending = self._pending, None
        if step is None:
            return
        note = drop_calls_not_leading_to_loss(step)
        groups = [] if note else group_images(step)
        if groups:
            step.constants = groups[0].constants
            try:
                with side_effect_free(self._module, training=False):
                    run_forward(functools.partial(self._prepare, step))
                note = why_not_replayable(step)
            except ForwardFailedError as error:
                log.info("The recorded loss cannot be replayed", exc_info=True)
                note = str(error)
        if note:
            self._groups, self.note = [], note
            return
        known = [one for one in self._groups if one.version == self._version]
        for one in groups:
            one.version = self._version
        self.note, self._groups = "", [*groups, *known]
        while self._has_too_many():
            self._groups.pop()

    def _has_too_many(self) -> bool:
        """Return whether the oldest group is not needed any more."""
        oldest = self._groups[-1]
        steps = {id(group.step) for group in self._groups}
        return len(steps) > MAX_STEPS or 0 < oldest.image_count <= self.image_count - self._limit

    def release(self) -> None:
        """Release the images, until the next step is recorded."""
        self._groups, self._version = [], -1
        self.note = self._refusal or NOT_YET

    # ---------------------------------------------------------------- replaying

    @property
    def group_count(self) -> int:
        """How many groups of images there are; 0 while there is no loss."""
        return len(self._groups)

    @property
    def image_count(self) -> int:
        """How many images all groups have; 0 if that is unknown."""
        return self.image_count_of(self.group_count)

    def image_count_of(self, group_count: int) -> int:
        """Return how many images the first groups have; 0 if that is unknown."""
        return sum(group.image_count for group in self._groups[:group_count])

    def losses(
        self,
        group_count: int | None = None,
        objects: ObjectState | None = None,
        *,
        seconds: float = math.inf,
    ) -> list[float]:
        """Return the loss of each group of images, newest first, with the present weights.

        Nothing that the training depends on changes.

        Args:
            group_count: the number of groups; None for all.
            objects: the objects of the module, if they are known; see `side_effect_free`.
            seconds: after which no further group is computed, if there are `MIN_GROUPS`.

        Raises:
            ForwardFailedError: the replay raised.
        """
        losses: list[float] = []
        if not self._groups:
            return losses
        ends_at = self._clock() + seconds
        with side_effect_free(self._module, training=False, objects=objects):
            for group in self._groups[:group_count]:
                # What is random is the same in each replay.
                seed_torch_random_states(0, self._module.parameters())
                losses.append(float(run_forward(functools.partial(self._loss, group))))
                if len(losses) >= MIN_GROUPS and self._clock() > ends_at:
                    break
        return losses

    def inputs_and_output_gradients(
        self, modules: Mapping[str, nn.Module], group_count: int
    ) -> list[Captured]:
        """Return `differentiation.inputs_and_output_gradients` of the first groups of images.

        Raises:
            ForwardFailedError: the replay raised.
        """
        with side_effect_free(self._module, training=False):
            found = []
            for group in self._groups[:group_count]:
                group.step.constants = group.constants
                seed_torch_random_states(0, self._module.parameters())
                run = functools.partial(group.step.replay_loss_with_graph, self._module)
                with self._make_context():
                    found.append(
                        run_forward(functools.partial(inputs_and_output_gradients, modules, run))
                    )
        return found

    def _loss(self, group: ReplayGroup) -> Tensor:
        group.step.constants = group.constants
        with self._make_context():
            return group.step.replay_loss(self._module)

    def _prepare(self, step: RecordedStep) -> None:
        with self._make_context():
            step.prepare(self._module)


def why_not_recordable(module: nn.Module) -> str:
    """Return why no training step of a module can be recorded; "" if it can."""
    if "training_step" in vars(module) or any("_orig_mod" in m._modules for m in module.modules()):
        return COMPILED
    return ""


def drop_calls_not_leading_to_loss(step: RecordedStep) -> str:
    """Drop all calls of a step that do not lead to its loss; return why it has no loss, or ""."""
    if step.loss is None:
        return NO_LOSS
    needed, calls = {step.loss}, []
    for call in reversed(step.calls):
        written = {index for index in (*call.outputs, *call.changed) if index is not None}
        if written & needed:
            calls.append(call)
            needed.update(call.inputs)
    step.calls = calls[::-1]
    if not any(call.has_modules for call in calls):
        return NO_LOSS
    step.constants = {i: value for i, value in step.constants.items() if i in needed}
    return step.unseen and f"tensors of the network {step.unseen}"


def why_not_replayable(step: RecordedStep) -> str:
    """Return why the loss of a recorded step cannot be computed again; "" if it can."""
    opaque: RecordedCall | None = next((call for call in step.calls if call.is_opaque), None)
    return "" if opaque is None else f"the loss cannot be computed again: {opaque.failure}"
