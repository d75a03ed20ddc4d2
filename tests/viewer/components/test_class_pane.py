"""The matrix of filters and classes, and the nodes that are colored by a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.messages import Refused
from revacnn_lightning.protocol.requests import InspectClass, InspectClasses
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import send_command
from viewer.components import class_colors
from viewer.components.class_colors import ColorByClassPanel
from viewer.components.class_pane import NO_GRADIENTS, WAITING, ClassMatrixPane
from viewer.components.network import NetworkView
from viewer.tab.tab_state import TabState


class Sender:
    """Records what is requested."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def __call__(self, request: Any) -> str:
        self.sent.append(request)
        return f"id-{len(self.sent)}"


def make_lens(tab: TabState, *, note: str = "", has_gradient: bool = True) -> ClassLens:
    """Return a lens of the selected layer with one filter for each of two classes."""
    structure, position = tab.structure, tab.selected_position()
    assert structure is not None
    assert position is not None
    layer = structure.layers[position[0]]
    width = len(layer.filter_ids)
    activation = np.zeros((width, 2), np.float32)
    activation[::2, 0], activation[1::2, 1] = 1, np.linspace(1, 2, width // 2)
    gradient = activation * (1 if has_gradient else np.nan)
    ones = np.ones(width, np.float32)
    return ClassLens(
        structure.run, structure.version, 7, layer.name, [] if note else [0, 3],
        [] if note else ["cat", ""], np.array([4, 4], np.float32), activation, gradient, 0.5 * ones,
        0.5 * ones, ones, batches=3, note=note,
    )  # fmt: skip


@pytest.fixture
def pane(tab: TabState) -> ClassMatrixPane:
    send_command(tab, "set_pane", option="classes")
    return ClassMatrixPane(tab)


def test_classes_are_requested_only_while_the_pane_is_open(
    tab: TabState, follower: InProcessFollower
) -> None:
    pane, sender = ClassMatrixPane(tab), Sender()
    assert pane.update() is False
    follower.classes.tick(tab.state, sender)
    assert sender.sent == []
    send_command(tab, "set_pane", option="classes")
    assert pane.update()
    assert pane.source.data["status"] == WAITING
    follower.classes.tick(tab.state, sender)
    assert tab.selection is not None
    assert sender.sent == [InspectClasses(tab.selection.layer)]
    follower.classes.receive(Refused("id-1", "not now", 0), tab.state)
    pane.update()
    assert pane.source.data["status"] == "not now"


def test_rows_are_grouped_by_the_class_that_a_filter_answers_to(
    tab: TabState, follower: InProcessFollower, pane: ClassMatrixPane
) -> None:
    lens = make_lens(tab)
    follower.classes.receive(lens, tab.state)
    assert pane.update()
    data = pane.source.data
    width = len(lens.mean)
    first = np.arange(width)[::2].tolist()
    second = np.arange(width)[1::2][::-1].tolist()
    assert data["filters"].tolist() == first + second  # the strongest first
    assert [one["name"] for one in data["classes"]] == ["cat", "class 3"]
    np.testing.assert_array_equal(data["values"], lens.effects()[data["filters"].astype(int)])
    selected = tab.selected_position()
    assert selected is not None
    assert [data["filters"][row] for row in data["selected"]] == [selected[1]]
    send_command(tab, "set_class_matrix_order", option="index")
    pane.update()
    assert pane.source.data["filters"].tolist() == list(range(width))
    assert pane.update() is False


def test_the_pulls_of_a_layer_without_gradients_say_why_there_are_none(
    tab: TabState, follower: InProcessFollower, pane: ClassMatrixPane
) -> None:
    follower.classes.receive(make_lens(tab, has_gradient=False), tab.state)
    send_command(tab, "set_class_matrix_measure", option="gradient")
    pane.update()
    assert pane.source.data["note"] == NO_GRADIENTS
    assert np.isnan(pane.source.data["values"]).all()


def test_targets_without_classes_are_named(
    tab: TabState, follower: InProcessFollower, pane: ClassMatrixPane
) -> None:
    follower.classes.receive(make_lens(tab, note="targets are numbers"), tab.state)
    pane.update()
    assert pane.source.data["status"] == "targets are numbers"
    assert "values" not in pane.source.data


def test_nodes_have_the_color_of_their_answer_to_a_class(
    tab: TabState, follower: InProcessFollower
) -> None:
    view, panel, sender = NetworkView(tab), ColorByClassPanel(tab), Sender()
    view.update()
    assert panel.content()["shown"] is False
    send_command(tab, "toggle_color_by_price")
    send_command(tab, "color_nodes_by_class_response", first=1)
    assert not tab.shows_prices
    assert panel.content()["text"] == class_colors.WAITING
    follower.classes.tick(tab.state, sender)
    assert sender.sent == [InspectClass(1)]
    state, structure = tab.state, tab.structure
    assert state is not None
    assert structure is not None
    effects = np.linspace(-1, 3, state.n_filters).astype(np.float32)
    answers = ClassAnswers(structure.run, structure.version, 3, 1, effects, 9.0, ["cat", "dog"], 2)
    follower.classes.receive(answers, state)
    content = panel.content()
    assert (content["classes"], content["chosen"]) == (["cat", "dog"], 1)
    assert content["text"] == "9.00 images (weighted)"
    view.update()
    tone = view.numbers.data["tone"]
    assert (tone[0], tone[-1]) == (0, 1)
    colored_by = view.numbers.data["colored_by"]
    assert (colored_by[0], colored_by[-1]) == (-1, 3)  # in the tooltip
    send_command(tab, "color_nodes_by_class_response", first=-1)
    view.update()
    assert "tone" not in view.numbers.data
    assert panel.content()["shown"] is False


def test_what_is_known_of_an_older_structure_is_discarded(
    tab: TabState, follower: InProcessFollower, pane: ClassMatrixPane
) -> None:
    lens = make_lens(tab)
    follower.classes.receive(replace(lens, version=lens.version + 1), tab.state)
    pane.update()
    assert pane.source.data["status"] == WAITING


def test_the_confusion_of_the_last_validation_is_beside_the_matrix(
    tab: TabState, follower: InProcessFollower, pane: ClassMatrixPane
) -> None:
    assert tab.structure is not None
    counts = np.array([[3, 1], [0, 4]], np.float32)
    confusion = Confusion(tab.structure.run, 0, 9, counts, ["cat", ""])
    follower.classes.receive(make_lens(tab), tab.state)
    follower.classes.receive(confusion, tab.state)
    pane.update()
    shown = pane.source.data["confusion"]
    assert shown["shares"].tolist() == [[0.75, 0.25], [0, 1]]
    assert shown["names"] == ["cat", "class 1"]
    assert shown["text"] == "at batch 9 · 8 images · 87.5 % right"
    unknown = replace(confusion, counts=np.zeros((0, 0), np.float32), note="compiled")
    follower.classes.receive(unknown, tab.state)
    pane.update()
    assert pane.source.data["confusion"] == {"names": [], "text": "compiled"}
