"""Two keys of a run: that of its owner, and that of an observer."""

from __future__ import annotations

from revacnn_lightning.protocol.access_keys import AccessKey, KeyRing
from revacnn_lightning.protocol.sockets import Keys

__all__ = ["ANN", "OWNER", "make_ring"]

OWNER, ANN = Keys.generate(), Keys.generate()


def make_ring() -> KeyRing:
    """Return a ring that admits both."""
    ring = KeyRing(OWNER.public)
    ring.add(AccessKey("ann", "observer", ANN.public))
    return ring
