"""The functions that a replay of a recorded step calls in the place of those that ran in it.

A replay calls them with the model as the first argument.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = [
    "accept_model_argument",
    "is_in_place",
    "make_replay_function",
    "make_submodule_call",
    "torch_function_name",
]

# A function may warn of the few samples that it receives, such as a loss of sizes that differ.
# `warnings.catch_warnings` would make Python show all earlier warnings of the user's again.
warnings.filterwarnings("ignore", module=__name__.replace(".", r"\.") + "$")


def make_submodule_call(module_name: str) -> Callable[..., Any]:
    """Return a function that calls the submodule of this name of its first argument, the model."""
    return lambda model, *args, **kwargs: model.get_submodule(module_name)(*args, **kwargs)


def accept_model_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with the model as an additional first argument, which it ignores."""
    return lambda model, *args, **kwargs: function(*args, **kwargs)


def _set_data(model: nn.Module, tensor: Tensor, data: Tensor) -> None:
    """Replay ``tensor.data = data``, so that the trace sees that their channels are coupled."""
    tensor.detach().copy_(data)


def make_replay_function(func: Any, name: str) -> Callable[..., Any]:
    """Return the function that a replay calls for a torch function: without ``.data``."""
    if name == "data.__get__":
        return lambda model, tensor: tensor.detach()
    if name == "data.__set__":
        return _set_data
    if name in _DROPOUTS:
        return _follow_mode(func)
    if name in _NOISE:
        return _quiet_in_evaluation(func)
    return accept_model_argument(func)


_DROPOUTS = {
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
}  # fmt: skip
_NOISE = {"normal_", "rand_like", "randn_like", "uniform_"}


def _quiet_in_evaluation(func: Any) -> Callable[..., Any]:
    """Return a function that returns ones while the model is in evaluation mode.

    Verification compares outputs of networks of other widths, which would draw other noise.
    """

    def quiet(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        noise = func(*args, **kwargs)
        return noise if model.training else noise.fill_(1)

    return quiet


def _follow_mode(func: Any) -> Callable[..., Any]:
    """Return a dropout function that is active only while the model is in training mode."""

    def follow(model: nn.Module, input: Tensor, p: float = 0.5, training: bool = True,
               inplace: bool = False) -> Any:  # fmt: skip
        return func(input, p, training and model.training, inplace)

    return follow


def is_in_place(function_name: str) -> bool:
    """Return whether a torch function of this name changes its first argument."""
    if function_name in ("__setitem__", "data.__set__"):
        return True
    is_special = function_name[:2] == "__" or function_name[-2:] == "__"
    return function_name[-1] == "_" and not is_special


def torch_function_name(func: Any) -> str:
    """Return the name of a torch function; of a property, with ``.__get__`` or ``.__set__``."""
    name = getattr(func, "__name__", type(func).__name__)
    if name in ("__get__", "__set__"):
        return f"{getattr(func.__self__, '__name__', '')}.{name}"
    return str(name)
