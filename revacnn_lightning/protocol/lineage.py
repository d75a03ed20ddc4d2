"""Which runs continue each other: a run that is resumed from a checkpoint is another run."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

from msgspec import Struct

from revacnn_lightning.protocol.connection_file import Connection

__all__ = ["Lineage", "find_resuming_run"]

VALID_ID = re.compile(r"[0-9a-f]{12}")


class Lineage(Struct, frozen=True):
    """The place of a run among those that continue each other.

    Attributes:
        id: the id that all of these runs share. Checkpoints store it.
        first_step: number of batches that were trained before this run.
    """

    id: str
    first_step: int = 0

    @classmethod
    def begin(cls) -> Lineage:
        """Return the lineage of a run that continues no other one."""
        return cls(uuid.uuid4().hex[:12])

    @classmethod
    def continue_from(cls, lineage_id: object, first_step: int) -> Lineage:
        """Return the lineage of a run that continues others at batch ``first_step``.

        ``lineage_id`` may come from a file: if it is not valid, the lineage is a new one.
        """
        if isinstance(lineage_id, str) and VALID_ID.fullmatch(lineage_id):
            return cls(lineage_id, first_step)
        return cls.begin()


def find_resuming_run(earlier: Connection, runs: Iterable[Connection]) -> Connection | None:
    """Return the newest of ``runs`` that resumes the run ``earlier``; None if none does."""
    resumed = [
        run
        for run in runs
        if run.lineage == earlier.lineage != ""
        and run.run != earlier.run
        and run.start_time > earlier.start_time
    ]
    return max(resumed, key=lambda run: run.start_time, default=None)
