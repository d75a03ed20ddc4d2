from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.access_messages import Access, RequestOutcome
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import ParameterGroup, Planned, PlanSummary, Refused
from revacnn_lightning.protocol.requests import SetGradientClipping
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.change_list import EditsAndAlertsPanel, ReplyPanel
from viewer.components.controls import ControlsPanel
from viewer.components.header import Header
from viewer.components.layer_panel import LayerPanel
from viewer.components.network import NetworkView
from viewer.components.selection_panel import SelectionPanel
from viewer.components.staging_bar import StagingBar
from viewer.components.timeline import LAYER_MEANS_ONLY, Timeline
from viewer.rendering.plan_costs import format_network_size_change
from viewer.runs.run_follower import RunFollower
from viewer.tab.page_link import PageLink
from viewer.tab.tab_state import TabState

PANELS = [Header, SelectionPanel, StagingBar, ReplyPanel, EditsAndAlertsPanel]


@pytest.mark.parametrize("component", [NetworkView, *PANELS])
def test_unchanged_panels_send_nothing(tab: TabState, component: Callable[[TabState], Any]) -> None:
    panel = component(tab)
    panel.update()
    assert panel.update() is False


def test_header_shows_the_newest_figures(tab: TabState, follower: InProcessFollower) -> None:
    header = Header(tab)
    header.update()
    data = header.source.data
    fields = {field["label"]: field["value"] for field in data["fields"]}
    assert data["run"] == "attached"
    assert data["kind"] == "training"
    assert fields["Layers · filters"] == "3 · 40"
    assert fields["Epoch"] == "1 / 30"
    assert "val acc" in fields
    assert fields["Throughput"] == "20.0 batch/s"


def test_the_header_says_that_its_values_are_means_of_several_batches(tab: TabState) -> None:
    state = tab.state
    assert state is not None
    state.snapshot = msgspec.structs.replace(
        state.snapshot, step=99, batch_count=50, first_step=50, loss=0.5, max_loss=0.75
    )
    titles = {field["label"]: field["title"] for field in Header(tab).content()["fields"]}
    assert titles["Batch"] == "batch 99 of the run; all values are means of the last 50 batches"
    assert titles["Loss"] == "the mean of 50 batches, at most 0.750"


def test_a_named_run_is_called_by_its_name(tab: TabState, follower: InProcessFollower) -> None:
    assert Header(tab).content()["name"] == "DigitsNet"
    follower.connection = Connection("run", "", "", "", model="DigitsNet", name="wide stem")
    follower.kind = "finished"
    content = Header(tab).content()
    assert content["name"] == "wide stem"
    assert content["end_notice"].startswith("wide stem finished")


