"""Images in a training step of several networks, such as a GAN: who reads those of the batch.

The forward of such a module does not accept an image alone. A replay of its recorded step shows
which layers read images of the batch, and what images other layers compute for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor, nn

from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.telemetry.inspection.module_flow import INPUT, ModuleFlow, ModuleFlowResult

__all__ = ["FindImageFlow", "StepImageFlow", "find_no_image_flow", "trace_layers_reading_images"]


class StepImageFlow(NamedTuple):
    """How the images of a batch flow through a training step, as a replay has shown it.

    Attributes:
        flow: which layers read the images of the batch.
        generated_image: the last image (channels, H, W) that the networks compute and read again;
            None if there is none.
    """

    flow: ModuleFlowResult
    generated_image: Tensor | None


# (layers by name, shape of an image) -> what is shown; None if no layer reads such images
FindImageFlow = Callable[[Mapping[str, nn.Module], Sequence[int]], StepImageFlow | None]


def find_no_image_flow(
    layers: Mapping[str, nn.Module], shape: Sequence[int]
) -> StepImageFlow | None:
    """Return None: the `FindImageFlow` of a run that records no step."""
    return None


def trace_layers_reading_images(
    step: RecordedStep, model: nn.Module, layers: Mapping[str, nn.Module], shape: Sequence[int]
) -> StepImageFlow | None:
    """Replay a step, and return which layers read its images of this shape.

    Call it inside `side_effect_free`.

    Returns:
        None if no layer reads images of the batch.
    """
    tensors = step.copied_constants()
    images = [each for each in tensors.values() if _is_image(each, shape)]
    if not images:
        return None
    with ModuleFlow(model, layers) as flow:
        for each in images:
            flow.mark_input(each)
        tensors = step.run_calls(model, tensors)
        found = [tensors[index] for index in _read_again(step)]
        computed = [each for each in found if _is_image(each, shape)]
        generated = [each for each in computed if INPUT not in flow.sources_of(each)]
        result = flow.finish([tensors[index] for index in step.results])
    if not result.input_readers:
        return None
    # A network that reads two kinds of images is called twice.
    passed = list({(one.name, one.sources): one for one in result.non_layer_calls}.values())
    result = replace(result, non_layer_calls=passed)
    return StepImageFlow(result, generated[-1][0] if generated else None)


def _is_image(tensor: Tensor, shape: Sequence[int]) -> bool:
    return tensor.ndim > 1 and tuple(tensor.shape[1:]) == tuple(shape) and len(tensor) > 0


def _read_again(step: RecordedStep) -> list[int]:
    """Return the tensors that calls compute and modules read, directly or through functions."""
    read: set[int] = set()
    for call in reversed(step.calls):
        if call.has_modules or not read.isdisjoint(i for i in call.outputs if i is not None):
            read.update(call.inputs)
    produced = [i for call in step.calls for i in call.outputs if i is not None]
    return [index for index in produced if index in read]
