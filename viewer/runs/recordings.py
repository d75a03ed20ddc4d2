"""The recordings that a server shows instead of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.recording.replay import ReplayedMessages, replay_connection

__all__ = ["Recordings"]


class Recordings:
    """Recordings, each with a connection that stands for its run.

    Args:
        paths: the paths of the files; the first one is shown first.
        speed: the speed of the replay, 1 for the recorded pace; None for the fastest.

    Attributes:
        connections: the connections of the recordings that can be read.
        problem: why the others cannot be read; "" if all can.
    """

    def __init__(self, paths: Sequence[Path], speed: float | None = None) -> None:
        self.connections: list[Connection] = []
        self._paths: dict[str, Path] = {}  # by the id of the run
        self._speed = speed
        problems = []
        for path in paths:
            try:
                connection = replay_connection(path)
            except RevacnnError as error:
                problems.append(str(error))
                continue
            if connection.run in self._paths:  # several recordings of a run
                connection = replace(connection, run=f"{connection.run}-{len(self._paths)}")
            self._paths[connection.run] = path
            self.connections.append(connection)
        self.problem = " ".join(problems)

    def open(self, connection: Connection) -> ReplayedMessages:
        """Open the recording of a connection.

        Raises:
            RecordingError: it can no longer be read.
        """
        return ReplayedMessages(connection, self._paths[connection.run], self._speed)
