from __future__ import annotations

from revacnn_lightning.protocol.messages import Planned, PlanSummary, Structure
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from tests.viewer.fake_training import FakeTraining
from viewer.tab.staging import Staging


def structure() -> Structure:
    return FakeTraining("digits").structure()  # ids: conv1 0-7, conv2 8-23, conv3 24-39


def test_changes_of_one_layer_become_one_edit() -> None:
    staging = Staging()
    for id_ in (11, 9):
        staging.toggle_removal("conv2", id_)
    staging.add("conv1")
    staging.add("conv1")
    edits = [change.to_edit(structure()) for change in staging.in_send_order()]
    assert edits == [RemoveFilters("conv2", [1, 3]), AddFilters("conv1", 2)]
    assert [change.title(structure()) for change in staging.changes] == [
        "conv2 · filters 1, 3", "2 filters to conv1",
    ]  # fmt: skip


def test_staging_twice_discards_the_change() -> None:
    staging = Staging()
    staging.toggle_removal("conv2", 11)
    staging.toggle_removal("conv2", 11)
    assert staging.changes == []


def test_each_split_is_a_separate_edit() -> None:
    staging = Staging()
    staging.split("conv2", 12)
    staging.split("conv2", 12)
    assert [change.to_edit(structure()) for change in staging.changes] == [
        AddFilters("conv2", 1, split_from=4)
    ]


def test_editing_a_change_invalidates_its_plan() -> None:
    staging = Staging()
    staging.toggle_removal("conv2", 11)
    staging.changes[0].plan_id, staging.changes[0].plan = "p", Planned("p", PlanSummary("x"))
    staging.toggle_removal("conv2", 12)
    assert staging.changes[0].plan is None
    assert staging.changes[0].plan_id == ""


def test_update_structure_drops_removed_filters() -> None:
    training, staging = FakeTraining("digits"), Staging()
    staging.toggle_removal("conv2", 9)
    staging.toggle_removal("conv2", 13)
    staging.toggle_removal("conv1", 0)
    training.ids[1] = [i for i in training.ids[1] if i not in (8, 9)]  # indices shift, 9 is gone
    training.ids[0] = training.ids[0][1:]
    staging.update_structure(training.structure())
    assert [change.to_edit(training.structure()) for change in staging.changes] == [
        RemoveFilters("conv2", [3])
    ]


def test_title_counts_many_filters() -> None:
    staging = Staging()
    for id_ in range(8, 20):
        staging.toggle_removal("conv2", id_)
    assert staging.changes[0].title(structure()) == "conv2 · 12 filters"


def test_discard_one_change_or_all() -> None:
    staging = Staging()
    staging.add("conv1")
    staging.add("conv2")
    staging.discard("add/conv1")
    assert [change.layer for change in staging.changes] == ["conv2"]
    staging.discard()
    assert staging.changes == []
