"""Which machine this is, and whether one of its processes still exists."""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = [
    "boot_id_of",
    "has_process_exited",
    "is_process_suspended",
    "machine_id",
    "process_start",
]


@functools.cache
def machine_id() -> str:
    """Return an id of this machine that changes with each boot; "" if unknown.

    Containers of a machine have ids of their own, because their processes are numbered apart.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        return ""
    return f"{boot}/{namespace}"


def boot_id_of(machine_id: str) -> str:
    """Return the boot id in a machine id, which all containers of the machine share."""
    return machine_id.partition("/")[0]


def process_start(pid: int) -> int:
    """Return when a process was started, in the kernel's clock ticks since boot; 0 if unknown.

    A later process may have the same pid, but not the same start.
    """
    return _state_and_start(pid)[1]


def has_process_exited(pid: int, start: int = 0) -> bool:
    """Return whether a process of this machine has exited.

    Args:
        pid: the id of the process.
        start: the `process_start` of the process; 0 if unknown.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # a process of another user, which may have been given the pid since
    state, start_now = _state_and_start(pid)
    is_zombie = state == "Z"  # it has exited, and only its parent has not noticed
    return is_zombie or (start > 0 and start_now > 0 and start != start_now)


def is_process_suspended(pid: int, start: int = 0) -> bool:
    """Return whether a process of this machine is suspended, by Ctrl-Z, a signal or a debugger.

    Args:
        pid: the id of the process.
        start: the `process_start` of the process; 0 if unknown.
    """
    state, start_now = _state_and_start(pid)
    return state in ("T", "t") and start in (0, start_now)


def _state_and_start(pid: int) -> tuple[str, int]:
    """Return what Linux says about a process; ("", 0) if unknown."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0  # there is no /proc here, or the process is gone
    fields = status.rpartition(")")[2].split()  # a name may contain anything
    return fields[0], int(fields[19])
