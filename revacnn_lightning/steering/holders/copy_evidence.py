"""What shows that a module is a copy that is updated from another, not one that learns by itself.

Two modules of the same structure may be two towers, or a network and its momentum encoder. These
facts distinguish them:

- An optimizer trains both: they are independent, even if they started as equals.
- Their weights have nothing in common (the cosine of two random initializations is about 0): they
  are independent, as a student and its teacher are. An average stays close to what it averages.
- No optimizer trains it, but its values have changed: it is updated from the other one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from revacnn_lightning.telemetry.module_tree import list_named_parameters
from revacnn_lightning.telemetry.split_tensors import local_part

__all__ = [
    "SIMILAR",
    "TrainedParameters",
    "UntrainedChanges",
    "tensor_similarity",
    "weight_similarity",
]

# The cosine from which two weight tensors are related. Independent ones stay below 0.1.
SIMILAR = 0.5
COMPARED = 1 << 13  # values of each tensor that are compared
SAMPLED = 16  # values of each untrained tensor that are remembered


class TrainedParameters:
    """Which parameters the optimizers train."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._has_optimizers = bool(optimizers)
        listed = {id(p): p for o in optimizers for g in o.param_groups for p in g["params"]}
        with_state = {id(p) for o in optimizers for p, state in o.state.items() if state}
        learning = {i for i, p in listed.items() if p.grad is not None} | with_state
        # A momentum encoder may be listed along with all parameters, but it never gets a gradient.
        # Before the first step nothing has one.
        self._trained = (learning or set(listed)) & {i for i, p in listed.items()}

    def has_any_of(self, module: nn.Module, *, is_registered: bool = True) -> bool:
        """Return whether a parameter of the module is trained.

        Without optimizers, those of a module ``is_registered`` in the model are taken to be.
        """
        return any(self._is_trained(p, is_registered) for p in module.parameters())

    def has_all_weights_of(self, model: nn.Module) -> bool:
        """Return whether each parameter of the model that may be a weight is trained."""
        weights = (p for _, p in list_named_parameters(model) if is_lazy(p) or p.ndim > 1)
        return all(self._is_trained(p, is_registered=True) for p in weights)

    def _is_trained(self, parameter: nn.Parameter, is_registered: bool) -> bool:
        is_unknown = is_registered and not self._has_optimizers
        return parameter.requires_grad and (is_unknown or id(parameter) in self._trained)


class UntrainedChanges:
    """Notices which tensors change although no optimizer trains them."""

    def __init__(self) -> None:
        self._samples: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        self._changed: dict[int, weakref.ref[Tensor]] = {}

    def remember(self, modules: Iterable[nn.Module], trained: TrainedParameters) -> None:
        """Remember some values of every untrained weight of these modules."""
        for module in modules:
            for child in module.modules():
                if not trained.has_any_of(child):
                    for p in child.parameters(recurse=False):
                        if not is_lazy(p) and p.ndim > 1 and id(p) not in self._samples:
                            self._samples[id(p)] = weakref.ref(p), _sample(p)

    def update(self) -> None:
        """Note what has changed; call this before an edit, which moves values."""
        for key, (ref, sample) in list(self._samples.items()):
            tensor = ref()
            if tensor is None:
                del self._samples[key]
            elif not torch.equal(_sample(tensor), sample):
                self._changed[key] = ref

    def restart(self) -> None:
        """Remember the present values; call this after an edit."""
        for key, (ref, _) in list(self._samples.items()):
            tensor = ref()
            if tensor is not None:
                self._samples[key] = ref, _sample(tensor)

    def has_changed(self, module: nn.Module) -> bool:
        """Return whether an untrained weight of the module has changed since it was remembered."""
        return any(
            id(p) in self._changed and self._changed[id(p)]() is p for p in module.parameters()
        )


def _sample(tensor: Tensor) -> Tensor:
    return local_part(tensor).flatten()[:SAMPLED].clone()  # no collective of split parameters


def weight_similarity(a: nn.Module, b: nn.Module) -> float:
    """Return the cosine of the weights of two modules of the same structure.

    It is 1 for equal weights. Gains and biases do not count: they start as equals.
    """
    others = dict(b.named_parameters())
    pairs = [(p, others[name]) for name, p in a.named_parameters() if p.ndim > 1 and name in others]
    return tensor_similarity(pairs)


def tensor_similarity(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the cosine of two lists of tensors, given in pairs of the same shape."""
    dot = square_a = square_b = 0.0
    for a, b in pairs:
        x = a.detach().flatten()[:COMPARED].double().cpu()
        y = b.detach().flatten()[:COMPARED].double().cpu()
        dot += float(x @ y)
        square_a += float(x @ x)
        square_b += float(y @ y)
    if square_a == square_b == 0:
        return 1.0  # both are zero
    return dot / max((square_a * square_b) ** 0.5, 1e-300)
