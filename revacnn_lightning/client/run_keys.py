"""The keys of a run: its owner admits others, and takes their keys back."""

from __future__ import annotations

from typing import Literal

from revacnn_lightning.client import key_files
from revacnn_lightning.client.run_requests import RunRequests
from revacnn_lightning.protocol.access_messages import KeyInfo, KeyList
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.messages import Done
from revacnn_lightning.protocol.requests import ListKeys, RevokeKey, ShareKey
from revacnn_lightning.protocol.sockets import Keys

__all__ = ["RunKeys"]

REPLY_SECONDS = 60.0


class RunKeys(RunRequests):
    """Requests that share a run with others."""

    def share(
        self,
        role: Literal["operator", "observer"],
        *,
        name: str | None = None,
        seconds: float | None = None,
    ) -> Connection:
        """Admit another key to the run; return the connection to hand out.

        Only the owner of the run can do this. Raises as `apply` does.

        Args:
            role: an operator edits and controls the run, an observer only receives.
            name: name of the key, for `revoke` and the list of changes; None names it by its role.
            seconds: how long the key is valid; None makes it valid until the run ends.
        """
        name = name or key_files.unused_key_name(role, [key.name for key in self.list_keys()])
        keys = Keys.generate()
        self._execute(ShareKey(name, role, keys.public, seconds), REPLY_SECONDS)
        return key_files.connection_with_key(self.connection, keys, name, role, seconds)

    def revoke(self, name: str) -> str:
        """Take back a key that `share` has admitted; return what was done, in words."""
        reply = self._execute(RevokeKey(name), REPLY_SECONDS)
        assert isinstance(reply, Done)
        return reply.detail

    def list_keys(self) -> list[KeyInfo]:
        """Return the names and roles of all keys of the run."""
        reply = self._execute(ListKeys(), REPLY_SECONDS)
        assert isinstance(reply, KeyList)
        return reply.keys
