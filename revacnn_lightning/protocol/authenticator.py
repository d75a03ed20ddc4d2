"""Decides which keys may connect to a socket (ZeroMQ's ZAP, rfc.zeromq.org/spec/27).

libzmq sends one request per connection, after the client has proved that it has the server key and
its own one. A thread replies: a viewer connects while the training compiles, validates or is in a
long batch, when nothing else would reply. The thread waits in libzmq without Python's lock, so it
costs the training nothing between two connections, and their number per second is limited. It
shares no lock with the training. A fault in it costs the connection, never the training.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable, Sequence

import zmq
from zmq.utils import z85

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.access_keys import KeyRing
from revacnn_lightning.protocol.rate_limit import TokenBucket

__all__ = ["DOMAIN", "USER_ID", "Authenticator", "check_public_key"]

log = logging.getLogger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
DOMAIN = b"revacnn"  # with one, libzmq admits nobody without a reply
ACCEPTED, DENIED = (b"200", b"OK"), (b"400", b"the key is unknown, has expired or was revoked")
PAUSED = (b"300", b"the key has sent a flood")  # libzmq disconnects the client, which tries again
USER_ID = "User-Id"  # property of each frame that a client sends: the public half of its key
# A reply takes about 50 µs. What exceeds this waits, and libzmq closes it after a few seconds.
RATE, BURST = 50.0, 256.0
KEY_LENGTH = 40  # of half a key pair, in Z85


class Authenticator:
    """Admits clients to the sockets of a context, until the context is terminated.

    Args:
        context: the context of the sockets. They must be bound after this.
        ring: the keys to admit.
        is_key_paused: takes the public half of an admitted key, and returns whether to keep it away
            for now. Another thread calls it.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        ring: KeyRing,
        is_key_paused: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._ring = ring
        self._is_key_paused = is_key_paused
        self._seen: dict[str, None] = {}
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(ENDPOINT)
        self._replies = TokenBucket(RATE, BURST)
        self._thread = threading.Thread(target=self._run, name="revacnn-keys", daemon=True)
        self._thread.start()

    def seen_public_keys(self) -> list[str]:
        """Return the public halves of the keys that have connected."""
        return list(self._seen)

    def _run(self) -> None:
        try:
            while True:
                frames = self._socket.recv_multipart()
                while not self._replies.try_take():
                    time.sleep(1 / RATE)
                self._socket.send_multipart(self._reply(frames))
        except zmq.ContextTerminated:
            pass  # the regular end
        except zmq.ZMQError as error:
            log.warning("No further viewers can attach: %s", error)
        finally:
            self._socket.close(linger=0)

    def _reply(self, frames: Sequence[bytes]) -> list[bytes]:
        """Return the reply to a request: version, its id, status, text, user id, metadata."""
        request_id = frames[1] if len(frames) > 1 else b""
        public = _public_key(frames)
        is_admitted = bool(public) and self._ring.admits(public)
        if is_admitted and not self._ring.admits_all:
            self._seen[public] = None
            is_admitted = self._ring.admits(public)  # unless it was revoked at this moment
        status = ACCEPTED if is_admitted else DENIED
        if is_admitted and self._is_key_paused(public):
            status = PAUSED
        user_id = public.encode() if status == ACCEPTED else b""
        return [VERSION, request_id, *status, user_id, b""]


def _public_key(frames: Sequence[bytes]) -> str:
    """Return the key in a request; "" if it is not one about a CURVE key.

    A request is version, id, domain, address, identity, mechanism and credentials.
    """
    if len(frames) != 7 or frames[0] != VERSION or frames[5] != b"CURVE":
        return ""
    return str(z85.encode(frames[6]).decode()) if len(frames[6]) == 32 else ""


def check_public_key(public_key: str) -> None:
    """Check the public half of a new key.

    Raises:
        EditRefusedError: the text is not a CURVE public key.
    """
    try:
        is_key = len(public_key) == KEY_LENGTH and bool(z85.decode(public_key))
    except (LookupError, ValueError, ArithmeticError, struct.error):
        is_key = False
    if not is_key:
        raise EditRefusedError("public_key is not a CURVE key in Z85 (40 characters)")
