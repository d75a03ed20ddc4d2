"""One recording: an MCAP file with a channel for each topic of the protocol."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING

from revacnn_lightning.errors import MissingPackageError
from revacnn_lightning.protocol.encoding import TOPICS
from revacnn_lightning.protocol.messages import PROTOCOL_VERSION
from revacnn_lightning.recording.packed_message import PackedMessage

if TYPE_CHECKING:
    from mcap.writer import Writer

__all__ = [
    "ENCODING",
    "METADATA",
    "RecordingFile",
    "create_unique_file",
    "is_file_name",
    "require_mcap",
]

ENCODING = "msgpack"  # of the messages
METADATA = "revacnn"  # name of the metadata record
SCHEMA = "revacnn.frames"
SCHEMA_TEXT = b"""\
Each message is a msgpack array of byte strings: the frames [topic, header, buffer...] of one
message of ReVACNN's wire protocol, as they are sent over ZeroMQ. The header is a msgpack map;
an array in it is {shape, frame, dtype} and refers to the buffer with the index frame.
The metadata record "revacnn" holds the version of the protocol.
"""
CHUNK_BYTES = 2**20  # before compression
MAX_COPIES = 10_000


class RecordingFile:
    """Writes messages to an MCAP file.

    Args:
        stream: a new binary file; it is closed with the recording.
        metadata: describes the run.

    Raises:
        MissingPackageError: the package mcap is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, stream: IO[bytes], metadata: dict[str, str]) -> None:
        self._stream = stream
        self._writer = _make_writer(stream)
        self._writer.start(profile="", library="revacnn-lightning")
        self._writer.add_metadata(METADATA, {"protocol": str(PROTOCOL_VERSION), **metadata})
        schema = self._writer.register_schema(SCHEMA, "text", SCHEMA_TEXT)
        topics = sorted(topic.decode() for topic in TOPICS)
        self._channels = {
            topic: self._writer.register_channel(topic, ENCODING, schema) for topic in topics
        }

    def write(self, message: PackedMessage) -> None:
        """Add a message. It is on the disk after `flush`.

        Raises:
            OSError: the file cannot be written.
        """
        channel = self._channels[message.topic]
        self._writer.add_message(channel, message.time, message.data, message.time)

    def flush(self) -> None:
        """Complete the current chunk: what was added can be read, even if this process is killed.

        Raises:
            OSError: the file cannot be written.
        """
        self._writer.flush()

    def finish(self, further_metadata: dict[str, str]) -> None:
        """Add the index and further metadata, and close the file.

        Raises:
            OSError: the file cannot be written. It remains readable without the index.
        """
        try:
            self._writer.add_metadata(METADATA, further_metadata)
            self._writer.finish()
        finally:
            self._stream.close()

    def close_without_index(self) -> None:
        """Close the file without an index, after an error."""
        with contextlib.suppress(OSError):  # what is still buffered cannot be written, either
            self._stream.close()


def create_unique_file(path: Path) -> tuple[Path, IO[bytes]]:
    """Create a new file. If there is one already, the name gets a number at its end.

    Returns:
        The path, and the open file.

    Raises:
        OSError: the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in range(MAX_COPIES):
        numbered = path.with_stem(f"{path.stem}-v{number}") if number else path
        try:
            return numbered, numbered.open("xb")
        except FileExistsError:
            continue
    raise FileExistsError(f"{path} and {MAX_COPIES} numbered copies of it exist")


def require_mcap() -> None:
    """Check that the package is installed that writes and reads recordings.

    Raises:
        MissingPackageError: the package mcap is not installed.
    """
    try:
        import mcap.writer  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "recordings need the package mcap: pip install 'revacnn-lightning[record]'"
        ) from error


def is_file_name(name: str) -> bool:
    """Return whether a name is a valid file name without a folder, on every system."""
    return re.fullmatch(r"[A-Za-z0-9_=][A-Za-z0-9_.=+ -]{0,119}", name) is not None


def _make_writer(stream: IO[bytes]) -> Writer:
    require_mcap()
    from mcap.writer import Writer

    return Writer(stream, chunk_size=CHUNK_BYTES)
