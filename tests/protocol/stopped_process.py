"""A process that somebody has stopped, as with Ctrl-Z."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from revacnn_lightning.protocol.processes import is_process_suspended
from tests.protocol.test_sockets import until

__all__ = ["stopped_process"]


@contextmanager
def stopped_process() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process and stop it; kill it afterwards."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        process.send_signal(signal.SIGSTOP)
        until(lambda: is_process_suspended(process.pid))
        yield process
    finally:
        process.kill()
        process.communicate()
