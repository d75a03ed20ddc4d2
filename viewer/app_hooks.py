"""Once per server process: find the runs, and begin to receive what they publish."""

from __future__ import annotations

import sys

from bokeh.server.contexts import ServerContext

from .bokeh_compat import apply_patches
from .runs import app_state as server

# Bokeh sets sys.argv to what follows --args only while this file is executed.
ARGUMENTS = sys.argv[1:]

apply_patches()


def on_server_loaded(server_context: ServerContext) -> None:
    server.start(ARGUMENTS)


def on_server_unloaded(server_context: ServerContext) -> None:
    server.stop()
