"""Finds copies of parameters that a registered module keeps as buffers.

A buffer's name must not contain a dot, so such modules (``LitEma`` of latent-diffusion) leave the
dots out of the parameters' names, or write underscores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from revacnn_lightning.steering.holders.copy_evidence import SIMILAR, tensor_similarity
from revacnn_lightning.steering.holders.model_copy import ModelPartCopy
from revacnn_lightning.steering.holders.module_matching import is_inside_module
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = ["BufferCopy", "find_parameters_copied_to_buffers"]


@dataclass(eq=False)
class BufferCopy(ModelPartCopy):
    """The buffers of a module of the model that are copies of another module's parameters.

    Attributes:
        path: the name of the module with the buffers.
        origin: the name of the module with the parameters.
        buffers: parameter -> buffer, by their names in the model.
    """

    path: str
    origin: str
    buffers: Mapping[str, str] = field(repr=False)

    def name_in_copy(self, name: str) -> str | None:
        """Return the name of the buffer that is a copy of a parameter; None if there is none."""
        return self.buffers.get(name)

    def concerns_layer_at(self, host_name: str) -> bool:
        """Return whether a module is inside the origin."""
        return is_inside_module(host_name, self.origin) or is_inside_module(self.origin, host_name)

    def refusal(self, plan: EditPlan) -> str:
        """Return why a plan cannot be performed on the copy; "" if it can."""
        if not any(self.concerns_layer_at(edit.host) for edit in plan.layers):
            return ""
        return (
            f"{self.path} keeps the parameters of {self.origin or 'the model'} as buffers by names "
            "of its own, so no layer can be inserted or removed; keep a copy of the module instead"
        )


def find_parameters_copied_to_buffers(
    model: nn.Module, skipped_modules: Sequence[str]
) -> list[BufferCopy]:
    """Find the parameters that modules of a model keep copies of as buffers, by module.

    Args:
        skipped_modules: the names of the modules that are copies of others. No copies of these are
            searched.
    """
    found = []
    for path, module in list_named_modules(model):
        has_weights = any(b is not None and b.ndim > 1 for b in module._buffers.values())
        if has_weights and not module._parameters:
            copy = _best_origin(model, path, module, skipped_modules)
            if copy is not None:
                found.append(copy)
    return found


def _best_origin(
    model: nn.Module, path: str, module: nn.Module, skipped_modules: Sequence[str]
) -> BufferCopy | None:
    best, best_similarity = None, SIMILAR
    for origin, other in model.named_modules():
        if is_inside_module(path, origin) != (origin == "") or any(
            is_inside_module(origin, c) for c in skipped_modules
        ):
            continue
        parameters = {n: p for n, p in other.named_parameters() if p.requires_grad and p.ndim > 1}
        for separator in ("", "_"):
            names = {n: n.replace(".", separator) for n, _ in other.named_parameters()}
            buffers = module._buffers
            pairs = [
                (p, b) for n, p in parameters.items() if (b := buffers.get(names[n])) is not None
            ]
            if not parameters or len(pairs) < len(parameters):
                continue
            if any(p.shape != b.shape for p, b in pairs):
                continue
            similarity = tensor_similarity(pairs)
            if similarity > best_similarity:
                best_similarity = similarity
                joined = {
                    _join(origin, n): _join(path, buffer)
                    for n, buffer in names.items()
                    if buffers.get(buffer) is not None
                }
                best = BufferCopy(path, model, path, origin, joined, is_registered=True)
    return best


def _join(module_name: str, name: str) -> str:
    return f"{module_name}.{name}" if module_name else name
