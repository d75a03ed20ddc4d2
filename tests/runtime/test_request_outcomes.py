"""Who has changed what is in the log, in the journal, and on all pages."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from msgspec.structs import replace

from revacnn_lightning import (
    AddFilters,
    ControlRun,
    InsertLayer,
    RemoveFilters,
    SetGradientClipping,
    SetHyperparameter,
)
from revacnn_lightning.protocol.access_keys import AUTOMATIC, SCRIPT, AccessKey
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import (
    Applied,
    Done,
    Planned,
    PlanSummary,
    Refused,
    Reply,
    Request,
)
from revacnn_lightning.protocol.prices import RemovalPrice
from revacnn_lightning.protocol.requests import InspectLayer, RequestBody, ShareKey, Undo
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.runtime.request_outcomes import OutcomeRecorder, describe_request
from revacnn_lightning.steering import Journal

ANN = RequestSender(b"client", AccessKey("ann", "operator", "k" * 40), "process 4711")
PLAN = PlanSummary("Remove conv2 · filter 3")


class Recorded:
    def __init__(self) -> None:
        self.journal = Journal()
        self.published: list[RequestOutcome] = []
        self.recorder = OutcomeRecorder("run", lambda: self.journal, self.published.append)

    def record(
        self, body: RequestBody, reply: Reply, sender: RequestSender = ANN, **options: Any
    ) -> None:
        self.recorder.record(sender, Request("id", body, **options), reply)


def test_an_applied_edit_says_who_made_it(caplog: pytest.LogCaptureFixture):
    recorded = Recorded()
    with caplog.at_level(logging.INFO):
        reply = Applied("id", 12, 3, PLAN)
        recorded.record(RemoveFilters("conv2", [3]), reply, host="gpu01")
    [outcome] = recorded.published
    assert recorded.journal.requests == [outcome]
    assert (outcome.title, outcome.state, outcome.step, outcome.version) == (
        PLAN.title, "applied", 12, 3,
    )  # fmt: skip
    assert (outcome.key, outcome.host, outcome.address) == ("ann", "gpu01", "process 4711")
    [line] = caplog.messages
    start = time.strftime("ReVACNN, %Y-%m-%d %H:%M:%S: ", time.localtime(outcome.time))
    end = "applied before batch 12 by ann on gpu01 (process 4711): Remove conv2 · filter 3"
    assert line == start + end


def test_others_did_not_see_what_an_edit_was_predicted_to_cost():
    """Not even those who watched the run prune itself."""
    recorded, price = Recorded(), RemovalPrice(0.01, 0.002, 0.4, 16, 11)
    for plan in (replace(PLAN, price=price), replace(PLAN, price_note="no loss")):
        recorded.record(RemoveFilters("conv2", [3]), Applied("id", 12, 3, plan))
    assert [one.price for one in recorded.published] == [price, None]
    assert [one.price_note for one in recorded.published] == ["", "no loss"]
    requests = Journal.from_data(recorded.journal.to_data()).requests
    assert requests == recorded.published  # in a checkpoint, too
    old = recorded.journal.to_data()
    for one in old["requests"]:
        del one["price"], one["price_note"]
    assert [one.price for one in Journal.from_data(old).requests] == [None, None]


def test_who_changed_what_was_in_no_log_unless_the_script_had_set_up_logging(
    caplog: pytest.LogCaptureFixture,
):
    """By default, Python shows warnings only; these lines were on the level of info."""
    recorded = Recorded()
    eve = ANN._replace(key=AccessKey("eve", "observer", "k" * 40))
    recorded.record(RemoveFilters("conv2", [3]), Applied("id", 12, 3, PLAN), host="gpu01")
    recorded.record(ControlRun("pause"), Done("id"), host="gpu01")
    recorded.record(AddFilters("conv1"), Refused("id", "because"), sender=eve, host="gpu02")
    assert [line.split(": ", 1)[1].split(" (")[0] for line in caplog.messages] == [
        "applied before batch 12 by ann on gpu01",
        "done by ann on gpu01",
        "refused by eve on gpu02",
    ]


def test_what_the_script_itself_requests_does_not_warn(caplog: pytest.LogCaptureFixture):
    recorded = Recorded()
    for key in (SCRIPT, AUTOMATIC):
        recorded.record(ControlRun("pause"), Done("id"), sender=RequestSender(b"", key))
    recorded.record(RemoveFilters("conv2", [3]), Refused("id", "no"), dry_run=True)
    assert caplog.messages == []


def test_a_flood_of_refused_requests_does_not_fill_the_terminal(caplog: pytest.LogCaptureFixture):
    recorded = Recorded()
    for _ in range(2000):
        recorded.record(AddFilters("conv1"), Refused("id", "because"))
    assert len(caplog.messages) < 30


def test_a_refused_request_is_recorded_with_the_reason(caplog: pytest.LogCaptureFixture):
    recorded = Recorded()
    with caplog.at_level(logging.INFO):
        recorded.record(ControlRun("stop"), Refused("id", "because"), host="a\x1b[2Jb")
    [outcome] = recorded.published
    assert (outcome.state, outcome.detail, outcome.step) == ("refused", "because", -1)
    assert "\x1b" not in outcome.host
    assert "refused by ann on a\\x1b[2Jb" in caplog.messages[0]


def test_the_training_script_is_named(caplog: pytest.LogCaptureFixture):
    recorded = Recorded()
    recorded.record(ControlRun("pause"), Done("id"), sender=RequestSender(b"", SCRIPT))
    assert recorded.published[0].who == "training script"


def test_what_changes_nothing_is_not_listed(caplog: pytest.LogCaptureFixture):
    recorded = Recorded()
    with caplog.at_level(logging.INFO):
        recorded.record(RemoveFilters("conv2", [3]), Planned("id", PLAN), dry_run=True)
        recorded.record(InspectLayer("conv2"), Done("id"))
        assert caplog.messages == []
        recorded.record(InspectLayer("conv9"), Refused("id", "there is no conv9"))
        assert len(caplog.messages) == 1
    assert recorded.published == recorded.journal.requests == []


def test_a_flood_of_refused_requests_is_summed_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """An observer could fill the log, the journal and the pages of all others."""
    recorded = Recorded()
    with caplog.at_level(logging.INFO):
        for _ in range(2000):
            recorded.record(AddFilters("conv1"), Refused("id", "because"))
        bob = ANN._replace(key=AccessKey("bob", "operator", "k" * 40))
        recorded.record(ControlRun("pause"), Done("id"), sender=bob)
    assert len(recorded.published) < 150
    assert recorded.published[-1].key == "bob"
    assert "more refused requests" in caplog.messages[-1]


def test_no_flood_hides_what_was_carried_out():
    """An operator could change the network unseen, after a hundred requests that are refused."""
    recorded = Recorded()
    for _ in range(200):
        recorded.record(AddFilters("conv1"), Refused("id", "because"))
    for _ in range(200):
        recorded.record(ControlRun("pause"), Done("id"))
    assert [one.state for one in recorded.published].count("done") == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (ControlRun("step", 5), "Train 5 batches, then pause"),
        (ControlRun("step"), "Train one batch, then pause"),
        (ControlRun("stop"), "Stop the training"),
        (SetHyperparameter(0, 1, "lr", 0.01), "Set the learning rate of group 1 to 0.01"),
        (SetGradientClipping(0.5), "Clip the gradient at norm 0.5"),
        (SetGradientClipping(0), "Stop clipping the gradient"),
        (RemoveFilters("conv2", [3]), "Remove filters · conv2"),
        (InsertLayer("conv2"), "Insert layer · conv2"),
        (Undo(), "Undo"),
        (ShareKey("ann", "observer", "k" * 40), "Share key (observer) · ann"),
    ],
)
def test_requests_in_words(body: RequestBody, text: str):
    assert describe_request(body) == text


def test_refused_requests_and_keys_had_no_batch():
    published: list[RequestOutcome] = []
    recorder = OutcomeRecorder("run", Journal, published.append, lambda: 31)
    recorder.record(ANN, Request("a", RemoveFilters("conv2", [3])), Refused("a", "because"))
    recorder.record(ANN, Request("b", ShareKey("bob", "observer", "k" * 40)), Done("b", "shared"))
    recorder.record(ANN, Request("c", ControlRun("pause")), Done("c", "Paused", 7))
    assert [outcome.step for outcome in published] == [31, 31, 7]
