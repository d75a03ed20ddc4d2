"""What all sockets of the protocol share: CURVE encryption, and closing without waiting."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from typing import NamedTuple

import zmq

from revacnn_lightning.errors import ConnectionFileError
from revacnn_lightning.protocol import forked_sockets
from revacnn_lightning.protocol.access_keys import KeyRing
from revacnn_lightning.protocol.authenticator import DOMAIN, Authenticator

__all__ = [
    "EVENTS",
    "NOBLOCK",
    "NOBLOCK_MORE",
    "POLLIN",
    "BaseSocket",
    "Keys",
    "has_encryption",
    "libzmq_version",
]

# pyzmq combines its enumerations in Python, which costs as much as sending: use integers.
NOBLOCK = int(zmq.NOBLOCK)
NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
EVENTS = int(zmq.EVENTS)
POLLIN = int(zmq.POLLIN)
# Time for a client to prove that it has the key. A client that does not is disconnected.
HANDSHAKE_MS = 5_000
# A viewer notices within the sum of the first two that a network is cut or that a run has vanished,
# and connects again within the sum of the others once the network is back.
HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS = 1_000, 3_000
CONNECT_MS, RECONNECT_MAX_MS = 1_500, 1_000


def has_encryption() -> bool:
    """Return whether the installed libzmq was built with CURVE, without which no socket opens."""
    return bool(zmq.has("curve"))


def libzmq_version() -> str:
    """Return the version of libzmq."""
    return zmq.zmq_version()


class Keys(NamedTuple):
    """A CURVE key pair, encoded in Z85."""

    public: str
    secret: str

    @classmethod
    def generate(cls) -> Keys:
        """Return a new random key pair."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())


class BaseSocket:
    """Common base: an own context, CURVE encryption, and closing without waiting."""

    has_heartbeats = True  # of a socket that connects

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self.endpoint = ""
        self._create_socket()

    def _create_socket(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(self._kind)
        self._socket.linger = 0
        self._closing = contextlib.ExitStack()  # the last one is closed first
        self._closing.callback(self._context.term)
        self._closing.callback(self._socket.close)
        # An object that nobody has closed may be collected in a reference cycle. The collector may
        # finalize the context before its sockets, and pyzmq waits there until all are closed: the
        # process would stop.
        self._finalizer = weakref.finalize(self, _close, self._closing, os.getpid())
        self._finalizer.atexit = False  # an exiting process does not wait either

    def _bind(
        self, endpoint: str, keys: Keys, ring: KeyRing, is_key_paused: Callable[[str], bool]
    ) -> Authenticator:
        """Listen on an endpoint; one that ends in ``:0`` uses any free port.

        ``is_key_paused`` returns whether a key of ``ring`` is not admitted now.

        Returns:
            What admits clients with a key of ``ring``, until the socket is closed.

        Raises:
            OSError: the port is in use, or the address is not one of this machine.
        """
        authenticator = Authenticator(self._context, ring, is_key_paused)
        self._socket.zap_domain = DOMAIN
        self._socket.handshake_ivl = HANDSHAKE_MS
        # The CURVE options must be set before binding.
        self._socket.curve_server = True
        self._socket.curve_publickey = keys.public.encode()
        self._socket.curve_secretkey = keys.secret.encode()
        if endpoint.endswith(":0"):
            endpoint = endpoint[:-1] + "*"
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(
                f"cannot listen on {endpoint}: {error}; choose another host or port"
            ) from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        forked_sockets.close_in_forked_processes(self.endpoint)
        return authenticator

    def _connect(self, endpoint: str, server_key: str, keys: Keys | None) -> None:
        """Connect with a key pair, by default with a new one.

        Raises:
            ConnectionFileError: the address or a key is invalid.
        """
        self._set_keys(server_key, keys or Keys.generate())
        if self.has_heartbeats:
            # A forwarded port accepts connections even if the run is gone. Heartbeats detect that.
            self._socket.heartbeat_ivl = HEARTBEAT_MS
            self._socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
        # Without limits, an attempt that a cut network swallows delays the next one by minutes.
        self._socket.connect_timeout = CONNECT_MS
        self._socket.handshake_ivl = HANDSHAKE_MS
        self._socket.reconnect_ivl_max = RECONNECT_MAX_MS
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionFileError(
                f"{endpoint!r} is not a valid address ({error}); copy the connection file again"
            ) from error
        self.endpoint = endpoint

    def _set_keys(self, server_key: str, keys: Keys) -> None:
        try:
            self._socket.curve_serverkey = server_key.encode()
            self._socket.curve_publickey = keys.public.encode()
            self._socket.curve_secretkey = keys.secret.encode()
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionFileError(
                f"the connection file has a key that is not a CURVE key ({error}); copy the file "
                "again"
            ) from error

    def file_descriptor(self) -> int:
        """Return the file descriptor that an event loop waits on.

        It is edge-triggered: receive all messages before waiting.
        """
        return int(self._socket.getsockopt(zmq.FD))

    def close(self, linger: float = 0.0) -> None:
        """Close, and wait up to ``linger`` seconds until queued messages are sent.

        It may be called again.
        """
        if not self._socket.closed:
            self._socket.linger = int(1000 * linger)
        self._finalizer()
        forked_sockets.unregister_endpoint(self.endpoint)


def _close(closing: contextlib.ExitStack, process: int) -> None:
    if os.getpid() == process:  # libzmq's sockets do not work in a forked process
        closing.close()
