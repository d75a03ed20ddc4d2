"""Keeps what the forwards of one edit share, so that each costs less than a forward alone."""

from __future__ import annotations

from torch import nn

from revacnn_lightning.steering.tracing.call_output_cache import CallOutputCache
from revacnn_lightning.telemetry.inspection.object_state import ObjectState

__all__ = ["EditForwardCache"]


class EditForwardCache:
    """Caches a model's objects and the outputs of its operations for all forwards of one edit.

    Keep it no longer than an edit: it refers to all that the model refers to, and training changes
    weights in ways that nothing here notices.
    """

    def __init__(self) -> None:
        self.outputs = CallOutputCache()
        self._objects: ObjectState | None = None
        self._model: nn.Module | None = None

    def objects_of(self, model: nn.Module) -> ObjectState:
        """Return the objects of a model as they are now, for `side_effect_free`."""
        if self._objects is None or self._model is not model:
            self._objects, self._model = ObjectState(model), model
        else:
            self._objects.refresh()
        return self._objects
