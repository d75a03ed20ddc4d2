"""The owner hands out keys and takes them back; nobody else does."""

from __future__ import annotations

from typing import Any

import pytest

from revacnn_lightning.protocol.access_keys import AccessKey, KeyRing
from revacnn_lightning.protocol.access_messages import KeyList
from revacnn_lightning.protocol.messages import Done, Refused, Request
from revacnn_lightning.protocol.requests import ListKeys, RevokeKey, ShareKey
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.protocol.sockets import Keys
from revacnn_lightning.runtime.key_commands import AccessKeyCommands

PUBLIC = "k" * 40
OWNER = RequestSender(b"owner", AccessKey("owner", "owner", PUBLIC))
OPERATOR = RequestSender(b"bob", AccessKey("bob", "operator", "b" * 40))


class Telemetry:
    """Counts how often the telemetry of ended keys was ended."""

    def __init__(self) -> None:
        self.n_disconnects = 0

    def disconnect_ended_keys(self) -> None:
        self.n_disconnects += 1


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def commands(telemetry: Telemetry) -> AccessKeyCommands:
    return AccessKeyCommands(KeyRing(PUBLIC), telemetry)  # type: ignore[arg-type]


def execute(
    commands: AccessKeyCommands, body: Any, sender: RequestSender = OWNER, **options: Any
) -> Any:
    return commands.execute(sender, Request("id", body, **options))


def test_a_key_is_handed_out_listed_and_taken_back(
    commands: AccessKeyCommands, telemetry: Telemetry
):
    public = Keys.generate().public
    assert isinstance(execute(commands, ShareKey("ann", "observer", public, 60)), Done)
    assert commands.refusal(AccessKey("ann", "observer", public)) == ""
    assert isinstance(execute(commands, RevokeKey("ann")), Done)
    assert telemetry.n_disconnects == 1
    assert "was revoked" in commands.refusal(AccessKey("ann", "observer", public))
    listed = execute(commands, ListKeys())
    assert isinstance(listed, KeyList)
    assert [(key.name, key.state) for key in listed.keys] == [
        ("owner", "valid"), ("ann", "revoked"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body", [ShareKey("eve", "operator", "e" * 40), RevokeKey("ann"), ListKeys()]
)
def test_an_operator_decides_nothing_about_keys(commands: AccessKeyCommands, body: Any):
    refused = execute(commands, body, OPERATOR)
    assert isinstance(refused, Refused)
    assert "only the owner" in refused.reason


def test_a_dry_run_hands_out_no_key(commands: AccessKeyCommands):
    body = ShareKey("ann", "observer", Keys.generate().public)
    assert isinstance(execute(commands, body, dry_run=True), Refused)
    assert isinstance(execute(commands, body), Done)


def test_a_key_that_was_forgotten_is_not_valid(commands: AccessKeyCommands):
    assert "was revoked" in commands.refusal(AccessKey("ann", "observer", "a" * 40))
