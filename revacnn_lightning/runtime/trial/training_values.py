"""Copies of everything that training steps change: a model's tensors and its optimizer's state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.steering.execution.entry_ages import ages_to_data, restore_ages_from_data

__all__ = ["RATES", "TrainedTensors", "TrainingValues", "set_scheduled_options"]

# Entries of parameter groups that schedules set; optimizers keep others there themselves.
RATES = ("lr", "weight_decay", "momentum", "betas")


class TrainedTensors:
    """The tensors of a training by name: an edit may replace a tensor, and keeps its name.

    Args:
        model: the network.
        optimizer: trains it.
        others: tensors that modules hold beside their parameters and buffers.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, others: Iterable[Tensor]) -> None:
        self.model = model
        self.optimizer = optimizer
        self._others = [each for each in others if _is_plain(each)]

    def by_name(self) -> dict[str, Tensor]:
        """Return the present tensors by their names."""
        named: dict[str, Tensor] = dict(self.model.named_parameters())
        named.update(self.model.named_buffers())
        known = {id(tensor) for tensor in named.values()}
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        for i, tensor in enumerate([*self._others, *trained]):
            if id(tensor) not in known:
                known.add(id(tensor))
                named[f"the tensor {i}"] = tensor
        return named


class TrainingValues:
    """The values of a training at one moment.

    Attributes:
        nbytes: how much memory the copies take.
    """

    def __init__(self, tensors: TrainedTensors) -> None:
        self._tensors = tensors
        optimizer, named = tensors.optimizer, tensors.by_name()
        names = {id(tensor): name for name, tensor in named.items()}
        self._values = {name: tensor.detach().clone() for name, tensor in named.items()}
        self._strides = {name: tensor.stride() for name, tensor in named.items()}
        self._state = {
            names[id(parameter)]: _copied(state)
            for parameter, state in optimizer.state.items()
            if id(parameter) in names
        }
        self._groups = [_without_parameters(group) for group in optimizer.param_groups]
        self._ages = ages_to_data(tensors.model, [optimizer])
        values = [*self._values.values(), *_tensors_in(self._state)]
        self.nbytes = sum(value.nbytes for value in values)

    @staticmethod
    def count_bytes(tensors: TrainedTensors) -> int:
        """Return how much memory copies of the present values would take."""
        values = [*tensors.by_name().values(), *_tensors_in(dict(tensors.optimizer.state))]
        return sum(value.nbytes for value in values)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the training these values. Its tensors must have their names and shapes of then."""
        optimizer, named = self._tensors.optimizer, self._tensors.by_name()
        for name, value in self._values.items():
            _assign(named[name], value, self._strides[name])
        for name, parameter in named.items():
            if name in self._state:
                present = optimizer.state[parameter]
                restored = _restored(present, self._state[name])
                present.clear()
                present.update(restored)
            else:
                optimizer.state.pop(parameter, None)
        for group, values in zip(optimizer.param_groups, self._groups, strict=True):
            group.update({key: _restored(group.get(key), one) for key, one in values.items()})
        restore_ages_from_data(self._tensors.model, [optimizer], deepcopy(self._ages))

    def restore_rates(self) -> None:
        """Give the parameter groups these rates again."""
        set_scheduled_options(self._tensors.optimizer, self._groups)

    @property
    def rates(self) -> list[dict[str, Any]]:
        """The rates of each parameter group."""
        return [{key: one for key, one in g.items() if key in RATES} for g in self._groups]

    def find_difference(self) -> str:
        """Return the name of something that has another value now, bit by bit; "" if nothing."""
        optimizer, named = self._tensors.optimizer, self._tensors.by_name()
        if named.keys() != self._values.keys():
            return "the tensors of the network"
        for name, value in self._values.items():
            if not _are_equal(named[name].detach(), value):
                return name
        states = {
            name: dict(optimizer.state[p]) for name, p in named.items() if p in optimizer.state
        }
        for name in states.keys() | self._state.keys():
            if not _are_equal(states.get(name), self._state.get(name)):
                return f"the optimizer's state of {name}"
        return ""


def set_scheduled_options(optimizer: Optimizer, rates: Iterable[Mapping[str, Any]]) -> None:
    """Give the parameter groups these rates, in their order; other keys are ignored."""
    with torch.no_grad():
        for group, values in zip(optimizer.param_groups, rates, strict=True):
            for key in RATES:
                if key in values:
                    group[key] = _restored(group.get(key), values[key])


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor can be copied: lazy, meta and sparse ones are left alone."""
    is_known = type(tensor) in (Tensor, nn.Parameter)
    return is_known and tensor.layout == torch.strided and not tensor.is_meta


def _without_parameters(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) for key, value in group.items() if key != "params"}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_copied(one) for one in value)
    return deepcopy(value)


def _restored(present: Any, value: Any) -> Any:
    """Return ``present`` with a copied value, or a copy of the value if that is not possible."""
    if isinstance(value, Tensor) and isinstance(present, Tensor) and _is_alike(present, value):
        present.detach().copy_(value)
        return present
    if isinstance(value, dict) and isinstance(present, dict):
        return {key: _restored(present.get(key), one) for key, one in value.items()}
    return _copied(value)


def _assign(tensor: Tensor, value: Tensor, stride: tuple[int, ...]) -> None:
    """Give a tensor a value and its memory format, which decides on the algorithm of a conv."""
    if not _is_alike(tensor, value):
        raise RuntimeError(f"a tensor has the shape {tuple(tensor.shape)}, not that of its copy")
    if tensor.stride() == stride:
        tensor.detach().copy_(value)
    else:
        tensor.data = value.clone()


def _is_alike(tensor: Tensor, value: Tensor) -> bool:
    is_same = tensor.dtype == value.dtype and tensor.device == value.device
    return is_same and tensor.shape == value.shape


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_equal(v, other[k]) for k, v in one.items())
    if type(one) in (list, tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    return type(one) is type(other) and bool(one == other)


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (dict, list, tuple)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(one)
