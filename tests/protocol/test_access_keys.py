"""The keys of a run."""

from __future__ import annotations

import time

import pytest

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import access_keys
from revacnn_lightning.protocol.access_keys import (
    AccessKey,
    KeyRing,
    check_key_name,
)
from revacnn_lightning.protocol.base_socket import Keys


def observer(name: str, expires: float | None = None) -> AccessKey:
    return AccessKey(name, "observer", Keys.generate().public, expires)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing(Keys.generate().public)


def test_a_key_is_admitted_until_it_is_revoked(ring: KeyRing):
    key = observer("ann")
    assert not ring.admits(key.public)
    ring.add(key)
    assert ring.admits(key.public)
    assert ring.revoke("ann") == key
    assert not ring.admits(key.public)
    found = ring.find(key.public)
    assert found is not None
    assert "'ann' was revoked" in found.admission_refusal()
    assert ring.find_ended_keys([key.public]) == {key.public}


def test_expiry_is_checked_at_use(ring: KeyRing, monkeypatch: pytest.MonkeyPatch):
    key = observer("ann", time.time() + 60)
    ring.add(key)
    assert ring.admits(key.public)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert not ring.admits(key.public)
    assert "has expired" in key.admission_refusal()


def test_the_owner_cannot_be_locked_out(ring: KeyRing):
    with pytest.raises(EditRefusedError, match="cannot be revoked"):
        ring.revoke("owner")


def test_names_are_unique_among_valid_keys(ring: KeyRing):
    ring.add(observer("ann"))
    with pytest.raises(EditRefusedError, match="has a key 'ann' already"):
        ring.add(observer("ann"))
    ring.revoke("ann")
    ring.add(observer("ann"))
    with pytest.raises(EditRefusedError, match="no key 'bob'"):
        ring.revoke("bob")


def test_a_key_pair_cannot_return_as_another_key(ring: KeyRing):
    """Else a revoked observer could be admitted again under another name."""
    key = observer("ann")
    ring.add(key)
    ring.revoke("ann")
    with pytest.raises(EditRefusedError, match="knows this key already"):
        ring.add(AccessKey("bob", "operator", key.public))


def test_the_number_of_keys_is_bounded(ring: KeyRing, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(access_keys, "MAX_KEYS", 3)
    for _ in range(5):
        ring.add(observer("ann"))
        ring.revoke("ann")
    assert len(ring.keys) == 3
    for name in ("ann", "bob"):
        ring.add(observer(name))
    with pytest.raises(EditRefusedError, match="at most 3 keys"):
        ring.add(observer("eve"))
    assert [key.name for key in ring.keys] == ["owner", "ann", "bob"]


def test_without_an_owner_whoever_has_the_server_key_is_one():
    ring = KeyRing()
    assert ring.admits(Keys.generate().public)
    found = ring.find("anything")
    assert found is not None
    assert found.role == "owner"


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[2J", "x" * 65, "-ann", "training script"])
def test_a_name_that_would_mislead_is_refused(name: str):
    with pytest.raises(EditRefusedError, match="is not a name"):
        check_key_name(name)


@pytest.mark.parametrize("name", ["ann", "Ann Müller", "ann@gpu-01.example", "observer 2"])
def test_names_of_people_are_accepted(name: str):
    check_key_name(name)
