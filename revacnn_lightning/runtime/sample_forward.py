"""Forwards of a LightningModule on a few samples of a batch.

Steering traces and verifies with them. Two samples suffice: batch norm in train mode needs two.
They never run ``training_step``, whose effects belong to the training. What only training_step
shows, such as auxiliary heads, losses on intermediate layers or several networks, is recorded in a
real step (`step_recorder`) and replayed (`recorded_step`).
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.runtime.batch_images import Images, ImagesOfBatch, find_images
from revacnn_lightning.runtime.batch_samples import batch_size, first_samples, is_batch_empty
from revacnn_lightning.runtime.cuda_graphs import GraphReplayDetector, graphed_module_edit_refusal
from revacnn_lightning.runtime.recorded_step import TRANSFORMED, RecordedStep
from revacnn_lightning.runtime.step_images import StepImageFlow, trace_layers_reading_images
from revacnn_lightning.runtime.step_recorder import StepRecorder
from revacnn_lightning.runtime.step_recording import AddResult, recording_step
from revacnn_lightning.steering.tracing.forward_probe import (
    ForwardFailedError,
    ForwardProbe,
    run_forward,
)
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free

__all__ = [
    "FORWARD_HINT",
    "SAMPLES",
    "SampleProbeFactory",
    "UserForward",
    "accepts_images",
]

log = logging.getLogger(__name__)

SAMPLES = 2

UserForward = Callable[[Any, Any], Any]  # (module, batch) -> output

FORWARD_HINT = (
    "If the network must be run in another way, pass the option forward=lambda module, batch: "
    "module(batch[0]), with the call that fits"
)
USER_HINT = (
    "Correct the option forward=...: it is called with the module and two samples of a batch"
)


class SampleProbeFactory:
    """Makes probes, whose forwards run a module on samples as its training step does.

    Args:
        module: a LightningModule.
        make_context: makes the context of a forward, such as autocast.
        user_forward: ``(module, batch) -> output``, to be used instead of all others.
        images: the user's function that returns the images of a batch. None searches for them.
        refusal: why this process must not run the module between two batches; "" if it may.
    """

    def __init__(
        self,
        module: Any,
        make_context: Callable[[], Any] = nullcontext,
        user_forward: UserForward | None = None,
        images: ImagesOfBatch | None = None,
        refusal: str = "",
    ) -> None:
        self._module = module
        self._make_context = make_context
        self._user_forward = user_forward
        self._refusal = refusal
        self._find_images = functools.partial(find_images, get_images=images)
        self._copy = functools.partial(first_samples, count=SAMPLES, get_images=images)
        self._batch_size = functools.partial(batch_size, get_images=images)
        self._holds_no_sample = functools.partial(is_batch_empty, get_images=images)
        self._keeps_whole_batch = False  # in recorded steps
        self._pending: RecordedStep | None = None  # recorded, not prepared yet
        self._step: RecordedStep | None = None
        self._pending_images: Images | None = None  # of the batch of the pending step
        self._version = -1  # structure version of the last recorded step
        self._images_failure = ""  # why forward cannot be run on images alone
        self._step_failure = ""  # why no step can be recorded
        self._changes: GraphReplayDetector | None = None  # by the step that is being recorded
        self._replayed_graph = ""  # why the network cannot be edited, as the last step shows

    @property
    def is_ready(self) -> bool:
        """Whether `make_probe` knows how training uses the network."""
        return self._step is not None or not self._can_record()

    def is_batch_empty(self, batch: Any) -> bool:
        """Return whether a batch holds no sample: a step on it does not show how layers depend."""
        try:
            return self._holds_no_sample(batch)
        except EditRefusedError:  # of the user's function: a request is refused for the same reason
            return False

    def needs_step(self, version: int) -> bool:
        """Return whether to record the next training step, at this structure version."""
        return self._can_record() and (self._step is None or self._version != version)

    def _can_record(self) -> bool:
        # A training_step among the attributes of the instance is compiled, and must stay so.
        is_compiled = "training_step" in vars(self._module)
        is_needed = self._user_forward is None and not self._refusal
        return is_needed and not is_compiled and not self._step_failure

    # ---------------------------------------------------------------- recording

    def record(self, batch: Any, version: int, run_step: Callable[[], Any]) -> Any:
        """Run the real training step, record it, and return its output."""
        with self.recording(batch, version) as add_result:
            output = run_step()
            add_result(output)
        return output

    def recording(self, batch: Any, version: int) -> AbstractContextManager[AddResult]:
        """Record the training step that runs inside; see `recording_step`."""
        if self.is_batch_empty(batch):
            return nullcontext(lambda _: None)  # the next one shows it

        def finish(step: RecordedStep | None, failure: str) -> None:
            self._pending, self._version = step, version
            self._step_failure = failure or self._step_failure
            changes, self._changes = self._changes, None
            if step is not None and changes is not None:
                self._replayed_graph = "" if step.runs_modules else changes.refusal()

        return recording_step(lambda: self._make_recorder(batch), finish)

    def _make_recorder(self, batch: Any) -> StepRecorder:
        self._changes = GraphReplayDetector(self._module)
        try:
            images = self._find_images(batch)
            self._pending_images = self._find_images(self._copy(batch))
        except EditRefusedError:  # of the user's function: a request is refused for the same reason
            images = self._pending_images = None
        if images is not None and not isinstance(images, Tensor):
            return StepRecorder(self._module, 0, len(images))  # a list: no tensor is a batch
        size = batch_size(batch) if images is None else len(images)
        return StepRecorder(self._module, size, size if self._keeps_whole_batch else SAMPLES)

    def finish_recording(self) -> None:
        """Prepare the step that was recorded, if one was. Call it between batches."""
        step, self._pending = self._pending, None
        if step is None:
            return
        try:
            with side_effect_free(self._module):
                run_forward(lambda: self._in_context(lambda: step.prepare(self._module)))
        except ForwardFailedError as error:
            log.info("The recorded training step cannot be replayed", exc_info=True)
            self._step, self._step_failure = None, str(error)
            return
        if step.failure and step.samples < step.batch_size:
            self._keeps_whole_batch, self._version = True, -1  # record the next step in full
            return
        self._step = step
        self._images_failure = self._try_images(step)

    def _try_images(self, step: RecordedStep) -> str:
        """Return why the module's forward cannot be run on images alone; "" if it can."""
        if any(call.is_of_model and not call.has_single_tensor for call in step.calls):
            return "training_step calls it with other arguments"
        images, self._pending_images = self._pending_images, None
        if images is None or not accepts_images(self._module):
            return "it does not accept images alone"
        try:
            with side_effect_free(self._module):
                run_forward(lambda: self._in_context(lambda: self._module(images)))
        except ForwardFailedError as error:
            log.info("The module's forward is not run on images alone: %s", error)
            return str(error)
        return ""

    # ---------------------------------------------------------------- forwards

    def make_probe(self, batch: Any) -> ForwardProbe:
        """Return a probe of forwards on copies of two samples of ``batch``.

        The forward on images alone comes first, then the recorded step.

        Raises:
            EditRefusedError: there is no way to run the module without side effects.
        """
        if self._refusal:
            raise EditRefusedError(self._refusal)
        if not self.is_ready:
            raise EditRefusedError(
                "how training_step uses the network is known only after the next batch; train one, "
                "then repeat the request"
            )
        graphs = self._replayed_graph or graphed_module_edit_refusal(self._module)
        if graphs:
            raise EditRefusedError(graphs)
        if (self._user_forward is not None or self._step is None) and self.is_batch_empty(batch):
            raise EditRefusedError("this batch holds no sample; repeat the request with the next")
        module, small = self._module, self._copy(batch)
        samples = max(1, min(SAMPLES, self._batch_size(batch)))
        user_forward = self._user_forward
        steps: list[Callable[[], Any]]
        if user_forward is not None:
            return self._probe(
                [lambda: user_forward(module, self._copy(small))], samples, USER_HINT
            )
        steps = []
        images = self._find_images(small)
        has_images = images is not None and len(images) > 0 and accepts_images(module)
        if has_images and not self._images_failure:
            steps.append(lambda: module(self._find_images(self._copy(small))))
        step = self._step
        if step is not None and step.runs_modules:
            steps.append(lambda: step.replay(module))
            samples = samples if len(steps) > 1 else step.samples
        if not steps:
            raise EditRefusedError(f"{self._why_unknown()}. {FORWARD_HINT}")
        return self._probe(steps, samples, FORWARD_HINT)

    def trace_layers_reading_images(
        self, layers: Mapping[str, nn.Module], shape: Sequence[int]
    ) -> StepImageFlow | None:
        """Replay the recorded step, and return who reads images of this shape in it, if known.

        Call it inside `side_effect_free`. It raises what the called modules raise.
        """
        step = self._step
        if step is None or not step.runs_modules:
            return None
        with self._make_context():
            return trace_layers_reading_images(step, self._module, layers, shape)

    def _why_unknown(self) -> str:
        if self._step_failure:
            return f"cannot record training_step: {self._step_failure}"
        if self._step is not None and self._step.transforms_modules:
            return (
                f"cannot run the network on a batch: its modules {TRANSFORMED}, and its forward "
                "does not accept the images alone"
            )
        return (
            "cannot run the network on a batch: training_step calls none of its modules, and its "
            "forward does not accept the images alone"
        )

    def _probe(self, steps: list[Callable[[], Any]], samples: int, hint: str) -> ForwardProbe:
        forwards = [functools.partial(self._in_context, step) for step in steps]
        return ForwardProbe(forwards, samples, hint)

    def _in_context(self, step: Callable[[], Any]) -> Any:
        with self._make_context():
            return step()


def accepts_images(module: nn.Module) -> bool:
    """Return whether the module has a forward of its own that accepts the images alone."""
    if type(module).forward.__module__.startswith(("pytorch_lightning.", "lightning.")):
        return False  # the empty forward of the LightningModule base class
    try:
        inspect.signature(module.forward).bind(object())
    except TypeError:
        return False
    return True
