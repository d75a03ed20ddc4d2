"""A tab goes on with the run that resumes its run."""

from __future__ import annotations

from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.requests import RemoveFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.fake_training import FakeTraining
from tests.viewer.tab.actions import send_command
from viewer.components.change_list import ReplyPanel
from viewer.runs.run_state import RunState
from viewer.tab.tab_state import TabState


def resume(tab: TabState, first_step: int) -> InProcessFollower:
    follower = InProcessFollower(FakeTraining("digits"))
    follower.training.step = first_step
    connection = Connection("resumed", "", "", "", first_step=first_step)
    follower.state = RunState(connection, tab.state)
    follower.attach()
    tab.run_selection.follower = follower
    tab.update()
    return follower


def test_the_view_stays_and_the_resume_is_announced(tab: TabState) -> None:
    tab.select(1, 5)
    chosen = tab.selection
    tab.pane = "layer"
    tab.expanded_layers.add("conv3")
    resume(tab, 2)
    assert tab.selection == chosen
    assert (tab.pane, tab.expanded_layers) == ("layer", {"conv3"})
    reply = ReplyPanel(tab).content()
    assert reply["title"] == "Resumed from a checkpoint, at batch 2"
    assert reply["state"] == "done"
    assert reply["text"] == "2 batches after the checkpoint are lost"


def test_what_is_staged_for_the_run_before_is_not_applied_to_this_one(tab: TabState) -> None:
    send_command(tab, "stage_add", layer=0)
    assert tab.staging.changes
    resume(tab, 2)
    assert not tab.staging.changes
    assert not tab.edit_queue.is_busy


def test_a_filter_of_an_edited_layer_is_not_mistaken_for_another_one(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.request(RemoveFilters("conv2", [0]), "an edit", 0)
    follower.deliver()
    tab.update()
    tab.select(1, 5)
    chosen = tab.selection
    resume(tab, 2)
    assert tab.selection != chosen
