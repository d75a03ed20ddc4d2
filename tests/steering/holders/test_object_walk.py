"""What a walk of an object finds, and what it leaves alone."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from revacnn_lightning.steering.holders.object_walk import walk_held_torch_objects


class Plain:
    """An object of the user."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


class Slotted:
    __slots__ = ("held", "unset")

    def __init__(self, held: object) -> None:
        self.held = held


class Dangerous:
    """Its property and its length must not be read."""

    def __init__(self) -> None:
        self.data = list(range(3))

    @property
    def model(self) -> None:
        raise AssertionError("a walk calls no property")

    def __len__(self) -> int:
        raise AssertionError("a walk takes no length")


def paths(value: object) -> dict[str, object]:
    return {found.path: found.value for found in walk_held_torch_objects("x", value)}


def test_modules_optimizers_and_tensors_are_found_where_they_are() -> None:
    conv, weights = nn.Conv2d(1, 1, 1), {"a": torch.ones(1)}
    adam = torch.optim.Adam(conv.parameters())
    held = Plain(
        inner=SimpleNamespace(conv=conv), slots=Slotted(weights), queue=deque([adam]), n=(3, 3)
    )
    found = paths(held)
    assert found["x.inner.conv"] is conv
    assert found["x.slots.held"] is weights
    assert found["x.queue[0]"] is adam


def test_unregistered_attributes_of_submodules_are_found() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    model[0].teacher = [nn.Linear(1, 1)]
    found = paths(model)
    assert found["x.0.teacher[0]"] is model[0].teacher[0]
    assert not any(value is model[0] for value in found.values())


def test_a_walk_calls_no_code_of_the_user_and_ends_on_cycles() -> None:
    held = Plain(dangerous=Dangerous(), again=[])
    held.again.append(held)
    assert paths(held) == {}


def test_objects_of_other_packages_are_not_entered() -> None:
    held = Plain(foreign=torch.utils.data.TensorDataset(torch.ones(3)), kind=nn.Conv2d)
    assert paths(held) == {}


def test_a_container_that_another_thread_changes_ends_no_walk():
    """A dict that a thread of the Trainer extended during the walk ended monitoring."""
    holder: dict[object, Any] = {"net": nn.Linear(2, 2)}

    class Busy:
        @property
        def __class__(self) -> type:  # read by isinstance, between two entries of the dict
            holder[object()] = None
            return Busy

    holder["busy"] = Busy()
    holder["other"] = nn.Linear(3, 3)
    found = [each.path for each in walk_held_torch_objects("callback", Plain(held=holder))]
    assert found == ["callback.held['net']", "callback.held['other']"]
