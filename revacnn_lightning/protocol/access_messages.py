"""The messages about keys, and about who has changed what."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from revacnn_lightning.protocol.access_keys import Role
from revacnn_lightning.protocol.prices import RemovalPrice

__all__ = ["Access", "KeyInfo", "KeyList", "RequestOutcome"]


class Access(Struct, frozen=True, tag="access"):
    """What the key of a client may do. Sent to each client that requests the state.

    An owner hands out keys, edits and controls the run; an operator edits and controls it; an
    observer receives everything, requests plans and inspections, and changes nothing.
    """

    key: str  # name
    role: Role
    expires: float | None = None  # Unix time, seconds; null: when the run ends


class KeyInfo(Struct, frozen=True):
    """A key of the run."""

    name: str
    role: Role
    expires: float | None = None  # Unix time, seconds; null: when the run ends
    state: Literal["valid", "expired", "revoked"] = "valid"


class KeyList(Struct, frozen=True, tag="key_list"):
    """The keys of the run, in the order in which they were handed out. Reply to `ListKeys`."""

    id: str
    keys: list[KeyInfo] = field(default_factory=list)


class RequestOutcome(Struct, frozen=True, tag="request_outcome"):
    """A request to edit or control the run was carried out or refused. Published to all viewers.

    ``key`` is proved by the connection; ``host`` is only what the client says. Neither is known of
    requests from inside the training process, which have the key "training script" or
    "automatic steering".
    """

    run: str
    id: str  # of the request
    title: str  # "Remove conv2 · filter 36"
    state: Literal["applied", "done", "refused"]
    time: float  # Unix time, seconds
    step: int = -1  # the batch before which it was carried out or refused; -1 if unknown
    version: int = -1  # of the structure that an edit led to; -1: it is no applied edit
    key: str = ""  # name
    host: str = ""  # name of the client's machine, as the client says
    address: str = ""  # of the other end of the connection, as far as the run knows it
    detail: str = ""  # why it was refused, or what was done
    price: RemovalPrice | None = None  # of a removal: the predicted change of the loss
    price_note: str = ""  # why it was not predicted

    @property
    def who(self) -> str:
        """The key, and the machine that the client names."""
        return f"{self.key} on {self.host}" if self.host else self.key
