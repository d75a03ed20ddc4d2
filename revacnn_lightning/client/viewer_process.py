"""The viewer's server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

from revacnn_lightning.errors import RevacnnError

__all__ = ["ViewerProcess"]

START_SECONDS = 60.0  # time limit for the viewer to start; long enough for a slow machine
STOP_SECONDS = 5.0  # before a server that does not end is killed
ADDRESS_LINE = "Viewer: "


class ViewerProcess:
    """A process that runs ``revacnn view``.

    It has a process session of its own, so that Ctrl-C does not reach it.

    Attributes:
        address: the address of the page.
    """

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process = process
        self.address = address

    @classmethod
    def start(cls, arguments: Sequence[str] = ()) -> ViewerProcess:
        """Start ``revacnn view`` with further arguments, and wait until it serves the page.

        Raises:
            RevacnnError: the viewer did not start.
        """
        command = [sys.executable, "-m", "revacnn_lightning", "view", "--no-open", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
        )
        assert process.stdout is not None
        timer = threading.Timer(START_SECONDS, process.kill)  # ends the lines
        timer.start()
        try:
            for line in process.stdout:
                if line.startswith(ADDRESS_LINE):
                    return cls(process, line.removeprefix(ADDRESS_LINE).strip())
        finally:
            timer.cancel()
        cls(process, "").stop()
        raise RevacnnError("the viewer did not start; see its output above")

    def is_running(self) -> bool:
        """Return whether the process has not exited."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait until the process exits; return its status."""
        return self._process.wait()

    def stop(self) -> None:
        """End the process. May be called again."""
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
