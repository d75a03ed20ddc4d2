"""Random values for new and reinitialized entries, drawn as a fresh layer draws them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.steering.computed_tensors import tensor_or_original
from revacnn_lightning.telemetry.inspection.side_effects import (
    random_states_restored,
    seed_torch_random_states,
)
from revacnn_lightning.telemetry.unit_layers import UnitLayer

__all__ = ["Initialization", "Initializer"]

Initialization = Callable[[nn.Module], Any]  # as for ``nn.Module.apply``

_OF_TORCH = (nn.Conv2d.reset_parameters, nn.Linear.reset_parameters)
_EMPTY_TABLES = ("_modules", "_forward_hooks", "_forward_pre_hooks")


@dataclass
class Initializer:
    """Draws the initial values of entries.

    Args:
        generator: the source of all randomness.
        initialize: the user's function, which initializes the parameters of a module.
    """

    generator: torch.Generator
    initialize: Initialization | None = None

    @classmethod
    def seeded(cls, seed: int, initialize: Initialization | None = None) -> Initializer:
        """Return an initializer with a generator of its own."""
        return cls(torch.Generator().manual_seed(seed), initialize)

    def draw(self, module: nn.Module, name: str, like: Tensor) -> Tensor:
        """Return initial values of the shape, type and device of ``like``.

        The user's function and the layer's own ``reset_parameters`` draw them where the layer has
        one, on a copy of the layer. Convs, linear layers and their parametrizations are otherwise
        uniform in ±1/sqrt(fan in), torch's default (He et al. 2015 with a = sqrt 5); other modules
        are normal with the standard deviation of ``like``.

        Args:
            module: the module that the tensor belongs to.
            name: the tensor in the module, such as "weight".

        Raises:
            EditFailedError: the user's function raised, or returned values of no use.
        """
        reset = getattr(type(module), "reset_parameters", None)
        is_own = callable(reset) and reset not in _OF_TORCH
        is_plain = name in module._parameters and "parametrizations" not in module._modules
        if not is_plain or (self.initialize is None and not is_own):
            return default_initial_values(module, like, self.generator)
        layer = _copy_of(module, name, default_initial_values(module, like, self.generator))
        seed = int(torch.randint(2**31, (), generator=self.generator))
        with random_states_restored([like]), torch.no_grad():
            seed_torch_random_states(seed, [like])
            np.random.seed(seed)
            random.seed(seed)
            if is_own:
                _run(layer.reset_parameters, f"{type(module).__name__}.reset_parameters")
            if self.initialize is not None:
                initialize = self.initialize
                _run(lambda: initialize(layer), "the option init=...")
        values = layer._parameters.get(name)
        if values is None or values.shape != like.shape or not values.isfinite().all():
            raise EditFailedError(
                f"the initial values of {name} that the option init=... gave a "
                f"{type(module).__name__} are not finite numbers of shape {tuple(like.shape)}; "
                "correct the function. The edit was rolled back"
            )
        return values.detach().to(like)


def default_initial_values(module: nn.Module, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return torch's default initial values for a tensor of ``module``; see `Initializer.draw`."""
    if isinstance(module, (UnitLayer, ParametrizationList)):
        weight = like if like.ndim > 1 else tensor_or_original(module, "weight")
        weight = like if weight is None else weight
        fan_in = nn.init._calculate_fan_in_and_fan_out(weight)[0] if weight.ndim > 1 else 1
        bound = 1 / math.sqrt(max(fan_in, 1))
        values = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        values = (2 * values - 1) * bound
    else:
        spread = float(like.double().std()) if like.numel() > 1 else 1.0
        values = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        values = values * (spread or 1.0)
    return values.to(like)


def _copy_of(module: nn.Module, name: str, values: Tensor) -> Any:
    """Return a copy of a layer on the CPU, with these values, without children and hooks."""
    layer = object.__new__(type(module))
    vars(layer).update(vars(module))
    vars(layer).update({table: {} for table in _EMPTY_TABLES if table in vars(module)})
    own = {**module._parameters, name: values}
    dtype = torch.float64 if values.dtype == torch.float64 else torch.float32
    vars(layer)["_parameters"] = {
        each: None if tensor is None else nn.Parameter(tensor.detach().to("cpu", dtype, copy=True))
        for each, tensor in own.items()
    }
    vars(layer)["_buffers"] = {
        each: None if tensor is None else tensor.detach().to("cpu", copy=True)
        for each, tensor in module._buffers.items()
    }
    return layer


def _run(initialize: Callable[[], Any], what: str) -> None:
    try:
        initialize()
    except Exception as error:  # the user's code may raise anything
        raise EditFailedError(
            f"{what} raised {type(error).__name__}: {error}; correct it. The edit was rolled back"
        ) from error
