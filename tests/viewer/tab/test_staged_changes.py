from __future__ import annotations

from revacnn_lightning.protocol.messages import Planned, PlanSummary, Structure
from revacnn_lightning.protocol.requests import (
    AddFilters,
    InsertLayer,
    RemoveFilters,
    RemoveLayer,
    ScaleLearningRate,
)
from tests.viewer.fake_training import FakeTraining
from viewer.tab.staged_changes import StagedChanges


def structure() -> Structure:
    return FakeTraining("digits").structure()  # ids: conv1 0-7, conv2 8-23, conv3 24-39


def test_changes_of_one_layer_become_one_edit() -> None:
    staging = StagedChanges()
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
    staging = StagedChanges()
    staging.toggle_removal("conv2", 11)
    staging.toggle_removal("conv2", 11)
    assert staging.changes == []


def test_a_rate_is_staged_once_per_layer_and_ends_with_its_edit() -> None:
    staging, training = StagedChanges(), FakeTraining("digits")
    staging.scale_rate("conv2", 0.5)
    staging.scale_rate("conv2", 0.1)
    (change,) = staging.changes
    assert change.to_edit(structure()) == ScaleLearningRate("conv2", 0.1)
    training.rates["conv2"] = 0.1
    staging.update_structure(training.structure())
    assert staging.changes == []
    staging.scale_rate("conv2", 1.0)
    (change,) = staging.changes
    assert (change.verb, change.title(structure())) == ("Train", "conv2 at the full learning rate")


def test_each_split_is_a_separate_edit() -> None:
    staging = StagedChanges()
    staging.split("conv2", 12)
    staging.split("conv2", 12)
    assert [change.to_edit(structure()) for change in staging.changes] == [
        AddFilters("conv2", 1, split_from=4)
    ]


def test_editing_a_change_invalidates_its_plan() -> None:
    staging = StagedChanges()
    staging.toggle_removal("conv2", 11)
    staging.changes[0].plan_id, staging.changes[0].plan = "p", Planned("p", PlanSummary("x"))
    staging.toggle_removal("conv2", 12)
    assert staging.changes[0].plan is None
    assert staging.changes[0].plan_id == ""


def test_a_change_is_sent_as_confirmed_only_after_the_person_has_confirmed_it() -> None:
    staging = StagedChanges()
    staging.add("conv2")
    (change,) = staging.changes
    change.plan = Planned("p", PlanSummary("x", confirmation="a new filter changes all others"))
    assert change.confirmation
    assert change.to_edit(structure()) == AddFilters("conv2", 1)
    staging.toggle_confirmed(change.key)
    assert change.to_edit(structure()) == AddFilters("conv2", 1, confirmed=True)
    staging.update_structure(structure())  # after another change of the same Apply
    assert change.to_edit(structure()) == AddFilters("conv2", 1, confirmed=True)
    staging.add("conv2")  # another plan: the person has not seen what it changes
    assert change.to_edit(structure()) == AddFilters("conv2", 2)


def test_update_structure_drops_removed_filters() -> None:
    training, staging = FakeTraining("digits"), StagedChanges()
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
    staging = StagedChanges()
    for id_ in range(8, 20):
        staging.toggle_removal("conv2", id_)
    assert staging.changes[0].title(structure()) == "conv2 · 12 filters"


def test_discard_one_change_or_all() -> None:
    staging = StagedChanges()
    staging.add("conv1")
    staging.add("conv2")
    staging.discard("add/conv1")
    assert [change.layer for change in staging.changes] == ["conv2"]
    staging.discard()
    assert staging.changes == []


def test_inserting_twice_discards_it_and_another_block_replaces_it() -> None:
    staging = StagedChanges()
    staging.insert_layer("conv2", "residual")
    assert staging.changes[0].title(structure()) == "a residual block after conv2"
    staging.insert_layer("conv2", "dirac")
    assert [one.to_edit(structure()) for one in staging.changes] == [InsertLayer("conv2", "dirac")]
    staging.insert_layer("conv2", "dirac")
    assert staging.changes == []


def test_layers_are_sent_after_filters_because_filters_name_them() -> None:
    staging = StagedChanges()
    staging.remove_layer("conv2")
    staging.insert_layer("conv1", "residual")
    staging.add("conv2")
    assert [one.to_edit(structure()) for one in staging.in_send_order()] == [
        AddFilters("conv2"), InsertLayer("conv1"), RemoveLayer("conv2"),
    ]  # fmt: skip


def test_a_block_of_layers_is_removed_by_its_path_while_it_has_layers() -> None:
    resnet = FakeTraining("resnet18").structure()
    path = resnet.layers[3].name.rpartition(".")[0]
    staging = StagedChanges()
    staging.remove_layer(path)
    staging.remove_layer("layer")  # the beginning of a name, but no module
    assert [change.to_edit(resnet) for change in staging.changes] == [RemoveLayer(path), None]
    assert staging.changes[0].title(resnet) == f"the block {path}"
    staging.update_structure(structure())  # of another network
    assert staging.changes == []


def test_opposite_changes_of_filters_cancel() -> None:
    staging = StagedChanges()
    staging.add("conv2", 2)
    assert staging.discard_one_added("conv2") is True
    assert [change.count for change in staging.changes] == [1]
    assert staging.discard_one_added("conv2") is True
    assert staging.discard_one_added("conv2") is False
    staging.toggle_removal("conv2", 9)
    staging.toggle_removal("conv2", 11)
    assert staging.discard_last_removal("conv2") is True
    assert [change.ids for change in staging.changes] == [[9]]
    assert staging.discard_last_removal("conv2") is True
    assert staging.discard_last_removal("conv2") is False
    assert staging.changes == []
