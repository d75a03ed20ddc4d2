"""The keys of a run: who may steer it, who may only observe it, and until when.

Each client has a CURVE key pair of its own. The run knows the public halves, so it knows the key of
every connection and of every request, and can take back one key without the others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.plain_text import escape_control_characters

__all__ = ["AUTOMATIC", "OWNER", "SCRIPT", "AccessKey", "KeyRing", "Role", "check_key_name"]

# An owner also hands out keys; an operator edits and controls the run; an observer observes it.
Role = Literal["owner", "operator", "observer"]

OWNER = "owner"  # name of the key in the run's own connection file
MAX_KEYS = 256  # of a run, with those that have ended
MAX_NAME_LENGTH = 64
_NAME = re.compile(r"[\w][\w.@ -]*")


class AccessKey(Struct, frozen=True):
    """A key of a run.

    ``public`` is the public half of its key pair. ``expires`` is a Unix time; with None, the key
    expires when the run ends.
    """

    name: str
    role: Role
    public: str  # Z85
    expires: float | None = None
    is_revoked: bool = False

    @property
    def can_steer(self) -> bool:
        """Whether a client with this key may edit and control the run."""
        return self.role != "observer"

    def admission_refusal(self) -> str:
        """Return why a client with this key is not admitted now; "" if it is admitted."""
        if self.is_revoked:
            return f"the key {self.name!r} was revoked; ask the owner of the run for a new one"
        if self.expires is not None and time.time() >= self.expires:
            return f"the key {self.name!r} has expired; ask the owner of the run for a new one"
        return ""


# Of requests from inside the training process: of the user's code, and of pruning and policies.
SCRIPT = AccessKey("training script", "owner", "")
AUTOMATIC = AccessKey("automatic steering", "owner", "")


class KeyRing:
    """The keys of a run. Another thread may read it: every change replaces the whole table.

    Args:
        owner_public_key: public half of the key in the run's own connection file. With "", every
            client that has the run's server key is an owner.
    """

    def __init__(self, owner_public_key: str = "") -> None:
        self.admits_all = not owner_public_key
        self._keys: dict[str, AccessKey] = {
            owner_public_key: AccessKey(OWNER, "owner", owner_public_key)
        }

    @property
    def keys(self) -> list[AccessKey]:
        """All keys, in the order in which they were handed out."""
        return list(self._keys.values())

    def find(self, public_key: str) -> AccessKey | None:
        """Return the key with this public half, valid or not; None if there is none."""
        return self._keys.get("" if self.admits_all else public_key)

    def admits(self, public_key: str) -> bool:
        """Return whether a client with this key may connect now."""
        key = self.find(public_key)
        return key is not None and not key.admission_refusal()

    def add(self, key: AccessKey) -> None:
        """Admit a key from now on.

        Raises:
            EditRefusedError: a valid key has the same name, the run knows the key already, or the
                run has too many keys.
        """
        if any(one.name == key.name and not one.admission_refusal() for one in self.keys):
            raise EditRefusedError(
                f"the run has a key {key.name!r} already; choose another name or revoke it"
            )
        if key.public in self._keys:
            raise EditRefusedError("the run knows this key already; generate a new key pair")
        ended = [one.public for one in self.keys if one.admission_refusal()]
        n_forgotten = max(0, len(self._keys) + 1 - MAX_KEYS)
        if n_forgotten > len(ended):
            raise EditRefusedError(f"a run has at most {MAX_KEYS} keys; revoke some")
        forgotten = set(ended[:n_forgotten])
        kept = {public: one for public, one in self._keys.items() if public not in forgotten}
        self._keys = {**kept, key.public: key}

    def revoke(self, name: str) -> AccessKey:
        """Revoke the valid key with this name, and return it as it was before.

        Raises:
            EditRefusedError: there is no such key, or it is the owner's.
        """
        if name == OWNER:
            raise EditRefusedError("the owner's key ends with the run; it cannot be revoked")
        for key in self.keys:
            if key.name == name and not key.admission_refusal():
                self._keys = {**self._keys, key.public: replace(key, is_revoked=True)}
                return key
        raise EditRefusedError(f"the run has no key {name!r}; revacnn share --list lists them")

    def find_ended_keys(self, public_keys: Iterable[str]) -> set[str]:
        """Return those of the given public halves whose keys are not admitted any more."""
        return {public for public in public_keys if not self.admits(public)}


def check_key_name(name: str) -> None:
    """Check the name of a new key. Logs and pages print it.

    Raises:
        EditRefusedError: the name is too long, has other characters, or belongs to the training.
    """
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name) or name == SCRIPT.name:
        shown = escape_control_characters(name[:MAX_NAME_LENGTH])
        raise EditRefusedError(
            f"{shown!r} is not a name of a key: use up to "
            f"{MAX_NAME_LENGTH} letters, digits, spaces and . _ @ -"
        )