def test_runs_of_the_same_name_are_told_apart_by_their_start(
    tab: TabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = {"a": 0.0, "b": 60.0, "c": 60.0}
    runs = [Connection(run, "", "", "", start_time=at, name="wide") for run, at in starts.items()]
    runs[2] = replace(runs[2], name="", model="DigitsNet")
    monkeypatch.setattr(tab.run_selection, "available_runs", lambda: runs)
    first, second, third = (run["label"] for run in Header(tab).content()["runs"])
    assert first.startswith("wide · ")
    assert first != second
    assert third == runs[2].title


def test_header_without_a_run_is_empty() -> None:
    header = Header(TabState(RunFollower(), PageLink()))
    header.update()
    assert header.source.data["run"] == "none"
    assert header.source.data["fields"] == []


def test_header_says_that_a_network_has_no_filters(
    tab: TabState, follower: InProcessFollower
) -> None:
    header = Header(tab)
    header.update()
    assert header.source.data["network_notice"] == ""
    follower.state.structure = replace(follower.state.structure, layers=[], edges=[])
    header.update()
    assert "no convolution and no hidden linear layer" in header.source.data["network_notice"]


def test_staging_bar_shows_costs_and_coupling(
    make_follower: Callable[..., InProcessFollower],
) -> None:
    follower = make_follower("resnet18")
    tab = TabState(follower, PageLink())
    tab.update()
    bar = StagingBar(tab)
    send_command(tab, "toggle_staged_removal")
    bar.update()
    assert bar.source.data["rows"][0]["plan"] == "pending"
    follower.deliver()
    tab.update()
    bar.update()
    row = bar.source.data["rows"][0]
    assert row["plan"] == "planned"
    assert "parameters (−" in row["detail"]
    assert "layer1.0.conv2 (1)" in row["coupling"]
    assert "must have the same width" in row["coupling"]
    assert bar.source.data["can_apply"] is True


def test_staging_bar_says_what_happens_to_the_output(
    tab: TabState, follower: InProcessFollower
) -> None:
    bar = StagingBar(tab)
    send_command(tab, "stage_add", layer=0)
    deliver_replies(tab, follower)
    (row,) = bar.content()["rows"]
    assert row["detail"].endswith(" · output unchanged")
    assert "output" not in row["short"]
    send_command(tab, "stage_add", layer=1)
    deliver_replies(tab, follower)
    assert bar.content()["total"].endswith("output unchanged")
    send_command(tab, "select_largest_gradient_filter", layer=2, first=0, last=0)
    send_command(tab, "toggle_staged_removal")
    deliver_replies(tab, follower)
    assert bar.content()["total"].endswith("1 of 3 may change the output")


def test_several_changes_took_the_height_of_the_network(
    tab: TabState, follower: InProcessFollower
) -> None:
    """Each repeated the size of the network before and after it, on a line of its own."""
    send_command(tab, "stage_add", layer=0)
    send_command(tab, "stage_add", layer=1)
    bar = StagingBar(tab)
    assert [row["short"] for row in bar.content()["rows"]] == ["", ""]  # not planned yet
    deliver_replies(tab, follower)
    first = bar.content()["rows"][0]
    assert first["short"].replace("\u202f", " ") == "+4.6 % parameters, +4.6 % MACs"
    assert "3\u202f712 → 3\u202f884 parameters" in first["detail"]


def test_a_change_that_costs_nothing_says_so() -> None:
    same = PlanSummary("freeze", parameters_before=9, parameters_after=9)
    assert format_network_size_change(same) == "size unchanged"
    assert format_network_size_change(PlanSummary("freeze")) == ""  # of an unknown size


def test_a_change_of_the_output_that_is_to_be_confirmed_is_said_once(tab: TabState) -> None:
    """The row said "output changes" beside the question whether to apply although it changes."""
    send_command(tab, "stage_add", layer=0)
    (change,) = tab.staging.changes
    reason = "a new filter of conv1 changes all others"
    for confirmation, is_said in ((reason, False), ("", True)):
        plan = PlanSummary("add", output_effect="output changes", confirmation=confirmation)
        change.plan = Planned("p", plan)
        (row,) = StagingBar(tab).content()["rows"]
        assert row["confirmation"] == confirmation
        assert ("output changes" in row["detail"]) == ("output changes" in row["short"]) == is_said


def test_refused_plan_disables_apply(tab: TabState, follower: InProcessFollower) -> None:
    follower.training.convs[0].refused = "it is special"  # the viewer does not know it yet
    send_command(tab, "toggle_staged_removal")
    follower.deliver()
    tab.update()
    bar = StagingBar(tab)
    bar.update()
    assert bar.source.data["rows"][0]["refused"] == "it is special"
    assert bar.source.data["can_apply"] is False


def test_nothing_can_be_applied_while_the_training_is_unreachable(
    tab: TabState, follower: InProcessFollower
) -> None:
    send_command(tab, "toggle_staged_removal")
    follower.deliver()
    tab.update()
    assert StagingBar(tab).content()["can_apply"]
    follower.kind = "unreachable"
    tab.update()
    bar, header = StagingBar(tab).content(), Header(tab).content()
    assert bar["rows"]  # kept until the training is back
    assert not bar["can_apply"]
    assert "receives no changes now" in bar["apply_hint"]
    assert header["unreachable"]
    assert header["motionless"]
    assert header["end_notice"] == "DigitsNet is unreachable. Showing the last received state."
    sent = len(follower.requests)
    send_command(tab, "apply_staged")
    send_command(tab, "control_run", action="pause")
    assert len(follower.requests) == sent
    assert "receives no changes now" in ReplyPanel(tab).content()["title"]


@pytest.mark.parametrize("kind", ["unreachable", "finished", "recording"])
def test_controls_looked_as_if_a_training_received_them_that_does_not(
    tab: TabState, follower: InProcessFollower, kind: str
) -> None:
    """Undo, the run controls and the buttons of layers were enabled while it was unreachable."""
    send_command(tab, "stage_add", layer=1)
    deliver_replies(tab, follower)
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    changes = EditsAndAlertsPanel(tab)
    changes.update()
    assert changes.source.data["undo_disabled"] == ""
    follower.kind = kind
    reason = follower.run_status().refusal
    assert reason
    assert changes.update() is True
    assert changes.source.data["undo_disabled"] == changes.source.data["redo_disabled"] == reason
    assert set(LayerPanel(tab).content()["disabled"].values()) == {reason}
    assert set(SelectionPanel(tab).content()["disabled"].values()) == {reason}
    assert ControlsPanel(tab).content()["refusal"] == reason
    header = Header(tab).content()
    assert header["steering_refusal"] == header["request_refusal"] == reason
    follower.kind = "training"
    assert changes.update() is True
    assert changes.source.data["undo_disabled"] == ""
    assert ControlsPanel(tab).content()["refusal"] == ""


def test_a_page_whose_key_is_refused_says_so_and_offers_nothing(
    tab: TabState, follower: InProcessFollower
) -> None:
    """The page of a revoked key looked as if it could steer, and its requests reached nobody."""
    send_command(tab, "toggle_staged_removal")
    follower.kind = "refused"
    tab.update()
    assert tab.staging.changes == []
    header = Header(tab).content()
    assert not header["can_steer"]
    notice = "DigitsNet sends nothing: refused. Showing the last received state."
    assert header["end_notice"] == notice
    assert not ControlsPanel(tab).content()["available"]
    sent = len(follower.requests)
    send_command(tab, "undo")
    assert len(follower.requests) == sent
    assert "receives no changes now" in ReplyPanel(tab).content()["title"]


def test_reply_is_shown_and_recorded(tab: TabState, follower: InProcessFollower) -> None:
    reply, changes = ReplyPanel(tab), EditsAndAlertsPanel(tab)
    send_command(tab, "stage_add")
    follower.deliver()
    tab.update()
    send_command(tab, "apply_staged")
    reply.update()
    assert reply.source.data["state"] == "sent"
    follower.deliver()
    tab.update()
    reply.update()
    changes.update()
    assert reply.source.data["state"] == "applied"
    text = "conv1: 9 filters · the output is unchanged"
    assert reply.source.data["text"].startswith(f"{text} · 3\u202f712 → 3\u202f884 parameters")
    assert "multiply-accumulates (+4.6\u202f%)" in reply.source.data["text"]
    assert changes.source.data["records"][0]["text"] == f"applied at batch 3 · {text}"
    send_command(tab, "dismiss_reply")
    reply.update()
    assert reply.source.data == {}
    assert len(changes.source.data["records"]) == 1


def test_timeline_describes_the_recording(tab: TabState, follower: InProcessFollower) -> None:
    timeline = Timeline(tab)
    timeline.update()
    assert timeline.source.data["recording_note"].startswith(
        "Every batch is recorded since batch 1."
    )
    assert follower.state is not None
    follower.train(follower.state.histories.filters.capacity)
    timeline.update()
    assert "Means of 2 batches" in timeline.source.data["recording_note"]


def test_timeline_says_that_edits_apply_to_now(tab: TabState, follower: InProcessFollower) -> None:
    timeline = Timeline(tab)
    follower.train(5)
    timeline.update()
    assert (timeline.source.data["text"], timeline.source.data["notice"]) == ("live", "")
    send_command(tab, "show_moment", row=2)
    timeline.update()
    assert timeline.source.data["notice"].startswith("Batch 3 of 8. Edits apply to the network")
    send_command(tab, "go_live")
    follower.kind = "gone"
    timeline.update()
    assert timeline.source.data["text"] == "end of the run"


def test_timeline_spans_the_run_and_says_where_only_layers_are_known(
    late_follower: InProcessFollower,
) -> None:
    tab = TabState(late_follower, PageLink())
    tab.update()
    timeline, panel = Timeline(tab), SelectionPanel(tab)
    timeline.update()
    data = timeline.source.data
    assert data["recorded"] > 50
    assert "kept the means of the layers since batch 1." in data["recording_note"]
    assert "recorded since batch 1\u202f001." in data["recording_note"]
    [edit] = data["edits"]
    assert 0 < edit < 1
    send_command(tab, "show_moment", row=0)
    timeline.update()
    panel.update()
    assert timeline.source.data["notice"].endswith(LAYER_MEANS_ONLY)
    assert panel.source.data["values"][0]["title"].startswith("Mean of the layer")
    send_command(tab, "show_moment", row=data["recorded"] - 2)
    timeline.update()
    panel.update()
    assert LAYER_MEANS_ONLY not in timeline.source.data["notice"]
    assert panel.source.data["values"][0]["title"] == ""


def test_selection_panel_explains_its_statistics(tab: TabState) -> None:
    panel = SelectionPanel(tab)
    panel.update()
    data = panel.source.data
    assert data["layer"] == "conv1"
    assert data["facts"] == "8 filters · 3→8 · 3×3"
    assert "relu1's output" in data["statistics_note"]
    assert [value["label"] for value in data["values"]] == ["mean |∇|", "Σ act", "norm", "update"]
    assert data["disabled"] == {"add": "", "split": "", "remove": ""}


def test_an_overridden_rate_is_explained(tab: TabState) -> None:
    state = tab.state
    assert state is not None
    assert state.status is not None
    note = "the training sets its own learning rate"
    group = ParameterGroup(0, 0, "SGD", 10, learning_rate=0.1, note=note)
    state.status = replace(state.status, parameter_groups=[group])
    [shown] = ControlsPanel(tab).content()["groups"]
    assert shown["note"] == note


def test_gradient_clipping_is_shown_and_set(tab: TabState, follower: InProcessFollower) -> None:
    def shown() -> tuple[str, str]:
        clipping = ControlsPanel(tab).content()["clipping"]
        return clipping["text"], clipping["requested"]

    assert shown() == ("none", "")
    send_command(tab, "set_gradient_clipping", value=0.5, option="value")
    assert shown() == ("none", "value 0.5")
    assert follower.requests[-1].body == SetGradientClipping(0.5, "value")
    deliver_replies(tab, follower)
    assert shown() == ("value 0.5", "")
    (record, *_) = EditsAndAlertsPanel(tab).content()["records"]
    assert record["title"] == "Set the gradient clipping to value 0.5"
    send_command(tab, "set_gradient_clipping", value=0, option="norm")
    deliver_replies(tab, follower)
    assert shown() == ("none", "")
    follower.training.clipping = None  # an older training
    assert follower.state is not None
    follower.state.receive(follower.training.status())
    assert ControlsPanel(tab).content()["clipping"] is None


def test_a_recording_in_progress_is_named(tab: TabState, follower: InProcessFollower) -> None:
    assert follower.state is not None
    status = follower.training.status()
    follower.state.receive(status)
    assert ControlsPanel(tab).content()["recording"] == ""
    follower.state.receive(replace(status, recording="run.mcap"))
    assert ControlsPanel(tab).content()["recording"] == "run.mcap"


def test_an_alert_is_shown_until_it_is_dismissed(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert follower.state is not None
    alerts = [
        Alert("layer_died", 5, "The layer conv1 died.", "conv1", 100.0),
        Alert("nonfinite_loss", 7, "The loss is nan at batch 7.", "", 200.0),
    ]
    follower.state.receive(replace(follower.training.status(), alerts=alerts))
    header = Header(tab)
    assert header.content()["alert"] == "The loss is nan at batch 7."
    assert header.content()["alerts"].splitlines() == [alert.text for alert in alerts]
    send_command(tab, "dismiss_alerts")
    assert header.content()["alert"] == ""
    later = [*alerts, Alert("loss_diverges", 9, "The loss diverges.", "", 300.0)]
    follower.state.receive(replace(follower.training.status(), alerts=later))
    assert header.content()["alert"] == "The loss diverges."


def test_a_refused_learning_rate_was_shown_as_requested_for_good(
    tab: TabState, follower: InProcessFollower
) -> None:
    """So was one that a schedule changed before the page had received it."""
    state = tab.state
    assert state is not None
    assert state.status is not None
    state.status = replace(
        state.status, parameter_groups=[ParameterGroup(0, 0, "SGD", 10, learning_rate=0.1)]
    )

    def requested() -> list[str]:
        (group,) = ControlsPanel(tab).content()["groups"]
        return [value["requested"] for value in group["values"]]

    assert requested() == [""]
    send_command(tab, "set_hyperparameter", optimizer=0, group=0, name="lr", value=0.0)
    assert requested() == ["0"]
    sent = follower.requests[-1].id
    state.receive(Refused(sent, "the rate would be 0"))
    assert requested() == [""]


def test_undo_and_redo_say_why_they_are_disabled(
    tab: TabState, follower: InProcessFollower
) -> None:
    def disabled() -> tuple[str, str]:
        content = EditsAndAlertsPanel(tab).content()
        return content["undo_disabled"], content["redo_disabled"]

    assert disabled() == ("There is no edit to undo.", "No edit was undone since the last one.")
    send_command(tab, "stage_add", layer=1)
    deliver_replies(tab, follower)
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    assert disabled() == ("", "No edit was undone since the last one.")
    send_command(tab, "undo")
    deliver_replies(tab, follower)
    assert disabled() == ("There is no edit to undo.", "")
    send_command(tab, "redo")
    deliver_replies(tab, follower)
    assert disabled() == ("", "No edit was undone since the last one.")


def test_the_header_names_the_key_unless_it_is_the_owners(
    tab: TabState, follower: InProcessFollower
) -> None:
    follower.access = Access("owner", "owner")
    content = Header(tab).content()
    assert (content["access"]["label"], content["can_steer"]) == ("", True)
    follower.access = Access("ann", "observer", 0.0)
    content = Header(tab).content()
    assert (content["access"]["label"], content["can_steer"]) == ("Observer · ann", False)
    assert "only observes the run until 19" in content["access"]["note"]
    follower.access = Access("operator", "operator")
    assert Header(tab).content()["access"]["label"] == "Operator"


def test_an_observer_reads_why_buttons_are_disabled(
    tab: TabState, follower: InProcessFollower
) -> None:
    assert ControlsPanel(tab).content()["refusal"] == ""
    follower.access = Access("ann", "observer")
    controls, changes = ControlsPanel(tab).content(), EditsAndAlertsPanel(tab).content()
    assert controls["available"]
    reason = "This page only observes the run: its key 'ann' is an observer's."
    assert controls["refusal"] == changes["undo_disabled"] == changes["redo_disabled"] == reason


def test_the_rows_of_changes_had_no_visible_time(
    tab: TabState, follower: InProcessFollower
) -> None:
    now = time.time()
    assert follower.state is not None
    moments = {"unknown": (0.0, 1), "old": (now - 40 * 86_400, 600), "new": (now, 1200)}
    for name, (moment, step) in moments.items():
        outcome = RequestOutcome("run", name, name, "done", moment, step=step, key="ann")
        follower.state.receive(outcome)
    new, old, unknown = EditsAndAlertsPanel(tab).content()["records"]
    assert new["time"] == time.strftime("%H:%M:%S", time.localtime(now))
    assert new["moment"].endswith(new["time"])
    then = time.localtime(now - 40 * 86_400)
    assert old["time"] == time.strftime(f"%b {then.tm_mday}, %H:%M", then)
    assert (unknown["time"], unknown["moment"]) == ("", "")
    assert new["text"] == "at batch 1\u202f200"


def test_the_list_of_changes_says_who_made_those_of_others(
    tab: TabState, follower: InProcessFollower
) -> None:
    outcome = RequestOutcome(
        "run", "theirs", "Stop the training", "refused", 0.0, key="ann", host="gpu01",
        address="process 4711", detail="the key only observes",
    )  # fmt: skip
    assert follower.state is not None
    follower.state.receive(outcome)
    [record] = EditsAndAlertsPanel(tab).content()["records"]
    assert (record["title"], record["state"]) == ("Stop the training", "refused")
    assert record["text"] == "refused · the key only observes"
    assert record["who"] == "by ann on gpu01"
    assert "the host is what the client says. Connected from process 4711." in record["who_note"]
