"""Finding the layers, filters and tensors that a request or a plan names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.telemetry.conv import stored_tensor
from revacnn_lightning.telemetry.unit_layers import UnitLayer, filter_count

__all__ = ["check_filters", "find_layer", "find_module", "find_owner_and_tensor"]


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Return the submodule of this name.

    Raises:
        EditRefusedError: the model has no such submodule.
    """
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise EditRefusedError(f"there is no layer {name!r} in this network") from error


def find_layer(model: nn.Module, name: str) -> UnitLayer:
    """Return the convolution or linear layer of this name.

    Raises:
        EditRefusedError: the model has no such layer, or the layer has no filters.
    """
    module = find_module(model, name)
    if not isinstance(module, UnitLayer):
        raise EditRefusedError(
            f"{name!r} is a {type(module).__name__}; only convs and linear layers have filters"
        )
    return module


def check_filters(conv: UnitLayer, layer: str, filters: Sequence[int]) -> None:
    """Check that ``filters`` are distinct filter indices of a layer, at least one.

    Raises:
        EditRefusedError: they are not.
    """
    if not filters:
        raise EditRefusedError(f"no filter of {layer} was named; name at least one")
    count = filter_count(conv)
    for index in filters:
        if not 0 <= index < count:
            raise EditRefusedError(
                f"{layer} has no filter {index}; its filters are 0 to {count - 1}"
            )
    if len(set(filters)) != len(filters):
        raise EditRefusedError(f"a filter of {layer} is listed twice in {list(filters)}")


def find_owner_and_tensor(model: nn.Module, name: str) -> tuple[nn.Module, Tensor]:
    """Return the parameter or buffer of this name and the module that owns it."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    tensor = stored_tensor(owner, attribute)
    if tensor is None:
        raise AttributeError(f"the model has no parameter or buffer {name!r}")
    return owner, tensor
