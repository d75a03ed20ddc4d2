"""`RecordedStep`: what a training step did with the network, to be replayed without the step.

A step is recorded once while it really runs (`step_recorder`). It consists of calls of modules, and
of the torch functions that training_step applies between them to their results and to parameters.
A replay passes what an earlier call returned to the later ones, so channels stay linked. All other
tensors are constants: copies of those of the recorded step, cut to a few samples.

A call that cannot be replayed on a few samples is *opaque*: it returns copies of what it returned,
and the channels that enter it must not be edited.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from revacnn_lightning.runtime.module_modes import temporary_modes, training_modes_of
from revacnn_lightning.runtime.nested import map_leaves, tensors_in
from revacnn_lightning.runtime.recorded_call import RecordedCall, TensorReference
from revacnn_lightning.runtime.sample_sizes import replace_sample_counts
from revacnn_lightning.steering.tracing.forward_probe import ReplayedStepOutput

__all__ = ["TRANSFORMED", "RecordedStep"]

log = logging.getLogger(__name__)

TRANSFORMED = (
    "are used inside a transform of torch.func (such as vmap or grad) in training_step, which "
    "cannot be replayed"
)


class RecordedStep:
    """The calls of one training step.

    Attributes:
        calls: in order.
        constants: index -> value of the tensors that no call returns, on a few samples.
        batches: index -> how many batches a constant holds one after the other; 0 if it holds none.
        of_parameters: index of the tensors that depend on nothing but parameters.
        returned: index of the tensors that training_step returned.
        loss: index of the loss among these; None if it is not known.
        batch_size: the batch size of the step; 0 if its samples are a list.
        samples: the number of samples to which the batch dimension is cut.
        images: how many images that list has; 0 if that is unknown.
        training_modes: the modes of the modules in the step, by name; see `modes_without_noise`.
        transformed: index of the tensors that transforms of torch.func read.
        transforms_modules: whether a transform of torch.func has called modules of the network.
        unseen: why not all uses of the network's tensors are recorded; "" if they are.
    """

    def __init__(self, batch_size: int, samples: int) -> None:
        self.calls: list[RecordedCall] = []
        self.constants: dict[int, Tensor] = {}
        self.batches: dict[int, int] = {}
        self.of_parameters: set[int] = set()
        self.returned: list[int] = []
        self.loss: int | None = None
        self.batch_size = batch_size
        self.samples = samples
        self.images = 0
        self.training_modes: dict[str, bool] = {}
        self.transformed: set[int] = set()
        self.transforms_modules = False
        self.unseen = ""
        self._results: list[int] = []
        self._fixed: dict[int, str] = {}
        self._modes: dict[str, bool] = {}  # of the modules in the training

    @property
    def runs_modules(self) -> bool:
        """Whether it has called any module of the network."""
        return any(call.has_modules for call in self.calls)

    @property
    def results(self) -> list[int]:
        """Index of the tensors that leave what is recorded."""
        return self._results

    @property
    def failure(self) -> str:
        """Why a part of the network cannot be run on these samples; "" if all of it can."""
        return next((c.failure for c in self.calls if c.has_modules and c.is_opaque), "")

    def replay(self, model: nn.Module) -> ReplayedStepOutput:
        """Run the calls on copies of the constants.

        Of a model in evaluation mode, those that return other tensors then, such as the detections
        of a detector instead of its losses, are run in training mode.

        Call it inside `side_effect_free`. It raises what the called modules raise.
        """
        tensors = self.run_calls(model, self.copied_constants(), modes=self._modes)
        return ReplayedStepOutput(
            [tensors[index] for index in self._results],
            [(tensors[index], reason) for index, reason in self._fixed.items()],
        )

    def replay_loss(self, model: nn.Module) -> Tensor:
        """Return the loss of a replay, a scalar. Its index must be known; see `replay`."""
        return self.replay_loss_with_graph(model).detach()

    def replay_loss_with_graph(self, model: nn.Module) -> Tensor:
        """Return the loss of a replay with its autograd graph, if gradients are enabled."""
        assert self.loss is not None
        tensors = self.run_calls(model, self.copied_constants())
        return tensors[self.loss].reshape(())

    def replay_training_loss(self, model: nn.Module) -> Tensor:
        """Return the loss of a replay with its autograd graph, as far as the step had one.

        What the step has computed under ``torch.no_grad`` has no graph here, either.
        """
        assert self.loss is not None
        return self.run_calls(model, self.copied_constants(), as_recorded=True)[self.loss]

    def copied_constants(self) -> dict[int, Tensor]:
        """Return copies of the constants by their index."""
        return {index: value.clone() for index, value in self.constants.items()}

    def run_calls(
        self,
        model: nn.Module,
        constants: dict[int, Tensor],
        *,
        as_recorded: bool = False,
        modes: Mapping[str, bool] | None = None,
    ) -> dict[int, Tensor]:
        """Run the calls on these constants, and return all tensors by their index; see `replay`.

        Args:
            as_recorded: enable gradients for those calls only that had some in the step.
            modes: the modes of the modules for calls that return other tensors in the present
                modes.
        """
        tensors = dict(constants)
        for call in self.calls:
            if call.is_opaque:
                outs = [value.clone() for value in call.values]
            else:
                gradients = torch.set_grad_enabled(call.has_gradient) if as_recorded else None
                with gradients or nullcontext(), self._modes_for(call, model):
                    outs = tensors_in(self._run(call, model, tensors))
                if len(outs) != len(call.outputs) and modes is not None:
                    with temporary_modes(model, modes):
                        outs = tensors_in(self._run(call, model, tensors))
                if len(outs) != len(call.outputs):
                    raise RuntimeError(f"{call.name} returned {len(outs)} tensors on a replay")
            tensors.update((i, t) for i, t in zip(call.outputs, outs, strict=True) if i is not None)
        return tensors

    def prepare(self, model: nn.Module) -> None:
        """Find out which calls can be replayed, and what must keep its shape. Do it only once.

        Call it inside `side_effect_free`, before the model is edited.
        """
        self._drop_bookkeeping()
        self._modes = training_modes_of(model)
        tensors = self.copied_constants()
        for call in self.calls:
            outs = [value.clone() for value in call.values]
            if not call.is_opaque:
                try:
                    outs = self._try(call, model, tensors)
                except Exception as error:  # of the user's modules, on fewer samples
                    log.debug("Cannot replay %s", call.name, exc_info=True)
                    call.failure = f"{call.name} raised {type(error).__name__}: {error}"
            if not call.is_opaque:
                call.values = []
            tensors.update((i, t) for i, t in zip(call.outputs, outs, strict=True) if i is not None)
        self._find_results()

    def _drop_bookkeeping(self) -> None:
        """Drop what the step does with the parameters beside the training, such as averaging them.

        These are calls without gradients that read no output of the network, and on whose results
        nothing else depends. Whether such copies of the parameters can be edited is known from what
        holds them.
        """
        of_network: set[int | None] = set()
        for call in self.calls:
            if call.has_modules or not of_network.isdisjoint(call.inputs):
                of_network.update(call.outputs, call.changed)
        needed, kept = set(self.returned), []
        for call in reversed(self.calls):
            is_of_network = call.has_modules or not of_network.isdisjoint(call.inputs)
            is_needed = not needed.isdisjoint((*call.outputs, *call.changed))
            if is_of_network or is_needed or call.has_gradient:
                kept.append(call)
                needed.update(call.inputs)
        self.calls = kept[::-1]

    # ---------------------------------------------------------------- one call

    def _run(self, call: RecordedCall, model: nn.Module, tensors: dict[int, Tensor]) -> Any:
        args, kwargs = _resolve(call.arguments, tensors)
        with call.autocast.context():
            return call.function(model, *args, **kwargs)

    @contextmanager
    def _modes_for(self, call: RecordedCall, model: nn.Module) -> Iterator[None]:
        """Give the modules the modes of the step, if the call needs them."""
        if not call.is_in_training:
            yield
            return
        with temporary_modes(model, self.training_modes):
            yield

    def _try(
        self, call: RecordedCall, model: nn.Module, tensors: dict[int, Tensor]
    ) -> list[Tensor]:
        """Run a call as recorded or, if that does not fit, with sizes of fewer samples.

        A call of a module in evaluation mode that does not return what it has returned in the step,
        such as that of a detector, is run as in the step.

        Raises:
            Exception: of the call, or because what it returns has another shape.
        """
        try:
            outs = tensors_in(self._run(call, model, tensors))
            self._check_shapes(call, outs)
        except Exception:
            if call.has_modules and not model.training and any(self.training_modes.values()):
                return self._try_in_training(call, model, tensors)
            arguments = replace_sample_counts(call.arguments, self.batch_size, self.samples)
            if call.has_modules or arguments is None:
                raise
            call.arguments = arguments
            outs = tensors_in(self._run(call, model, tensors))
            self._check_shapes(call, outs)
        return outs

    def _try_in_training(
        self, call: RecordedCall, model: nn.Module, tensors: dict[int, Tensor]
    ) -> list[Tensor]:
        """Run a call in the modes of the step; it raises as `_try` does."""
        call.is_in_training = True
        try:
            with self._modes_for(call, model):
                outs = tensors_in(self._run(call, model, tensors))
            self._check_shapes(call, outs)
        except Exception:
            call.is_in_training = False
            raise
        return outs

    def _check_shapes(self, call: RecordedCall, outs: list[Tensor]) -> None:
        """Check that the outputs have the recorded shapes, or those on fewer samples."""
        expected = [(tuple(shape), self.shape_with_fewer_samples(shape)) for shape in call.shapes]
        shapes = [tuple(out.shape) for out in outs]
        if len(shapes) != len(expected) or any(
            shape not in both for shape, both in zip(shapes, expected, strict=True)
        ):
            raise ValueError(
                f"its outputs have the shapes {shapes} instead of {[cut for _, cut in expected]}"
            )

    def shape_with_fewer_samples(self, shape: torch.Size) -> tuple[int, ...]:
        """Return the shape on fewer samples of a tensor that has this shape on the whole batch."""
        if not shape or not self.batch_size or shape[0] % self.batch_size:
            return tuple(shape)
        return (shape[0] // self.batch_size * self.samples, *shape[1:])

    # ---------------------------------------------------------------- results

    def _find_results(self) -> None:
        """Find the tensors that leave what is recorded: their shapes must not change."""
        produced: dict[int, int] = {}
        consumed: dict[int, int] = {}
        for position, call in enumerate(self.calls):
            consumed.update(dict.fromkeys(call.inputs, position))
            for index in (*call.outputs, *call.changed):
                if index is not None:
                    produced[index] = position
            if call.is_opaque:
                reason = f"are read by {call.name} in training_step, which cannot be replayed"
                self._fixed.update(dict.fromkeys(call.inputs, reason))
        results = {i for i, at in produced.items() if consumed.get(i, -1) <= at}
        self._results = sorted((results - self.of_parameters) | set(self.returned))
        hidden = (self.transformed & produced.keys()) - self.of_parameters
        self._fixed.update(dict.fromkeys(hidden, TRANSFORMED))
        if self.unseen:
            self._fixed.update((i, self.unseen) for i in produced if i not in self.of_parameters)
        for index in self.constants.keys() - produced.keys():
            self._fixed.pop(index, None)


def _resolve(arguments: Any, tensors: dict[int, Tensor]) -> Any:
    return map_leaves(
        arguments, lambda leaf: tensors[leaf.index] if isinstance(leaf, TensorReference) else leaf
    )
