"""What a run logs when it starts."""

from __future__ import annotations

from collections.abc import Iterator

from revacnn_lightning.runtime.session import Session

__all__ = ["how_to_attach"]


def how_to_attach(session: Session) -> Iterator[str]:
    """Yield how viewers attach to a run, and what they do not see."""
    if not session.recorder.layers:
        yield (
            "ReVACNN: the model has no convolution and no hidden linear layer that is watched, so "
            'only its loss and metrics are shown. layers="all" shows all linear layers.'
        )
    yield (
        "ReVACNN: monitor this run with `revacnn view`. From another machine: copy "
        f"{session.connection_file}, run `{session.connection.ssh_command()}`, "
        "then run `revacnn view --connect` with the copied file."
    )
