"""The viewer's page in a notebook."""

from __future__ import annotations

import atexit
import tempfile
from html import escape
from pathlib import Path

from revacnn_lightning.client.viewer_process import ViewerProcess
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection

__all__ = ["EmbeddedViewer", "show"]

_shown: EmbeddedViewer | None = None  # by `show`, which reuses it


class EmbeddedViewer:
    """The viewer's page, which a notebook shows below a cell. Its server is a process of its own.

    It therefore works while ``trainer.fit`` keeps the notebook's kernel busy. It is closed with
    the kernel.

    Attributes:
        height: height of the page in the notebook, in pixels.
    """

    def __init__(
        self, process: ViewerProcess, folder: tempfile.TemporaryDirectory[str] | None = None
    ) -> None:
        self.height = 800
        self._process = process
        self._folder = folder
        atexit.register(self.close)

    @classmethod
    def start(cls, connection: Connection | None = None) -> EmbeddedViewer:
        """Start the viewer of a run; without one, of the newest run on this machine.

        Raises:
            RevacnnError: the viewer did not start.
        """
        if connection is None:
            return cls(ViewerProcess.start(["--allow-frame"]))
        folder = tempfile.TemporaryDirectory(prefix="revacnn-")  # only its owner can read it
        try:
            file = connection_file.write(connection, Path(folder.name) / "run.json")
            return cls(ViewerProcess.start(["--allow-frame", "--connect", str(file)]), folder)
        except BaseException:  # also an interrupt
            folder.cleanup()
            raise

    @property
    def address(self) -> str:
        """The address of the page with its token, for a browser on this machine."""
        return self._process.address

    def is_running(self) -> bool:
        """Return whether the page is served."""
        return self._process.is_running()

    def set_height(self, height: int) -> None:
        """Set the height of the page in the notebook, in pixels."""
        self.height = height

    def close(self) -> None:
        """Stop serving the page. This has no effect on the training. May be called again."""
        atexit.unregister(self.close)
        self._process.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def __repr__(self) -> str:
        return f"<Viewer at {self.address}>"

    def _repr_html_(self) -> str:
        address = escape(self.address)
        return (
            f'<iframe src="{address}" width="100%" height="{self.height:d}" '
            f'style="border: 0" title="ReVACNN viewer"></iframe>'
            f'<div style="opacity: 0.7"><a href="{address}" target="_blank" rel="noopener">Open '
            "the viewer in a tab</a>. If it stays empty, the notebook runs on another machine: "
            "forward the port of this address with ssh.</div>"
        )


def show(*, height: int = 800) -> EmbeddedViewer:
    """Show the viewer of the newest run on this machine below a notebook's cell.

    Call it in the cell before ``trainer.fit``: the page shows the training when it starts. Repeated
    calls show the same viewer.

    Args:
        height: height of the page in the notebook, in pixels.

    Raises:
        RevacnnError: the viewer did not start.
    """
    global _shown
    if _shown is None or not _shown.is_running():
        _shown = EmbeddedViewer.start()
    _shown.set_height(height)
    return _shown
