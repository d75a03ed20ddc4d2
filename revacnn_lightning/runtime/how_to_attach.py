"""What a run logs when it starts."""

from __future__ import annotations

from collections.abc import Iterator

from revacnn_lightning.diagnostics.verdicts import NOTHING_WATCHED
from revacnn_lightning.runtime.session import Session

__all__ = ["how_to_attach"]


def how_to_attach(session: Session) -> Iterator[str]:
    """Yield the lines to log: how viewers attach to a run, and what they cannot see."""
    if not session.recorder.layers:
        yield (f"ReVACNN: only the loss and the metrics of the model are shown: {NOTHING_WATCHED}.")
    yield (
        "ReVACNN: monitor this run with `revacnn view`. From another machine: copy "
        f"{session.connection_file}, run `{session.connection.ssh_command()}`, "
        "then run `revacnn view --connect` with the copied file."
    )
