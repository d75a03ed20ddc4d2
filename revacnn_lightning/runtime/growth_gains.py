"""Computes where one more filter would lower the loss most, on request: `GrowthGains` messages."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.requests import InspectGrowth
from revacnn_lightning.runtime.batch import BatchContext
from revacnn_lightning.runtime.loss_replay import NOT_YET, LossReplay
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.tracing.forward_probe import ForwardFailedError
from revacnn_lightning.telemetry import Recorder
from revacnn_lightning.telemetry.conv import filter_rows
from revacnn_lightning.telemetry.growth_gain import (
    LayerPairTensors,
    find_best_new_filters,
    outgoing_gradient_norms,
    why_no_gain,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["GrowthGainCollector"]

log = logging.getLogger(__name__)

MAX_GROUPS = 4  # of images
NOT_READ = "no layer reads its filters alone"
PAUSED = (
    "the run is paused, and the growth gains need a recorded training step; train a batch or two, "
    "then request them again"
)


class GrowthGainCollector:
    """Computes the gain of every layer once per request.

    The recorded training step is repeated with gradients on up to 64 images, in evaluation mode:
    a forward and a backward pass. Training waits for that.

    Args:
        model: the network.
        recorder: knows the layers.
        editor: knows which layers read which.
        replay: computes the loss.
    """

    def __init__(
        self, model: nn.Module, recorder: Recorder, editor: Editor, replay: LossReplay
    ) -> None:
        self._model = model
        self._recorder = recorder
        self._editor = editor
        self._replay = replay
        self._is_wanted = False
        self.reset()

    def select(self, request: InspectGrowth) -> None:
        """Compute the gains as soon as the loss is known."""
        self._is_wanted = True
        self._replay.request_recording()

    def reset(self) -> None:
        """Discard what is known of the old network."""
        self.directions: dict[str, Tensor] = {}  # of length 1, best first, by layer

    @property
    def is_wanted(self) -> bool:
        """Whether the gains were requested and are not known yet."""
        return self._is_wanted

    def collect(self, context: BatchContext) -> Sequence[GrowthGains]:
        """Return the gains, if they were requested and can be computed.

        They cannot be before a training step was recorded. While the run is paused, none will be:
        the message says so.
        """
        if not self._is_wanted or not (self._can_answer() or context.is_paused):
            return []
        note = self._replay.note if self._can_answer() else PAUSED
        self._is_wanted = False
        layers = self._recorder.layers
        gains, second = np.full((2, len(layers)), np.nan, np.float32)
        notes = [note] * len(layers)
        if not note:
            try:
                readers = self._reader_tensors()
            except ForwardFailedError as error:
                log.info("The growth gains cannot be computed", exc_info=True)
                notes, readers = [str(error)] * len(layers), {}
            for index, layer in enumerate(layers):
                if not notes[index]:
                    found = self._gain(layer, readers.get(layer, []))
                    if isinstance(found, str):
                        notes[index] = found
                    else:
                        gains[index], second[index] = found
        images = self._replay.image_count_of(MAX_GROUPS)
        return [
            GrowthGains(
                context.run, context.version, context.step, gains, second, images, notes=notes
            )
        ]

    def _can_answer(self) -> bool:
        """Return whether the gains can be computed, or never will be."""
        if not self._replay.is_ready(self._editor.version) or self._replay.note == NOT_YET:
            return False
        return bool(self._replay.note) or self._editor.traced_groups is not None

    def _gain(self, layer: str, readers: list[LayerPairTensors]) -> tuple[float, float] | str:
        """Return the two largest gains of a layer, and keep the best direction; or why not."""
        module: Any = self._model.get_submodule(layer)
        weight = self._recorder.current_weight(layer)
        if not readers or weight is None:
            return NOT_READ
        refusal = next(filter(None, (why_no_gain(module, one.reader) for one in readers)), "")
        if refusal:
            return refusal
        try:
            values, directions = find_best_new_filters(module, readers)
        except (RuntimeError, ValueError) as error:  # shapes that do not fit each other
            log.info("The growth gain of %s cannot be computed", layer, exc_info=True)
            return str(error)
        scale = float(filter_rows(weight.detach(), module).norm(dim=1).median())
        forward, backward = (
            outgoing_gradient_norms(module, readers, sign * scale * directions) for sign in (1, -1)
        )  # the sign that passes a ReLU better
        signs = torch.where(forward >= backward, 1.0, -1.0).to(directions)
        turned = directions * signs.view(-1, *[1] * (directions.ndim - 1))
        self.directions[layer] = turned.cpu()
        gains = [*(values * scale).tolist(), 0.0]
        return (gains[0], gains[1]) if math.isfinite(gains[0]) else "the loss is not finite"

    # ---------------------------------------------------------------- recorded tensors

    def _reader_tensors(self) -> dict[str, list[LayerPairTensors]]:
        """Return the tensors of the readers of each layer, on a few groups of images.

        Raises:
            ForwardFailedError: the replay raised.
        """
        groups = self._editor.traced_groups
        named: dict[str, Any] = dict(self._model.named_modules())
        edges = [] if groups is None else [e for e in groups.edges if e[0] in self._recorder.layers]
        wanted = {name for edge in edges for name in edge}
        found: dict[str, list[LayerPairTensors]] = {}
        for captured in self._replay.inputs_and_output_gradients(
            {name: named[name] for name in wanted}, MAX_GROUPS
        ):
            for layer, reader in edges:
                if layer in captured and reader in captured:
                    tensors = _tensors_between(
                        named[layer], named[reader], captured[layer], captured[reader]
                    )
                    found.setdefault(layer, []).append(tensors)
        return found


def _tensors_between(
    layer: UnitLayer, reader: UnitLayer, before: Any, after: Any
) -> LayerPairTensors:
    """Return the tensors of two layers, given (input, gradient of the output) of both."""
    inputs, gradient, read = before[0], after[1], after[0]
    if isinstance(layer, nn.Linear) and isinstance(reader, nn.Linear):
        inputs, gradient = inputs.flatten(0, -2), gradient.flatten(0, -2)
    size = () if isinstance(reader, nn.Linear) else tuple(read.shape[2:])
    return LayerPairTensors(inputs, reader, size, gradient)
