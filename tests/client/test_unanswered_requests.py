"""Which requests are repeated after an interruption."""

from __future__ import annotations

import pytest

from revacnn_lightning.client import unanswered_requests
from revacnn_lightning.client.unanswered_requests import MAX_REQUESTS, UnansweredRequests
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.requests import ControlRun


def request(name: str) -> Request:
    return Request(name, ControlRun("pause"))


def test_requests_are_repeated_until_they_are_replied_to():
    requests = UnansweredRequests()
    for name in "abc":
        requests.add(request(name))
    requests.remove("b")
    requests.remove("unknown")
    assert [one.id for one in requests.requests_to_repeat()] == ["a", "c"]


def test_nothing_old_is_carried_out_when_nobody_expects_it(monkeypatch: pytest.MonkeyPatch):
    requests = UnansweredRequests()
    requests.add(request("old"))
    monkeypatch.setattr(unanswered_requests, "REPEATED_SECONDS", -1.0)
    assert requests.requests_to_repeat() == []


def test_the_number_of_requests_is_bounded():
    requests = UnansweredRequests()
    for i in range(MAX_REQUESTS + 5):
        requests.add(request(str(i)))
    assert next(one.id for one in requests.requests_to_repeat()) == "5"
