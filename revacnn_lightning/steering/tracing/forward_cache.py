"""Keeps what the forwards of one edit share, so that each costs less than a forward alone."""

from __future__ import annotations

from torch import nn

from revacnn_lightning.steering.tracing.call_output_cache import CallOutputCache
from revacnn_lightning.steering.tracing.call_signature import CallSignature, tensor_positions
from revacnn_lightning.telemetry.inspection.object_state import ObjectState
from revacnn_lightning.telemetry.module_tree import list_named_tensors

__all__ = ["EditForwardCache"]


class EditForwardCache:
    """Caches a model's objects and the outputs of its operations for all forwards of one edit.

    Keep it no longer than an edit: it refers to all that the model refers to, and training changes
    weights in ways that nothing here notices.

    Attributes:
        outputs: the outputs of operations.
        evaluated_signature: the `CallSignature` of the last evaluation; None if there was none, or
            if it was not observed.
    """

    def __init__(self) -> None:
        self.evaluated_signature: int | None = None
        self._positions: dict[int, int] = {}
        self.outputs = CallOutputCache()
        self._objects: ObjectState | None = None
        self._model: nn.Module | None = None

    def objects_of(self, model: nn.Module) -> ObjectState:
        """Return the objects of a model as they are now, for `side_effect_free`."""
        if self._objects is None or self._model is not model:
            self._objects, self._model = ObjectState(model), model
            self._positions = tensor_positions(list_named_tensors(model))
        else:
            self._objects.refresh()
        return self._objects

    def new_signature(self) -> CallSignature:
        """Return the signature of a forward of the model whose objects were returned last."""
        return CallSignature(self._positions)
