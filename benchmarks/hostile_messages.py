"""Damaged messages raise no other error than `ProtocolError`, and take no memory.

``python -m benchmarks.hostile_messages [--messages N] [--json FILE] [--check] [--quick]``

Valid messages of every kind that a test of the protocol holds are damaged in one of these ways:

- bytes: some bytes of a frame have other values.
- length: a frame is cut, repeated, or spliced with that of another message.
- value: a field, known or unknown, has any other value, or an array of any size.
- nesting: a field has a value that is nested up to a hundred thousand times.
- frames: frames are missing, repeated, or in another order.

Decoding one may raise a `ProtocolError`. Another error is a failure, and so is memory that grows.
Damaged requests to a run in training are part of `benchmarks.hostile_clients`.
"""

from __future__ import annotations

import collections
import os
import random
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from benchmarks.page_metrics import resident_bytes
from benchmarks.report import Report, argument_parser, progress
from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.encoding import decode, encode, request_id
from tests.protocol.test_encoding import INSPECTION, MESSAGES, snapshot

MAX_MEGABYTES = 20.0
MESSAGES_BEFORE = 10_000  # until the allocator has settled
Frames = list[bytes]
INTEGERS = (-(2**63), -1, 0, 1, 2**31, 2**63 - 1, 2**64 - 1)
SCALARS = (None, True, "", "\x00\n\x1b[31m", "x" * 1000, b"\xff", 0.5, float("nan"), float("inf"))


def valid_messages() -> list[Frames]:
    """Return the frames of a message of each kind."""
    kinds = [*MESSAGES, INSPECTION, snapshot(np.zeros((2, 3), np.float32))]
    return [[bytes(frame) for frame in encode(message)] for message in kinds]


def damage_bytes(frames: Frames, rng: random.Random, other_messages: list[Frames]) -> None:
    """Replace up to four bytes of one frame, in place."""
    number = rng.randrange(len(frames))
    damaged = bytearray(frames[number])
    for _ in range(rng.randint(1, 4) if damaged else 0):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    frames[number] = bytes(damaged)


def damage_length(frames: Frames, rng: random.Random, other_messages: list[Frames]) -> None:
    """Cut one frame, or append another to it, in place."""
    number = rng.randrange(len(frames))
    frame, other = frames[number], rng.choice(rng.choice(other_messages))
    cut = rng.randint(0, len(frame))
    rest = rng.choice((b"", frame, other[rng.randint(0, len(other)) :]))
    frames[number] = frame[:cut] + rest


def damage_value(frames: Frames, rng: random.Random, other_messages: list[Frames]) -> None:
    """Replace one field of the message by any other value, in place."""
    fields = msgspec.msgpack.decode(frames[1])
    fields[rng.choice([*fields, "unknown"])] = _any_value(rng, depth=3)
    frames[1] = msgspec.msgpack.encode(fields)


def _any_value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(5 if depth else 2)
    if kind == 0:
        return chance.choice(INTEGERS)
    if kind == 1:
        return chance.choice(SCALARS)
    if kind == 2:
        shape = [chance.choice(INTEGERS) for _ in range(chance.randint(0, 40))]
        return {"shape": shape, "frame": chance.choice(INTEGERS)}
    values = [_any_value(chance, depth - 1) for _ in range(chance.randint(0, 4))]
    return values if kind == 3 else {f"key{number}": value for number, value in enumerate(values)}


def damage_by_nesting(frames: Frames, rng: random.Random, other_messages: list[Frames]) -> None:
    """Replace the message by one of very deeply nested containers, in place."""
    opening = rng.choice((b"\x91", b"\x81\xa1a"))
    depth = rng.choice((10, 1_000, 100_000))
    name = rng.choice((b"\xa2id", b"\xa4body", b"\xa1x"))
    frames[1] = b"\x81" + name + opening * depth + b"\xc0"


def damage_frames(frames: Frames, rng: random.Random, other_messages: list[Frames]) -> None:
    """Shuffle, repeat and drop frames, in place."""
    frames += rng.choice(other_messages) * rng.choice((0, 1, 30))
    rng.shuffle(frames)
    del frames[rng.randint(0, len(frames)) :]


DAMAGES: dict[str, Callable[[Frames, random.Random, list[Frames]], None]] = {
    "bytes": damage_bytes,
    "length": damage_length,
    "value": damage_value,
    "nesting": damage_by_nesting,
    "frames": damage_frames,
}
SHARES = {"bytes": 30, "length": 20, "value": 35, "nesting": 5, "frames": 10}


def decode_damaged(report: Report, message_count: int, seed: int) -> None:
    """Damage and decode `message_count` messages, and add one row for each kind of damage."""
    chance, valid = random.Random(seed), valid_messages()
    outcomes: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in SHARES}
    before = 0
    for number in progress(range(message_count), "decoding", total=message_count):
        if number == min(MESSAGES_BEFORE, message_count // 2):
            before = resident_bytes(os.getpid())
        [name] = chance.choices([*SHARES], [*SHARES.values()])
        frames = [*chance.choice(valid)]
        DAMAGES[name](frames, chance, valid)
        outcomes[name][_outcome(frames)] += 1
    megabytes = (resident_bytes(os.getpid()) - before) / 2**20
    unexpected: set[str] = set()
    for name, found in outcomes.items():
        other = set(found) - {"decoded", "refused"}
        unexpected |= other
        report.add_row(name, found["decoded"], found["refused"], sum(found[each] for each in other))
    for error in sorted(unexpected):
        report.add_note(error)
    report.check_at_most("kinds of other errors", len(unexpected), 0)
    report.check_at_most("memory (MB)", megabytes, MAX_MEGABYTES)


def _outcome(frames: Frames) -> str:
    """Return what decoding a message does, and reading the id that a refusal of it has."""
    try:
        decode(frames)
        outcome = "decoded"
    except ProtocolError:
        outcome = "refused"
    except Exception as error:  # noqa: BLE001 - the benchmark reports every error
        return f"{type(error).__name__}: {error}"[:100]
    try:
        request_id(frames)
    except Exception as error:  # noqa: BLE001
        return f"in request_id, {type(error).__name__}: {error}"[:100]
    return outcome


def main() -> int:
    parser = argument_parser(__doc__, quick="20,000 messages")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = Report("Damaged messages", ["damage", "decoded", "refused", "other errors"])
    decode_damaged(report, 20_000 if options.quick else options.messages, options.seed)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
