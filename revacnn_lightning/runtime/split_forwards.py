"""What training steps show of a network that no process can run by itself.

See `SampleProbeFactory` for other networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from revacnn_lightning.runtime.step_recording import AddResult
from revacnn_lightning.steering import ForwardProbe
from revacnn_lightning.telemetry.inspection.following_norms import (
    SingleLayerBatchNorms,
    observe_single_layer_batch_norms,
)

__all__ = ["SplitParametersObserver"]


class SplitParametersObserver:
    """Observes training steps of a module with split parameters; its probes run no forward.

    Args:
        module: a network whose parameters are split among the processes of the training.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._norms: SingleLayerBatchNorms | None = None
        self._version = -1  # structure version of the observed step

    @property
    def is_ready(self) -> bool:
        """Whether a step was observed."""
        return self._norms is not None

    def needs_step(self, version: int) -> bool:
        """Return whether to observe the next training step, at this structure version."""
        return self._version != version

    @contextmanager
    def recording(self, batch: Any, version: int) -> Iterator[AddResult]:
        """Observe the training step that runs inside."""

        def finish(norms: SingleLayerBatchNorms) -> None:
            self._norms, self._version = norms, version

        with observe_single_layer_batch_norms(self._module, finish):
            yield lambda _: None

    def finish_recording(self) -> None:
        """Do nothing: what was observed needs no preparation."""

    def make_probe(self, batch: Any) -> ForwardProbe:
        """Return a probe without forwards."""
        return ForwardProbe((), norms=self._norms)
