"""`StructureAndStatusPublisher`: what is published of the structure and the state, and when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from revacnn_lightning import AddFilters, Status, Structure
from revacnn_lightning.protocol.messages import Message
from revacnn_lightning.runtime import heartbeat
from revacnn_lightning.runtime.status import StructureAndStatusPublisher
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.telemetry import Recorder


class SmallRun:
    """A run of a small network; `published` holds all published messages."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        self.editor = Editor(self.model, [self.optimizer])
        self.recorder = Recorder(self.model)
        self.recorder.attach()
        self.published: list[Message] = []
        self.status = StructureAndStatusPublisher(
            "run",
            self.model,
            self.editor,
            self.recorder,
            get_optimizers=lambda: [self.optimizer],
            publish=self.published.append,
        )

    def forward(self) -> torch.Tensor:
        return self.model(torch.ones(2, 1, 8, 8))

    def train_batch(self) -> bool:
        """Train a batch; return whether the structure has changed."""
        self.recorder.begin_batch()
        self.forward().sum().backward()
        self.recorder.end_batch()
        self.status.step += 1
        return self.status.publish_order_if_changed()

    def edit(self) -> None:
        self.editor.apply(AddFilters("0", 1), self.make_probe())
        self.recorder.update_structure()
        self.status.publish_edit()

    def make_probe(self) -> ForwardProbe:
        return ForwardProbe([self.forward], samples=2)


@pytest.fixture
def run() -> Iterator[SmallRun]:
    run = SmallRun()
    yield run
    run.recorder.detach()


def test_before_the_first_batch_the_initial_messages_hold_the_state_alone(run: SmallRun) -> None:
    assert [type(message) for message in run.status.initial_messages()] == [Status]
    assert run.train_batch()
    structure, status = run.status.initial_messages()
    assert isinstance(structure, Structure)
    assert [layer.name for layer in structure.layers] == ["0", "2"]
    assert status.parameter_groups[0].learning_rate == 0.5


def test_the_version_increases_with_every_published_structure(run: SmallRun) -> None:
    assert run.train_batch()
    assert run.status.version == 0
    assert not run.train_batch()
    run.edit()
    assert run.status.version == 1
    assert [len(layer.filter_ids) for layer in run.published[-1].layers] == [5, 3]
    assert [message.version for message in run.published] == [0, 1]


def test_the_structure_is_published_again_after_the_first_batch_behind_an_edit(
    run: SmallRun,
) -> None:
    """Only this batch shows what each activation sums."""
    run.train_batch()
    run.edit()
    before = len(run.published)
    assert not run.train_batch()
    assert not run.train_batch()
    assert [message.version for message in run.published[before:]] == [1]
    assert run.published[-1].layers[0].activation_source == "1"


def test_the_topology_is_traced_once_per_version(run: SmallRun) -> None:
    traced_versions = []

    def make_probe() -> ForwardProbe:
        traced_versions.append(run.status.version)
        return run.make_probe()

    run.status.publish_topology_if_outdated(make_probe)  # no effect: the structure is unknown yet
    run.train_batch()
    run.status.publish_topology_if_outdated(make_probe)
    run.status.publish_topology_if_outdated(make_probe)
    assert run.published[-1].edges == [(0, 1)]
    assert traced_versions == [0]


def test_a_traced_structure_has_the_size_and_the_cost_of_each_layer(run: SmallRun) -> None:
    run.train_batch()
    first = run.status.structure
    assert first is not None
    assert [layer.parameters for layer in first.layers] == [4 * 9 + 4, 3 * 4 * 9 + 3]
    assert [(layer.macs, layer.output_size) for layer in first.layers] == [(0, None)] * 2
    run.status.publish_topology_if_outdated(run.make_probe)
    traced = run.status.structure
    assert traced is not None
    assert [layer.macs for layer in traced.layers] == [4 * 9 * 36, 3 * 4 * 9 * 16]
    assert [layer.output_size for layer in traced.layers] == [(6, 6), (4, 4)]


def test_an_edited_structure_is_published_with_its_edges(run: SmallRun) -> None:
    """Without edges, the page would draw the network as a chain until they arrive."""
    run.train_batch()
    run.status.publish_topology_if_outdated(run.make_probe)
    before = len(run.published)

    run.edit()
    run.status.publish_topology_if_outdated(run.make_probe)

    published = [(message.version, message.edges) for message in run.published[before:]]
    assert published == [(1, [(0, 1)])]


def test_a_layer_in_whose_place_the_model_has_put_another_module_is_not_described(
    run: SmallRun,
) -> None:
    """The model's code may do this at any time; the recorder notices within a second."""
    run.train_batch()
    run.model[2] = nn.ReLU()
    run.status.publish_edit()
    assert [layer.name for layer in run.published[-1].layers] == ["0"]


def test_heartbeats_are_sent_on_every_change_and_once_a_second(
    run: SmallRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now)
    for at, state in [(100, "training"), (100.5, "training"), (100.6, "paused"), (101.7, "paused")]:
        now = at
        run.status.send_heartbeat_if_due(state)
    assert [message.state for message in run.published] == ["training", "paused", "paused"]


def test_a_repeated_heartbeat_and_a_new_viewer_receive_the_detail_of_the_state(
    run: SmallRun,
) -> None:
    run.status.send_heartbeat("training", "pauses in 3 batches")
    run.status.repeat_heartbeat()
    messages = [*run.published, *run.status.initial_messages()]
    assert [message.detail for message in messages] == ["pauses in 3 batches"] * 3
    run.status.send_heartbeat("training")
    assert [message.detail for message in run.status.initial_messages()] == [""]
