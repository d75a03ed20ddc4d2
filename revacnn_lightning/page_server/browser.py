"""Opens the page in a browser of this machine."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import webbrowser
from html import escape
from pathlib import Path

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol import private_files
from revacnn_lightning.protocol.connection_file import runtime_dir

__all__ = ["open_in_browser"]

log = logging.getLogger(__name__)

_PAGE = '<!DOCTYPE html><title>ReVACNN</title><meta http-equiv="refresh" content="0; url={}">\n'


def open_in_browser(address: str) -> None:
    """Open an address that contains the token, if this machine has a display.

    The browser is given a private file that leads to the address: other users of the machine can
    read the arguments of the browser's process. Without such a file, no browser is opened.
    """
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return
    try:
        page = _private_page(address)
    except (OSError, RevacnnError) as error:
        log.warning("No browser is opened: %s. Open the address yourself.", error)
        return
    webbrowser.open(page.as_uri())


def _private_page(address: str) -> Path:
    """Return a file that is removed when this process ends."""
    directory = runtime_dir()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_files.check_not_writable_by_others(directory)
    path = directory / f"open-{os.getpid()}.html"
    private_files.write(path, _PAGE.format(escape(address)).encode())
    atexit.register(path.unlink, missing_ok=True)
    return path.absolute()
