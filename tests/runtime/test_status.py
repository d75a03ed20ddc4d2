"""`StatusPublisher`: what is told of the structure and the state, and when."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from revacnn_lightning.protocol.messages import Message, Status, Structure
from revacnn_lightning.protocol.requests import AddFilters
from revacnn_lightning.runtime import status as module
from revacnn_lightning.runtime.status import StatusPublisher
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder


class World:
    """A small network, and all that is told of it."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        self.editor = Editor(self.model, [self.optimizer])
        self.recorder = Recorder(self.model)
        self.recorder.attach()
        self.told: list[Message] = []
        self.notices = StatusPublisher(
            "run",
            self.model,
            self.editor,
            self.recorder,
            optimizers=lambda: [self.optimizer],
            publish=self.told.append,
        )

    def forward(self) -> torch.Tensor:
        return self.model(torch.ones(2, 1, 8, 8))

    def batch(self) -> bool:
        """Train one; whether the structure is another after it."""
        self.recorder.begin_batch()
        self.forward().sum().backward()
        self.recorder.end_batch()
        self.notices.step += 1
        return self.notices.follow_order()

    def edit(self) -> None:
        self.editor.apply(AddFilters("0", 1), self.probe())
        self.recorder.update_structure()
        self.notices.edited()

    def probe(self) -> ForwardProbe:
        return ForwardProbe([self.forward], samples=2)


@pytest.fixture
def world() -> World:
    return World()


def test_before_the_first_batch_a_viewer_is_told_the_state_alone(world: World) -> None:
    assert [type(message) for message in world.notices.greeting()] == [Status]
    assert world.batch()
    structure, status = world.notices.greeting()
    assert isinstance(structure, Structure)
    assert [layer.name for layer in structure.layers] == ["0", "2"]
    assert status.parameter_groups[0].learning_rate == 0.5


def test_the_version_counts_the_structures_that_were_published(world: World) -> None:
    assert world.batch()
    assert world.notices.version == 0
    assert not world.batch()
    world.edit()
    assert world.notices.version == 1
    assert [len(layer.filter_ids) for layer in world.told[-1].layers] == [5, 3]
    assert [message.version for message in world.told] == [0, 1]


def test_after_the_batch_behind_an_edit_the_structure_is_told_again(world: World) -> None:
    """Only then it is known again what each activation sums."""
    world.batch()
    world.edit()
    before = len(world.told)
    assert not world.batch()
    assert not world.batch()
    assert [message.version for message in world.told[before:]] == [1]
    assert world.told[-1].layers[0].activation_source == "1"


def test_the_topology_is_traced_once_per_version(world: World) -> None:
    asked = []

    def probe() -> ForwardProbe:
        asked.append(world.notices.version)
        return world.probe()

    world.notices.learn_topology(probe)  # nothing is known yet, of which it could be told
    world.batch()
    world.notices.learn_topology(probe)
    world.notices.learn_topology(probe)
    assert world.told[-1].edges == [(0, 1)]
    assert asked == [0]


def test_an_edited_network_is_never_told_without_what_feeds_what(world: World) -> None:
    """The page would draw it as a chain, until it is told."""
    world.batch()
    world.notices.learn_topology(world.probe)
    before = len(world.told)

    world.edit()
    world.notices.learn_topology(world.probe)

    assert [(told.version, told.edges) for told in world.told[before:]] == [(1, [(0, 1)])]


def test_the_state_is_told_on_every_change_and_at_least_once_a_second(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    for at, state in [(100, "training"), (100.5, "training"), (100.6, "paused"), (101.7, "paused")]:
        now = at
        world.notices.beat_if_due(state)
    assert [message.state for message in world.told] == ["training", "paused", "paused"]
