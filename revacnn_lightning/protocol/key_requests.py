"""The requests that hand out keys of a run and take them back.

`requests` exports them with all others.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

__all__ = ["MAX_SECONDS", "KeyCommand", "ListKeys", "RevokeKey", "ShareKey"]

MAX_SECONDS = 3650 * 86_400.0  # that a key can be valid: dates have four digits


class ShareKey(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Admit another key to the run from now on. Only the owner's key may do this.

    ``public_key`` is the public half of a CURVE key pair, in Z85; its secret half goes to whoever
    is to use it. It is valid for ``seconds``, up to 3,650 days, or with None until the run ends.
    """

    name: str
    role: Literal["operator", "observer"]
    public_key: str
    seconds: Annotated[float, Meta(gt=0, le=MAX_SECONDS)] | None = None


class RevokeKey(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Take back a key: the run ends its telemetry and refuses its requests.

    Only the owner's key may do this. All viewers are disconnected from telemetry for a moment.
    """

    name: str


class ListKeys(Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Send the names of all keys, without the keys. Only the owner's key may do this."""


KeyCommand = ShareKey | RevokeKey | ListKeys
