"""Trains the unedited and the edited network on the same recorded steps, beside the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.edit_requests import SetHyperparameter
from revacnn_lightning.protocol.trial_requests import TrialEdit
from revacnn_lightning.runtime.trial.deferred_signals import DeferredSignals
from revacnn_lightning.runtime.trial.random_state import RandomState
from revacnn_lightning.runtime.trial.training_values import (
    TrainedTensors,
    TrainingValues,
    set_scheduled_options,
)
from revacnn_lightning.runtime.trial.trial_edits import TrialEdits
from revacnn_lightning.runtime.trial.trial_loop import RepeatableLoop
from revacnn_lightning.runtime.trial.trial_rates import EditedTrialRates
from revacnn_lightning.runtime.trial.trial_steps import TrialStep, first_differing_step
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.tracing.forward_probe import run_forward
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.inspection.global_hooks import global_hooks_suspended
from revacnn_lightning.telemetry.inspection.object_state import ObjectState
from revacnn_lightning.telemetry.inspection.side_effects import patch_log_methods
from revacnn_lightning.telemetry.inspection.user_modes import torch_modes_suspended

__all__ = ["ComparedNetworks"]

NOT_REPEATABLE = (
    "the repeated steps of the unedited network {difference} than in the training, so that the "
    "edited network cannot be compared with it. Something changes the steps that a trial does not "
    "know, or they are not deterministic: Trainer(deterministic=True) may help"
)


class ComparedNetworks:
    """Trains the edited and the unedited network of a trial on the same batches.

    The training is at the first of these batches when this object is made.

    Args:
        model: the network.
        editor: edits it.
        recorder: has hooks in its modules, which are removed meanwhile.
        loop: trains it.
        edits: what to try.
        on_step: is called after each step of a compared network. It may raise to end the trial.

    Attributes:
        optimizer: trains the network.
        titles: the titles of the edits; known after `apply_and_revert_edits`.
        nbytes: how much memory the copies take at most.
        result: the values of the edited network after all steps; None before.
        is_apart: whether the network may hold other values than those of the training.
    """

    def __init__(
        self,
        model: nn.Module,
        editor: Editor,
        recorder: Recorder,
        loop: RepeatableLoop,
        edits: Sequence[TrialEdit],
        on_step: Callable[[], None],
    ) -> None:
        self._model = model
        self._editor = editor
        self._recorder = recorder
        self._loop = loop
        self._edits = TrialEdits(editor, edits)
        self._on_step = on_step
        (self.optimizer,) = editor.all_optimizers
        registered = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        others = [t for t in ObjectState(model).tensors if id(t) not in registered]
        self._tensors = TrainedTensors(model, self.optimizer, others)
        self._start = TrainingValues(self._tensors)
        self._rates = EditedTrialRates(edits, self._start.rates)
        self.titles: list[str] = []
        self.nbytes = self._start.nbytes
        self.result: TrainingValues | None = None
        self.is_apart = False
        self._signals = DeferredSignals()

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal has arrived, whose handler waits for the values of the training."""
        return self._signals.have_arrived

    def apply_and_revert_edits(self, probe: ForwardProbe) -> None:
        """Apply the edits and take them back, so that a trial that is refused is so immediately.

        Raises:
            SteeringError: an edit is refused or fails.
        """
        self._rates.check_settable()
        with self._apart(), self._editor.tentative_edits():
            self.titles = self._edits.apply(probe)

    def train(self, steps: Sequence[TrialStep], probe: ForwardProbe) -> tuple[list[float], ...]:
        """Train both networks; return the loss of each step, unedited and edited.

        Raises:
            EditRefusedError: the steps of the unedited network cannot be repeated exactly.
            SteeringError: an edit or a forward of the edited network fails.
        """
        with self._apart() as present:
            self._start.restore()
            losses = self._train(steps)
            self._check(steps, losses, present)
            with self._editor.tentative_edits():
                self._start.restore()
                self._edits.apply(probe)
                edited = self._train(steps, is_edited=True)
                self.result = TrainingValues(self._tensors)
        copies = (self._start, present, self.result)
        self.nbytes = sum(each.nbytes for each in copies) + sum(step.nbytes for step in steps)
        return [float(loss) for loss in losses], [float(loss) for loss in edited]

    def keep(self, probe: ForwardProbe, set_value: Callable[[SetHyperparameter], object]) -> None:
        """Give the training the edited network as it is after all steps, and its optimizer.

        Schedules go on. The edits are applied again from the values before the first step, so that
        an undo brings these back.

        Args:
            probe: verifies the edits.
            set_value: sets a rate of the training.

        Raises:
            SteeringError: an edit fails; the training is unedited.
        """
        assert self.result is not None
        with self._apart(keeps=True) as present, self._editor.tentative_edits() as edits:
            self._start.restore()
            self._edits.apply(probe)
            self.result.restore()
            present.restore_rates()
            for value in self._rates.requests_to_set(present.rates):
                set_value(value)
            edits.keep()

    # ------------------------------------------------------------------ the training around

    @contextmanager
    def _apart(self, *, keeps: bool = False) -> Iterator[TrainingValues]:
        """Restore the training at the end, whatever was trained inside; yield its values.

        Args:
            keeps: restore it only after an exception; the random states are restored always.
        """
        with ExitStack() as stack:
            self._signals = stack.enter_context(DeferredSignals())
            stack.callback(setattr, self, "is_apart", False)
            self.is_apart = True
            stack.enter_context(self._recorder.hooks_suspended())
            # Hooks of the editor would be restored, too, and be there twice.
            stack.callback(self._editor.refresh_hooks)
            self._editor.close()
            objects, values = ObjectState(self._model), TrainingValues(self._tensors)
            stack.callback(RandomState.current(self._model.parameters()).restore)
            is_kept = False
            gradients = _take_gradients(objects.tensors)
            memory = [(tensor, tensor.data) for tensor in objects.tensors]
            attributes = _numbers_of(self.optimizer)
            try:
                with _unseen(objects.modules), torch.enable_grad():
                    self._editor.refresh_hooks()
                    yield values
                    is_kept = keeps
            finally:
                self._editor.close()
                vars(self.optimizer).update(attributes)
                _take_gradients(objects.tensors)
                if not is_kept:
                    objects.restore()
                    _restore_memory(memory)
                    values.restore()
                    for tensor, gradient in gradients:
                        tensor.grad = gradient

    # ------------------------------------------------------------------ a compared network

    def _train(self, steps: Sequence[TrialStep], *, is_edited: bool = False) -> list[Tensor]:
        """Train all steps, and return their losses."""
        losses = []
        for step in steps:
            rates = self._rates.with_edits(step.rates) if is_edited else step.rates
            set_scheduled_options(self.optimizer, rates)
            step.random.restore()
            losses.append(self._train_step(step))
            self._on_step()
        return losses

    def _train_step(self, step: TrialStep) -> Tensor:
        """Train one step in the order in which the training does."""
        optimizer, losses = self.optimizer, []

        def closure() -> Tensor:
            with self._loop.context():
                loss: Tensor = run_forward(lambda: step.step.replay_training_loss(self._model))
            optimizer.zero_grad()
            loss.backward()
            self._loop.clip_gradients(optimizer)
            losses.append(loss.detach().clone().reshape(()))
            return loss

        step_once: Any = optimizer.step
        step_once(closure)
        return losses[0]

    def _check(
        self, steps: Sequence[TrialStep], losses: list[Tensor], present: TrainingValues
    ) -> None:
        """Check that the unedited network is the training, bit by bit.

        Raises:
            EditRefusedError: it is not.
        """
        at = first_differing_step(steps, losses)
        difference = "" if at < 0 else f"have another loss in step {at + 1} of {len(steps)}"
        if not difference and (name := present.find_difference()):
            difference = f"lead to other values of {name}"
        if difference:
            raise EditRefusedError(NOT_REPEATABLE.format(difference=difference))


@contextmanager
def _unseen(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let no logger, mode or hook for all modules see what runs inside."""
    names = ("log", "log_dict")
    own = [{name: vars(each)[name] for name in names if name in vars(each)} for each in modules]
    with torch_modes_suspended(), global_hooks_suspended():
        for module in modules:
            patch_log_methods(module)
        try:
            yield
        finally:
            for module, before in zip(modules, own, strict=True):
                for name in names:
                    vars(module).pop(name, None)
                vars(module).update(before)


def _take_gradients(tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the gradients of tensors, and leave them none."""
    taken = []
    for tensor in tensors:
        if tensor.is_leaf and tensor.grad is not None:
            taken.append((tensor, tensor.grad))
            tensor.grad = None
    return taken


def _restore_memory(memory: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give tensors the memory that they had, with its format, because others may share it."""
    for tensor, alias in memory:
        if tensor.layout == torch.strided and tensor.data_ptr() != alias.data_ptr():
            tensor.data = alias


def _numbers_of(optimizer: Any) -> dict[str, Any]:
    """Return the plain attributes of an optimizer, such as a count of steps."""
    return {name: one for name, one in vars(optimizer).items() if isinstance(one, (int, float))}
