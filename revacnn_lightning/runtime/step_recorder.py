"""Records what one real training step does with the network, without taking part in it.

The recorder observes two kinds of calls that training_step makes:

- outermost calls of modules, by way of ``nn.Module.__call__``, which is replaced for the time of
  the step, as torch.fx does. While a module runs, nothing is observed: the original method is back
  and the mode below is off, so that the network takes exactly the code path it always takes.
- torch functions between these calls, by a `TorchFunctionMode`, if they read what a module
  returned, or parameters or buffers.

It only copies a few samples of the tensors that enter the network. It draws no random numbers and
does not wait for the device.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.weak import WeakTensorKeyDictionary

from revacnn_lightning.runtime.function_calls import FunctionCallMode
from revacnn_lightning.runtime.functional_transforms import (
    is_wrapped_by_transform,
    without_transforms,
)
from revacnn_lightning.runtime.module_calls import module_calls_replaced
from revacnn_lightning.runtime.module_modes import modes_without_noise
from revacnn_lightning.runtime.nested import UnsupportedValueError, map_tensors, tensors_in
from revacnn_lightning.runtime.recorded_call import AutocastState, RecordedCall, TensorReference
from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.runtime.replay_functions import (
    accept_model_argument,
    is_in_place,
    make_replay_function,
    make_submodule_call,
    torch_function_name,
)
from revacnn_lightning.runtime.sample_sizes import count_stacked_batches, take_first_samples

__all__ = ["StepRecorder"]

log = logging.getLogger(__name__)

UNSEEN = (
    "reach a part of training_step that cannot be observed, such as a torch.autograd.Function or "
    "an extension"
)
_NOT_RECORDED = {
    "backward", "detach_", "grad.__set__", "register_hook", "requires_grad.__set__",
    "requires_grad_", "retain_grad",
}  # fmt: skip


class StepRecorder:
    """Records a `RecordedStep` of ``model`` between `start` and `stop`.

    Args:
        model: the module whose training_step runs.
        batch_size: the batch size of the step.
        samples: the number of samples to keep.

    Attributes:
        step: what has been recorded.
        failure: an error of the recorder, which has recorded nothing since; None if there was none.
        max_elements: the largest number of elements of a constant. A call with a larger constant is
            not replayed.
    """

    max_elements = 1 << 24

    def __init__(self, model: nn.Module, batch_size: int, samples: int) -> None:
        self.step = RecordedStep(batch_size, min(samples, batch_size) if batch_size else samples)
        self.failure: Exception | None = None
        self._model = model
        self._names = {id(module): name for name, module in model.named_modules()}
        self._held = {id(t): t for t in (*model.parameters(), *model.buffers())}
        self._indices = WeakTensorKeyDictionary()  # tensors of recorded calls
        self._outside = WeakTensorKeyDictionary()  # others -> whether they are gradients
        self.step.training_modes = modes_without_noise(model)
        self._count = 0
        self._thread = threading.get_ident()
        self._is_paused = False
        self._device_type = next((t.device.type for t in self._held.values()), "cpu")
        self._mode = FunctionCallMode(self._call_function)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what runs inside."""
        handles = [
            register_optimizer_step_pre_hook(self._before_optimizer),
            register_optimizer_step_post_hook(self._after_optimizer),
        ]
        try:
            with module_calls_replaced(self._call_module), self._mode:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def add_result(self, output: Any) -> None:
        """Record what training_step returned."""
        self._guarded(self._find_returned, output)

    def _find_returned(self, output: Any) -> None:
        found = (self._indices.get(tensor) for tensor in tensors_in(output))
        self.step.returned = [index for index in found if index is not None]
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if isinstance(loss, Tensor) and loss.numel() == 1:
            self.step.loss = self._indices.get(loss)

    # ---------------------------------------------------------------- module calls

    def _call_module(
        self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        if self._is_inactive():
            return original(module, *args, **kwargs)
        part = self._without_compiler(module)
        if self._is_transparent(part):
            return original(module, *args, **kwargs)
        call = self._guarded(self._begin_module, part, args, kwargs)
        with self._paused(), module_calls_replaced(None), self._mode.suspended():
            out = original(module, *args, **kwargs)
        if call is not None:
            self._guarded(self._end, call, out)
        return out

    def _without_compiler(self, module: nn.Module) -> nn.Module:
        """Return the part of the network that a wrapper of ``torch.compile`` around it runs.

        Nothing is recorded inside of compiled code, where the recorder would be compiled, too.
        """
        inner = module._modules.get("_orig_mod")
        is_around = id(module) not in self._names and id(inner) in self._names
        return inner if is_around and inner is not None else module

    def _is_transparent(self, module: nn.Module) -> bool:
        """Return whether training_step itself may run inside this module.

        This is so for wrappers of the network, such as DistributedDataParallel, and for the
        LightningModule when a strategy has redirected its forward to training_step.
        """
        if module is self._model:
            return "forward" in vars(module)
        return id(module) not in self._names and any(
            id(child) in self._names for child in module.modules()
        )

    def _begin_module(self, module: nn.Module, args: Any, kwargs: Any) -> RecordedCall | None:
        name = self._names.get(id(module))
        if self._is_transformed((args, kwargs)):
            self.step.transforms_modules |= name is not None
            return None
        reads = any(t in self._indices for t in tensors_in((args, kwargs)))
        if not reads and next(module.parameters(), None) is None:
            return None  # it transforms the batch
        if name is None:
            return self._begin(type(module).__name__, accept_model_argument(module), args, kwargs)
        label = name or type(module).__name__
        call = self._begin(label, make_submodule_call(name), args, kwargs, has_modules=True)
        call.is_of_model = module is self._model
        return call

    # ---------------------------------------------------------------- torch functions

    def _call_function(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a torch function, and record it if it reads tensors of the network."""
        if self._is_inactive():
            return func(*args, **kwargs)
        call = self._guarded(self._begin_function, func, args, kwargs)
        with self._paused():
            out = func(*args, **kwargs)
        if isinstance(call, RecordedCall):
            self._guarded(self._end, call, out)
        elif call is not None:
            self._guarded(self._mark_outside, out, call == "gradient")
        return out

    def _begin_function(self, func: Any, args: Any, kwargs: Any) -> RecordedCall | str | None:
        """Return the call to record; else what its results are: "gradient" or "outside"."""
        name = torch_function_name(func)
        if name in _NOT_RECORDED:
            return None
        if self._is_transformed((args, kwargs)):
            return None
        tensors = tensors_in((args, kwargs))
        gradients = [t for t in tensors if self._outside.get(t)]
        if name in ("grad", "grad.__get__"):  # torch.autograd.grad, Tensor.grad
            return "gradient"
        if gradients and not any(t in self._indices for t in tensors):
            return "gradient"  # such as an update of parameters
        if not any(t in self._indices or id(t) in self._held for t in tensors):
            return "outside"
        return self._begin(name, make_replay_function(func, name), args, kwargs)

    # ---------------------------------------------------------------- both

    def _is_transformed(self, values: Any) -> bool:
        """Return whether the values are of a transform of torch.func, and note what it reads.

        Such tensors are invalid after the transform, so that no call with them can be replayed.
        """
        tensors = tensors_in(values)
        if not any(is_wrapped_by_transform(tensor) for tensor in tensors):
            return False
        origins = [without_transforms(tensor) for tensor in tensors]
        reads = [self._indices[t] for t in origins if t in self._indices]
        self.step.transformed.update(reads)
        return True

    def _begin(
        self,
        name: str,
        function: Callable[..., Any],
        args: Any,
        kwargs: Any,
        *,
        has_modules: bool = False,
    ) -> RecordedCall:
        tensors = tensors_in((args, kwargs))
        failure = ""
        try:
            arguments = map_tensors((args, kwargs), self._refer)
        except UnsupportedValueError as error:
            arguments, failure = None, f"{name} cannot be called again: {error}"
        inputs = [self._indices[t] for t in tensors if t in self._indices]
        autocast = AutocastState.current(self._device_type)
        call = RecordedCall(
            name, function, arguments, inputs, autocast, has_modules, failure=failure
        )
        if args and not has_modules and is_in_place(name):
            call.changed = [self._indices[t] for t in tensors_in(args[0]) if t in self._indices]
        return call

    def _refer(self, tensor: Tensor) -> Any:
        """Return what stands for a tensor in recorded arguments."""
        if id(tensor) in self._held:
            return tensor
        index = self._indices.get(tensor)
        if index is None:
            if math.prod(self.step.shape_with_fewer_samples(tensor.shape)) > self.max_elements:
                raise UnsupportedValueError("it receives a large tensor")
            if tensor.grad_fn is not None and tensor not in self._outside:
                self.step.unseen = self.step.unseen or UNSEEN
            index = self._new_index(tensor)
            with torch.no_grad():
                value = take_first_samples(tensor, self.step.batch_size, self.step.samples)
            self.step.constants[index] = value
            self.step.batches[index] = count_stacked_batches(tensor.shape, self.step.batch_size)
        return TensorReference(index)

    def _end(self, call: RecordedCall, out: Any) -> None:
        """Record a call that has returned."""
        step = self.step
        if self._is_transformed(out):  # inside a transform, it has read tensors from outside
            step.transforms_modules |= call.has_modules
            step.transformed.update(call.inputs)
            return
        of_parameters = not call.has_modules and self._is_of_parameters(call)
        call.has_gradient = any(tensor.requires_grad for tensor in tensors_in(out))
        for tensor in tensors_in(out):
            index = None
            if id(tensor) not in self._held:
                known = self._indices.get(tensor)
                index = self._new_index(tensor) if known is None else known
                if of_parameters:
                    step.of_parameters.add(index)
            call.outputs.append(index)
            call.shapes.append(tensor.shape)
            call.values.append(
                self._value(tensor, is_needed=index is not None and not of_parameters)
            )
        if call.outputs or call.changed or is_in_place(call.name):
            step.calls.append(call)

    def _value(self, tensor: Tensor, *, is_needed: bool) -> Tensor:
        """Return a copy of a few samples of a result; of others, zeros that take no memory."""
        with torch.no_grad():
            if is_needed:
                return take_first_samples(tensor, self.step.batch_size, self.step.samples)
            return torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)

    def _is_of_parameters(self, call: RecordedCall) -> bool:
        return all(i in self.step.of_parameters for i in call.inputs)

    def _new_index(self, tensor: Tensor) -> int:
        index = self._indices[tensor] = self._count
        self._count += 1
        return index

    def _mark_outside(self, out: Any, is_gradient: bool) -> None:
        for tensor in tensors_in(out):
            if tensor not in self._indices and id(tensor) not in self._held:
                self._outside[tensor] = is_gradient

    # ---------------------------------------------------------------- pausing

    def _is_inactive(self) -> bool:
        is_other = threading.get_ident() != self._thread
        return self._is_paused or is_other or self.failure is not None

    @contextmanager
    def _paused(self) -> Iterator[None]:
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def _before_optimizer(self, optimizer: Any, args: Any, kwargs: Any) -> Any:
        """Record nothing of an optimizer's step but its closure, and return the arguments."""
        self._is_paused = True
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            return None
        if len(args) > 1:
            return (args[0], self._recorded(closure), *args[2:]), kwargs
        return args, {**kwargs, "closure": self._recorded(closure)}

    def _recorded(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(closure)
        def run() -> Any:
            self._is_paused = False
            try:
                return closure()
            finally:
                self._is_paused = True

        return run

    def _after_optimizer(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._is_paused = False

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the recorder. An exception ends the recording, not the training."""
        with self._paused():
            try:
                return function(*args)
            except Exception as error:  # a bug of this package must not stop the training
                log.warning("The training step was not recorded", exc_info=True)
                self.failure = error
                return None
