"""Executes the commands of the owner about access keys: share, revoke and list them."""

from __future__ import annotations

import time

from msgspec.structs import replace

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.access_keys import AccessKey, KeyRing, check_key_name
from revacnn_lightning.protocol.access_messages import KeyInfo, KeyList
from revacnn_lightning.protocol.authenticator import check_public_key
from revacnn_lightning.protocol.messages import Done, Refused, Reply, Request
from revacnn_lightning.protocol.requests import KeyCommand, ListKeys, ShareKey
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.protocol.sockets import Publisher

__all__ = ["AccessKeyCommands"]


CHECK_SECONDS = 1.0  # between checks whether keys have expired


class AccessKeyCommands:
    """Executes the commands that share, revoke and list the access keys of a run.

    Args:
        ring: the access keys.
        publisher: ends the telemetry of keys that are not valid any more.
    """

    def __init__(self, ring: KeyRing, publisher: Publisher) -> None:
        self._ring = ring
        self._publisher = publisher
        self._next_check = 0.0  # monotonic seconds

    def end_expired_keys(self) -> None:
        """End the telemetry of keys that have expired. Called before every batch."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self._publisher.disconnect_ended_keys()

    def refusal(self, key: AccessKey) -> str:
        """Return why the key of an earlier request is not valid any more; "" if it is."""
        return (self._ring.find(key.public) or replace(key, is_revoked=True)).admission_refusal()

    def execute(self, sender: RequestSender, request: Request) -> Reply:
        """Execute a command, and return the reply."""
        body = request.body
        assert isinstance(body, KeyCommand)
        try:
            _check_permitted(sender.key, request)
            if isinstance(body, ListKeys):
                return KeyList(request.id, [_describe(key) for key in self._ring.keys])
            if isinstance(body, ShareKey):
                return Done(request.id, self._share(body))
            return Done(request.id, self._revoke(body.name))
        except EditRefusedError as error:
            return Refused(request.id, str(error))

    def _share(self, body: ShareKey) -> str:
        check_key_name(body.name)
        check_public_key(body.public_key)
        expires = None if body.seconds is None else time.time() + body.seconds
        self._ring.add(AccessKey(body.name, body.role, body.public_key, expires))
        return f"The key {body.name!r} may {'steer' if body.role == 'operator' else 'observe'}"

    def _revoke(self, name: str) -> str:
        key = self._ring.revoke(name)
        self._publisher.disconnect_ended_keys()
        return f"The key {key.name!r} was revoked"


def _check_permitted(key: AccessKey, request: Request) -> None:
    if key.role != "owner":
        raise EditRefusedError(
            f"the key {key.name!r} belongs to an {key.role}; only the owner of the run, with the "
            "run's own connection file, can hand out keys"
        )
    if request.dry_run:
        raise EditRefusedError("only edits have a plan; send this request without dry_run")


def _describe(key: AccessKey) -> KeyInfo:
    if key.is_revoked:
        return KeyInfo(key.name, key.role, key.expires, "revoked")
    return KeyInfo(
        key.name, key.role, key.expires, "expired" if key.admission_refusal() else "valid"
    )
