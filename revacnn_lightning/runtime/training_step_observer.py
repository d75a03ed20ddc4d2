"""Observes how training steps use the network, to repeat their forwards and losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from revacnn_lightning.runtime.batch import Progress, TrainingBatch
from revacnn_lightning.runtime.batch_classes import BatchClasses
from revacnn_lightning.runtime.batch_reader import BatchReader, make_image_forward
from revacnn_lightning.runtime.image_predictions import Forward
from revacnn_lightning.runtime.loss_replay import LossReplay
from revacnn_lightning.runtime.nested import tensors_in
from revacnn_lightning.runtime.run_options import RunOptions
from revacnn_lightning.runtime.sample_forward import SampleProbeFactory
from revacnn_lightning.runtime.split_forwards import SplitParametersObserver
from revacnn_lightning.runtime.step_images import FindImageFlow, find_no_image_flow
from revacnn_lightning.runtime.step_recording import AddResult
from revacnn_lightning.steering import Editor

__all__ = ["TrainingStepObserver"]


class TrainingStepObserver:
    """Makes the `TrainingBatch` of each batch, and records training steps when they are needed.

    Args:
        model: the module whose training steps are recorded.
        editor: edits it.
        options: the options of the run.
        make_context: makes the context of a forward, such as autocast.
        get_class_names: returns the names of the classes as the data have them.
        refusal: why this process must not run the module between two batches; "" if it may.
        prepare: returns a batch as the module gets it, such as on its device; called when needed.
        is_split: whether the parameters are split among the processes of the training.

    Attributes:
        replay: computes the loss of a recorded step.
        forward: runs the model on a batch of one image; None if this is not possible.
        find_image_flow: returns who reads images in a training step.
    """

    def __init__(
        self,
        model: nn.Module,
        editor: Editor,
        options: RunOptions,
        make_context: Callable[[], Any] = nullcontext,
        get_class_names: Callable[[], Sequence[str]] = tuple,
        refusal: str = "",
        prepare: Callable[[Any], Any] = lambda batch: batch,
        *,
        is_split: bool = False,
    ) -> None:
        self._editor = editor
        self._get_class_names = get_class_names
        self._prepare = prepare
        forward, images = options.forward, options.images
        self._batch_reader = BatchReader(images)
        self._samples: SampleProbeFactory | SplitParametersObserver
        self.find_image_flow: FindImageFlow = find_no_image_flow
        if is_split:
            self._samples = SplitParametersObserver(model)
        else:
            samples = SampleProbeFactory(model, make_context, forward, images, refusal)
            self._samples, self.find_image_flow = samples, samples.trace_layers_reading_images
        self._batch: Any = None  # of this step
        self.replay = LossReplay(model, make_context, images, refusal)
        self.forward: Forward | None = None
        if not refusal:
            self.forward = make_image_forward(model, lambda: prepare(self._batch), forward, images)

    def begin_batch(
        self,
        batch: Any,
        progress: Progress,
        *,
        can_edit: bool,
        edit_refusal: str = "",
        can_freeze: bool = False,
        loss_scale: Tensor | float = 1.0,
    ) -> TrainingBatch:
        """Prepare the step that was recorded, if one was, and describe the next batch.

        Args:
            batch: what the step gets.
            progress: where training is.
            can_edit: False in the middle of an accumulation window.
            edit_refusal: why this training cannot be edited; "" if it can.
            can_freeze: whether filters can be frozen, and learning rates scaled, all the same.
            loss_scale: the factor by which mixed precision multiplies the loss.
        """
        self._samples.finish_recording()
        self.replay.finish_recording()
        self._batch = batch
        prepare, reader = self._prepare, self._batch_reader
        return TrainingBatch(
            progress=progress,
            make_probe=lambda: self._samples.make_probe(prepare(batch)),
            is_probe_ready=lambda: self._samples.is_ready,
            is_loss_ready=lambda: self.replay.is_ready(self._editor.version),
            get_images=lambda: reader.find_images(prepare(batch)),
            get_input=lambda: reader.first_input(prepare(batch)),
            get_truth=lambda: reader.first_truth(batch, self._get_class_names()),
            get_classes=lambda: self.classes_of(batch),
            get_nbytes=lambda: sum(each.nbytes for each in tensors_in(batch)),
            can_edit=can_edit,
            edit_refusal=edit_refusal,
            can_freeze=can_freeze,
            loss_scale=loss_scale,
        )

    def classes_of(self, batch: Any) -> BatchClasses:
        """Return the classes of the samples of a batch, as far as the batch says."""
        return self._batch_reader.find_classes(batch, self._get_class_names())

    def end_batch(self) -> None:
        """Release the batch."""
        self._batch = None

    def recording_if_needed(self, step: int) -> AbstractContextManager[AddResult] | None:
        """Return a context that records the training step of batch ``step``; None to record none.

        Call it only while somebody needs to know how training uses the network.
        """
        version = self._editor.version
        if self._samples.needs_step(version):
            return self._samples.recording(self._prepare(self._batch), version)
        if self.replay.needs_step(version, step):
            return self.replay.recording(self._prepare(self._batch), version, step)
        return None
