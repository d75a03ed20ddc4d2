"""The journals of all edited models of this process, whichever trainer or file edited them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from revacnn_lightning.steering.blocks import InputCropOrPadConv2d
from revacnn_lightning.steering.edit_mark import is_marked_edited, update_edit_mark
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor

__all__ = [
    "find_journal",
    "forget_edits",
    "has_structure_of_journal",
    "has_weight_shapes",
    "mismatched_weights",
    "remember_edits",
]

_INSERTED = re.compile(r"\.inserted\d+\.")  # as `planning.layer_changes` names inserted layers
_journals: WeakKeyDictionary[nn.Module, Journal] = WeakKeyDictionary()


def find_journal(model: nn.Module) -> Journal | None:
    """Return the edits of a model; None if it is unedited, or a copy with unknown edits.

    A model that was built again, such as by ``configure_model``, is unedited.
    """
    journal = _journals.get(model)
    if journal is not None and not has_structure_of_journal(model, journal):
        del _journals[model]
        update_edit_mark(model, is_edited=False)
        return None
    if journal is None and is_marked_edited(model):
        journal = _journal_of_original(model)
        if journal is not None:
            _journals[model] = journal
    return journal


def remember_edits(model: nn.Module, journal: Journal) -> None:
    """Keep the journal of a model as long as the model exists, and mark an edited model."""
    _journals[model] = journal
    update_edit_mark(model, is_edited=journal.changes_structure)


def forget_edits(model: nn.Module) -> None:
    """Treat a model as one that was never edited."""
    _journals.pop(model, None)
    update_edit_mark(model, is_edited=False)


def _journal_of_original(copy: nn.Module) -> Journal | None:
    """Return a journal for a copy of a model of this process. Its edits cannot be undone."""
    for model, journal in list(_journals.items()):
        if (
            type(model) is type(copy)
            and is_marked_edited(model)
            and has_structure_of_journal(copy, journal)
        ):
            return journal.without_values()
    return None


# -------------------------------------------------------------------- structure


def has_structure_of_journal(model: nn.Module, journal: Journal) -> bool:
    """Return whether a model has the sizes and layers that the edits have led to."""
    sizes: dict[tuple[str, int], int] = {}
    layers: dict[str, type[nn.Module]] = {}
    for entry in journal.entries:
        for edit in entry.plan.tensors:
            sizes[edit.tensor, edit.dim] = sum(stop - start for start, stop in edit.runs)
        for layer in entry.plan.layers:
            name = f"{layer.host}.{layer.child}" if layer.action == "insert" else layer.host
            sizes = {at: size for at, size in sizes.items() if not at[0].startswith(f"{name}.")}
            layers = {
                each: kind for each, kind in layers.items() if not f"{each}.".startswith(f"{name}.")
            }
            kinds = {"identity": nn.Identity, "conv": InputCropOrPadConv2d}
            layers[name] = kinds.get(layer.kind, nn.Module)
    try:
        return all(
            find_owner_and_tensor(model, tensor)[1].shape[dim] == size
            for (tensor, dim), size in sizes.items()
        ) and all(isinstance(model.get_submodule(name), kind) for name, kind in layers.items())
    except (AttributeError, AssertionError, IndexError):  # there is no such tensor or layer
        return False


def has_weight_shapes(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names and shapes of a model's."""
    present = model.state_dict()
    return present.keys() == weights.keys() and not mismatched_weights(model, weights)


def mismatched_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of weights that have another shape in the model, or of layers it lacks.

    Of the layers, only those that an edit has inserted: other names are up to ``strict``.
    """
    present = {name: getattr(value, "shape", None) for name, value in model.state_dict().items()}
    shapes = {name: getattr(value, "shape", None) for name, value in weights.items()}
    different = [n for n, shape in shapes.items() if n in present and shape != present[n]]
    lacking = [n for n in weights if n not in present and _INSERTED.search(n)]
    return different + lacking
