"""What hostile clients cost a training: processor time, file descriptors and memory.

Clients without the key hold or flood TCP connections. Clients with the key flood the run with
malformed requests, plans, subscriptions, and frames that are too large or too many. They connect
with TCP, as everybody can who has the key, and also with the Unix sockets ("local").

``python -m benchmarks.hostile_clients [--only ...] [--seconds N] [--check] [--quick]``
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
import zmq

from benchmarks.report import Report, argument_parser
from benchmarks.training_loops import MODELS, MonitoredTraining
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection

MAX_SHARE = 0.02  # of the time of a step
MAX_DESCRIPTORS = 32
MAX_MEGABYTES = 20.0
CONNECTIONS = 1_000
WARM_UP_SECONDS = 8.0  # until an attack has begun, and used what is granted at a time
LOOK_SECONDS = 0.1  # between two looks at descriptors and memory
LAYER = "net.0"

# ---------------------------------------------------------------------- attacks, in processes


def hold_connections(run: Connection) -> None:
    """Connect a thousand times without saying anything; connect again when disconnected."""
    held: list[socket.socket] = []
    addresses = itertools.cycle((run.telemetry_endpoint, run.request_endpoint))
    while True:
        with contextlib.suppress(OSError):
            held.append(_connect(next(addresses)))
        if len(held) >= CONNECTIONS:
            held.pop(0).close()
            time.sleep(0.001)


def flood_connections(run: Connection) -> None:
    """Connect, send the beginning of a handshake or of another protocol, and disconnect."""
    greeting = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
    hello = b"\x04\xc8\x05HELLO\x01\x00".ljust(202, b"x")
    beginnings = itertools.cycle((greeting + hello, greeting, b"GET / HTTP/1.1\r\n\r\n", b""))
    addresses = itertools.cycle((run.telemetry_endpoint, run.request_endpoint))
    while True:
        with contextlib.suppress(OSError), _connect(next(addresses)) as stranger:
            stranger.sendall(next(beginnings))


def send_malformed(run: Connection) -> None:
    nested = b"\x82\xa1x" + b"\x91" * 10_000 + b"\xc0\xa2id\xa1q"
    _flood(run, itertools.cycle([[b"request", nested], [b"request", b"\xc1" * 50], [b"x"]]))


def send_mutated(run: Connection) -> None:
    """Send plans with random bytes changed: most are malformed, and none changes anything."""
    chance = random.Random(0)
    valid = _request(type="RemoveFilters", layer=LAYER, filters=[0])

    def mutate() -> list[bytes]:
        header = bytearray(valid)
        for _ in range(chance.randint(1, 4)):
            header[chance.randrange(len(header))] = chance.randrange(256)
        return [b"request", bytes(header)] if b"dry_run\xc3" in header else [b"request", valid]

    _flood(run, (mutate() for _ in itertools.count()))


def send_plans(run: Connection) -> None:
    _flood(run, itertools.repeat([b"request", _request(type="AddFilters", layer=LAYER)]))


def send_many_frames(run: Connection) -> None:
    _flood(run, itertools.repeat([b"request"] + [b"x" * 30_000] * 62))


def send_large_requests(run: Connection) -> None:
    _flood(run, itertools.repeat([b"request", b"x" * 30_000]))


def send_large_frames(run: Connection) -> None:
    _flood(run, itertools.repeat([b"request", b"x" * 2**20]))


def send_subscriptions(run: Connection) -> None:
    subscriptions = ([b"\x01t%08d" % i] for i in itertools.count())
    _flood(run, subscriptions, kind=zmq.XSUB, address=run.telemetry_endpoint)


def send_long_subscriptions(run: Connection) -> None:
    subscriptions = ([b"\x01" + b"%08d" % i * 2**19] for i in itertools.count())
    _flood(run, subscriptions, kind=zmq.XSUB, address=run.telemetry_endpoint)


# name -> what a process does until it is killed
CONNECTION_ATTACKS = {"idle connections": hold_connections, "connections": flood_connections}
MESSAGE_ATTACKS = {
    "malformed requests": send_malformed,
    "mutated requests": send_mutated,
    "plans": send_plans,
    "many frames": send_many_frames,
    "large requests": send_large_requests,
    "large frames": send_large_frames,
    "subscriptions": send_subscriptions,
    "long subscriptions": send_long_subscriptions,
}
ATTACKS: dict[str, Callable[[Connection], None]] = {**CONNECTION_ATTACKS, **MESSAGE_ATTACKS}


def _connect(endpoint: str) -> socket.socket:
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=1)


def _request(**body: Any) -> bytes:
    return msgspec.msgpack.encode({"id": "flood", "body": body, "dry_run": True})


def _flood(
    run: Connection,
    messages: Iterator[list[bytes]],
    kind: int = zmq.DEALER,
    address: str = "",
) -> None:
    """Send messages as fast as the run takes them, from four sockets."""
    sockets = [_open(run, kind, address or run.request_endpoint) for _ in range(4)]
    for message in messages:
        n_full = 0
        for each in sockets:
            try:
                each.send_multipart(message, zmq.NOBLOCK)
            except zmq.Again:
                n_full += 1
            if each.type == zmq.DEALER:
                with contextlib.suppress(zmq.Again):
                    while True:
                        each.recv_multipart(zmq.NOBLOCK)
        if n_full == len(sockets):
            time.sleep(0.001)


def _open(run: Connection, kind: int, address: str) -> zmq.Socket[bytes]:
    hostile = zmq.Context.instance().socket(kind)
    hostile.curve_publickey, hostile.curve_secretkey = (
        key.encode() for key in (run.public_key, run.secret_key)
    )
    hostile.curve_serverkey = run.server_key.encode()
    hostile.connect(address)
    return hostile


# ---------------------------------------------------------------------- measurement


class TimedTraining(MonitoredTraining):
    """Adds up the processor time that the callback takes from the training thread.

    Other times would include what the attack itself takes from the machine.
    """

    callback_seconds = 0.0

    def on_step_start(self) -> None:
        started = time.thread_time()
        super().on_step_start()
        self.callback_seconds += time.thread_time() - started

    def on_step_end(self, loss: torch.Tensor) -> None:
        started = time.thread_time()
        super().on_step_end(loss)
        self.callback_seconds += time.thread_time() - started


class Usage(NamedTuple):
    """What a number of steps have used, per step or at most."""

    step_seconds: float
    callback_seconds: float
    descriptors: int
    megabytes: float


def measure_attack(report: Report, name: str, seconds: float, *, is_local: bool) -> None:
    """Train without and with an attack, and compare."""
    training = TimedTraining(MODELS["convnet"](), host=None if is_local else "127.0.0.1")
    training.begin_block()
    train_for(training, 1.0)
    version = training.session._status.version
    calm = train_for(training, seconds)
    command = [sys.executable, "-m", "benchmarks.hostile_clients", "--attack", name]
    process = subprocess.Popen([*command, str(training.file)], stdout=subprocess.PIPE)
    while not select.select([process.stdout], [], [], 0)[0]:
        training.step()  # until it has imported everything
    train_for(training, WARM_UP_SECONDS)
    attacked = train_for(training, seconds)
    assert process.poll() is None, "the attack has ended by itself"
    process.kill()
    process.wait()
    assert training.session._status.version == version, "the network was edited"
    training.close()
    share = (attacked.callback_seconds - calm.callback_seconds) / calm.step_seconds
    descriptors = attacked.descriptors - calm.descriptors
    megabytes = attacked.megabytes - calm.megabytes
    title = f"{name}, local" if is_local else name
    report.add_row(title, f"{calm.step_seconds * 1e3:.2f} ms", share, descriptors, megabytes)
    report.check_at_most(f"{title}: share of a step", share, MAX_SHARE)
    report.check_at_most(f"{title}: descriptors", descriptors, MAX_DESCRIPTORS)
    report.check_at_most(f"{title}: memory (MB)", megabytes, MAX_MEGABYTES)


def train_for(training: TimedTraining, seconds: float) -> Usage:
    training.callback_seconds, started_cpu = 0.0, time.thread_time()
    descriptors, megabytes, n_steps = 0, 0.0, 0
    started = looked = time.perf_counter()
    while (now := time.perf_counter()) < started + seconds:
        training.step()
        n_steps += 1
        if now - looked > LOOK_SECONDS:
            looked = now
            descriptors = max(descriptors, len(os.listdir("/proc/self/fd")))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            megabytes = max(megabytes, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    step_seconds = (time.thread_time() - started_cpu) / n_steps
    return Usage(step_seconds, training.callback_seconds / n_steps, descriptors, megabytes)


def main() -> int:
    parser = argument_parser(__doc__, quick="2 seconds of each attack")
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each attack")
    parser.add_argument("--attack", nargs=2, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.attack:
        name, file = options.attack
        print("begins", flush=True)
        ATTACKS[name](connection_file.read(file))
        return 0
    torch.set_num_threads(1)
    report = Report("Hostile clients", ["attack", "step", "share", "descriptors", "MB"])
    seconds = 2.0 if options.quick else options.seconds
    for name in options.only:
        measure_attack(report, name, seconds, is_local=False)
        if name in MESSAGE_ATTACKS:
            measure_attack(report, name, seconds, is_local=True)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
