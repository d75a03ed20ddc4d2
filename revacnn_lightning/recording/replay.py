"""A recording that looks like a run: a viewer polls it for messages and sends requests to it."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from revacnn_lightning.protocol.class_lens import ClassAnswers, ClassLens, Confusion
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.growth import GrowthGains
from revacnn_lightning.protocol.inspections import FilterInspection, ImagePass, Inspected
from revacnn_lightning.protocol.messages import Message, Refused, Snapshot, Status, Structure
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.rank_messages import RankValues
from revacnn_lightning.protocol.requests import (
    InspectClass,
    InspectClasses,
    InspectEvidence,
    InspectFilter,
    InspectGrowth,
    InspectImage,
    Inspection,
    InspectPrices,
    InspectRanks,
    RequestBody,
)
from revacnn_lightning.recording.chunk_index import Chunk
from revacnn_lightning.recording.packed_message import PackedMessage
from revacnn_lightning.recording.recording_reader import RecordingReader

__all__ = ["ReplayedMessages", "replay_connection"]

POLL_SECONDS = 0.03  # spent on reading in each poll, so that the page stays responsive
MAX_MESSAGES_PER_POLL = 300
MAX_CHUNKS = 1500  # read of a long recording; histories have fewer rows
MAX_BATCHES = 20_000  # decoded of a long recording
# Chunks with these topics are always read, in full: around edits, every batch counts.
NEEDED_TOPICS = frozenset({"structure", "applied", "history"})
MAX_DETAILS, MAX_DETAIL_BYTES = 256, 64 * 2**20
REPEAT_SECONDS = 10.0  # a viewer that has requested a detail longer ago may have dropped it
IS_RECORDING = "this is a recording: it cannot be edited or controlled"
NO_DETAIL = "this recording holds no such details of {}: nobody had them open at its end"
INPUT = ""  # the key of what is known of the input, which has no layer
GROWTH = "the growth gains"  # the key of where one more filter would help
PRICES = "the prices"  # the key of what removing filters costs
CLASSES = "the classes of {}"  # the key of how the filters of a layer answer to classes
CONFUSION = "the confusion of the validation data"  # the key of that
CLASS = "the answers to class {}"  # the key of how all filters answer to a class
RANKS = "the values of {} in each rank"  # the key of what each rank has recorded of a layer
EVIDENCE = "the evidence on {}"  # the key of what was found on examining a layer


class ReplayedMessages:
    """Replays the messages of a recording.

    Of a long recording, a part of the batches is read, evenly over the whole run. It ends with the
    last one.

    Args:
        connection: stands for the run; see `replay_connection`.
        path: the path of the recording.
        speed: relative to the time of the recording, 1 for the same pace; None: as fast as
            possible.

    Attributes:
        structure, status, snapshot: the last ones that `poll` has returned.
        access: None, because a recording needs no key.
        interruption_count: 0: a file is always reachable.

    Raises:
        MissingPackageError: the package mcap is not installed.
        RecordingError: the file is not a recording that can be read.
    """

    def __init__(self, connection: Connection, path: Path, speed: float | None = None) -> None:
        self.connection = connection
        self.interruption_count = 0
        self.structure: Structure | None = None
        self.status: Status | None = None
        self.snapshot: Snapshot | None = None
        self.access = None
        self._reader = RecordingReader(path)
        self._speed = speed
        self._started_at = time.monotonic()
        self._first_time = self._reader.chunks[0].start if self._reader.chunks else 0
        self._n_chunks_read = 0
        self._replies: list[Message] = []
        self._details = _Details()
        self._messages: Iterator[PackedMessage] | None = self._read()  # None: all are read
        self._next: PackedMessage | None = None

    def poll(self) -> list[Message]:
        """Return the replies, and the messages that are due. Never waits for long."""
        messages, self._replies = self._replies, []
        deadline = time.monotonic() + POLL_SECONDS
        while len(messages) < MAX_MESSAGES_PER_POLL and time.monotonic() < deadline:
            packed = self._take_due()
            if packed is None:
                break
            message = self._reader.unpack(packed)
            if message is not None:
                self._keep(message, packed)
                messages.append(message)
        return messages

    def request(
        self, body: RequestBody, *, version: int | None = None, dry_run: bool = False
    ) -> str:
        """Reply to a request with what was recorded, or refuse it; return its id."""
        id_ = uuid.uuid4().hex
        if not isinstance(body, Inspection):
            self._replies.append(Refused(id_, IS_RECORDING))
            return id_
        detail = self._details.find(body, self.structure)
        if detail is None:
            self._replies.append(Refused(id_, NO_DETAIL.format(_key(body)[0] or "the input")))
        elif self._details.is_new_request(body):
            self._replies.append(detail)
        return id_

    def file_descriptors(self) -> list[int]:
        """Return nothing to wait for: `poll` regularly."""
        return []

    def seconds_since_last_message(self) -> float:
        """Return 0: a recording is never silent."""
        return 0.0

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def describe(self) -> str:
        """Return how much was read, and how the run has ended, in words."""
        if self._messages is not None:
            share = self._n_chunks_read / max(1, len(self._reader.chunks))
            verb = "reading" if self._speed is None else "playing"
            return f"{verb} the recording {self._reader.path.name}: {share:.0%}"
        text = f"recording {self._reader.path.name}"
        state = None if self.status is None else self.status.state
        if self.status is not None and state == "failed":
            return f"{text} of a run that failed: {self.status.detail}".removesuffix(": ")
        return text if state == "finished" else f"{text}, which ends before the run"

    # ------------------------------------------------------------------ reading

    def _take_due(self) -> PackedMessage | None:
        """Return the next message if it is due; None if there is none."""
        if self._next is None and self._messages is not None:
            self._next = next(self._messages, None)
            if self._next is None:
                self._messages = None
        found = self._next
        if found is None or not self._is_due(found):
            return None
        self._next = None
        return found

    def _is_due(self, message: PackedMessage) -> bool:
        if self._speed is None:
            return True
        played = (time.monotonic() - self._started_at) * self._speed
        return message.time - self._first_time <= played * 1e9

    def _read(self) -> Iterator[PackedMessage]:
        """Yield the messages of the recording, thinned out if there are very many."""
        n_batches = self._reader.counts["snapshot"]
        chunk_step = max(1, len(self._reader.chunks) // MAX_CHUNKS)
        batch_step = max(1, n_batches // chunk_step // MAX_BATCHES)
        if self._speed is not None:
            chunk_step = batch_step = 1
        last = len(self._reader.chunks) - 1
        for number, chunk in enumerate(self._reader.chunks):
            self._n_chunks_read = number
            is_needed = number in (0, last) or bool(chunk.topics & NEEDED_TOPICS)
            if is_needed or number % chunk_step == 0:
                yield from self._read_chunk(chunk, 1 if is_needed else batch_step)

    def _read_chunk(self, chunk: Chunk, batch_step: int) -> Iterator[PackedMessage]:
        n_batches = 0
        for packed in self._reader.packed_messages(chunk):
            if packed.topic == "snapshot":
                n_batches += 1
                if n_batches % batch_step:
                    continue
            yield packed

    def _keep(self, message: Message, packed: PackedMessage) -> None:
        if isinstance(message, Structure):
            self.structure = message
        elif isinstance(message, Status):
            self.status = message
        elif isinstance(message, Snapshot):
            self.snapshot = message
        elif isinstance(message, Inspected):
            self._details.add(message, len(packed.data))


class _Details:
    """The last details of each layer and filter and of the input, of bounded size."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int | None], Inspected] = OrderedDict()
        self._sizes: dict[tuple[str, int | None], int] = {}
        self._requested_at: dict[str, float] = {}

    def add(self, detail: Inspected, size: int) -> None:
        key = _key(detail)
        before = self._known.get(key)
        if isinstance(detail, ImagePass) and isinstance(before, ImagePass):
            is_known = detail.modules is None and before.version == detail.version
            modules = before.modules if is_known else detail.modules  # the viewer knew them
            detail = replace(detail, modules=modules)
        self._known[key], self._sizes[key] = detail, size
        self._known.move_to_end(key)
        while sum(self._sizes.values()) > MAX_DETAIL_BYTES or len(self._known) > MAX_DETAILS:
            dropped, _ = self._known.popitem(last=False)
            del self._sizes[dropped]

    def find(self, request: Inspection, structure: Structure | None) -> Inspected | None:
        """Return what a request selects, if it describes the network as it is."""
        detail = self._known.get(_key(request))
        version = None if structure is None else structure.version
        return detail if detail is not None and detail.version == version else None

    def is_new_request(self, request: RequestBody) -> bool:
        """Return whether the viewer does not repeat a request to keep a detail up to date."""
        now = time.monotonic()
        key = repr(request)
        before = self._requested_at.get(key, float("-inf"))
        self._requested_at[key] = now
        return now - before > REPEAT_SECONDS


