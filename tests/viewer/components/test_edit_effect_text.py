"""The effect of an edit in the list of changes."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters
from tests.viewer.conftest import InProcessFollower
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.change_list import EditsAndAlertsPanel
from viewer.components.edit_effect_text import describe_measured_effect, explain_measured_effect
from viewer.runs.edit_effects import EditEffect, MeanAndSpread
from viewer.runs.request_log import REPLY_SECONDS
from viewer.tab.tab_state import TabState

EFFECT = EditEffect(
    before={
        "loss": MeanAndSpread(0.412, 0.031),
        "val_acc": MeanAndSpread(0.78),
        "val_f1": MeanAndSpread(0.5),
    },
    after={"loss": MeanAndSpread(0.398, 0.029), "val_acc": MeanAndSpread(0.791)},
    batches_before=50,
    batches_after=25,
)


def test_an_effect_names_the_loss_and_the_main_metric() -> None:
    text = "loss 0.412 ± 0.0310 → 0.398 ± 0.0290"
    assert describe_measured_effect(EFFECT) == f"{text} · val acc 0.780 → 0.791"
    assert describe_measured_effect(EFFECT, "f1") == f"{text} · val f1 0.500 → …"
    assert "50 batches before the edit and 25 batches after it" in explain_measured_effect(EFFECT)


def test_each_of_several_edits_claimed_the_measured_change_of_all_of_them() -> None:
    shared = replace(EFFECT, n_edits=2)
    assert describe_measured_effect(shared).startswith("2 edits together: loss 0.412")
    assert (
        "they are of all of them, while each prediction is of one edit"
        in explain_measured_effect(shared)
    )
    assert describe_measured_effect(EditEffect(n_edits=2)) == ""


def test_the_edits_of_a_pruning_run_showed_no_prediction(
    tab: TabState, follower: InProcessFollower
) -> None:
    panel, state = EditsAndAlertsPanel(tab), follower.state
    assert state is not None
    follower.train(20)
    run = state.connection.run
    outcome = RequestOutcome(run, "theirs", "Remove conv1 · filter 0", "applied", 0.0)
    for known, text in (
        ({"price": RemovalPrice(0.01, 0.002, 0.4, 16, 11)}, "predicted loss +0.0100 ± 0.00200"),
        ({"price_note": "the loss is known after the next batch"}, "not predicted"),
    ):
        replies = follower.training.handle(Request("theirs", RemoveFilters("conv1", [0])))
        state.receive(replies[1])
        version = state.structure.version  # type: ignore[union-attr]
        state.receive(replace(outcome, id=text, step=20, version=version, **known))
        follower.train(12)
        record = panel.content()["records"][0]
        predicted, measured, *_ = record["effect"].split(" · ")
        assert predicted == text
        assert measured.startswith("loss ")
        assert "→" in measured
    assert "the loss is known after the next batch" in record["effect_note"]


def test_an_effect_that_is_not_measured_yet_says_when_it_is() -> None:
    effect = EditEffect(before={"loss": MeanAndSpread(0.4, 0.03)}, batches_before=50, n_edits=3)
    assert describe_measured_effect(effect) == "3 edits together: loss 0.400 ± 0.0300 → …"
    assert explain_measured_effect(effect).startswith(
        "The effect is shown 10 batches after the edit."
    )
    assert "3 edits that came close together" in explain_measured_effect(effect)
    assert describe_measured_effect(EditEffect()) == ""


def test_each_edit_in_the_list_shows_its_effect(tab: TabState, follower: InProcessFollower) -> None:
    panel = EditsAndAlertsPanel(tab)
    follower.train(20)
    send_command(tab, "stage_add", layer=1)
    deliver_replies(tab, follower)
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    panel.update()
    [record] = panel.source.data["records"]
    assert record["effect"].startswith("loss ")
    assert record["effect"].endswith("→ …")
    follower.train(10)
    assert panel.update()
    [record] = panel.source.data["records"]
    assert "…" not in record["effect"].split(" · ")[0]
    follower.train(5)
    assert not panel.update()  # nothing in the list has changed


def test_edits_of_others_are_listed_where_they_came(
    tab: TabState, follower: InProcessFollower
) -> None:
    for layer in ("conv1", "conv2", "conv3"):
        if layer == "conv2":  # from a notebook: this viewer only receives the structure
            replies = follower.training.handle(Request("theirs", AddFilters(layer)))
            follower.state.receive(replies[1])  # type: ignore[union-attr, arg-type]
        else:
            follower.request(AddFilters(layer), layer, None)
            follower.deliver()
        follower.train(12)
    titles = [one["title"] for one in EditsAndAlertsPanel(tab).content()["records"]]
    assert titles == [
        "Add 1 to conv3",
        "Network changed, not from this viewer",
        "Add 1 to conv1",
    ]


def test_an_edit_of_others_is_listed_although_a_reply_never_arrives(
    tab: TabState, follower: InProcessFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the requested edit, so the list waits for the reply, but not for long."""
    panel = EditsAndAlertsPanel(tab)
    follower.request(AddFilters("conv1"), "requested", 99)  # its reply is not delivered
    replies = follower.training.handle(Request("theirs", AddFilters("conv2")))
    follower.state.receive(replies[1])  # type: ignore[union-attr, arg-type]
    panel.update()
    assert len(panel.source.data["records"]) == 1
    later = time.time() + REPLY_SECONDS
    monkeypatch.setattr(time, "time", lambda: later)
    assert panel.update()
    assert len(panel.source.data["records"]) == 2