def _key(view: Inspection | Inspected) -> tuple[str, int | None]:
    """Return the layer and the filter that a request selects, or that its reply shows."""
    if isinstance(view, InspectImage | ImagePass):
        return INPUT, None
    if isinstance(view, InspectPrices | FilterPrices):
        return PRICES, None
    if isinstance(view, InspectGrowth | GrowthGains):
        return GROWTH, None
    if isinstance(view, InspectEvidence | LayerEvidence):
        return EVIDENCE.format(view.layer or "all layers"), None
    if isinstance(view, InspectRanks | RankValues):
        return RANKS.format(view.layer), None
    if isinstance(view, InspectClasses | ClassLens):
        return CLASSES.format(view.layer), None
    if isinstance(view, Confusion):
        return CONFUSION, None
    if isinstance(view, InspectClass | ClassAnswers):
        return CLASS.format(view.class_index), None
    if isinstance(view, InspectFilter | FilterInspection):
        return view.layer, view.filter
    return view.layer, None


def replay_connection(path: Path) -> Connection:
    """Return a connection that stands for the run in a recording.

    Raises:
        MissingPackageError: the package mcap is not installed.
        RecordingError: the file is not a recording that can be read.
    """
    with RecordingReader(path) as reader:
        about = reader.about
        start = reader.chunks[0].start / 1e9 if reader.chunks else 0.0
    return Connection(
        run=about.get("run") or path.stem,
        telemetry_endpoint="",
        request_endpoint="",
        server_key="",
        model=about.get("model", ""),
        name=about.get("name") or path.stem,
        start_time=start,
    )
