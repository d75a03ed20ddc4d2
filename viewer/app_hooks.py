"""Starts and stops following runs. Bokeh runs this file once per server process."""

from __future__ import annotations

import sys

from bokeh.server.contexts import ServerContext

from .bokeh_compat import apply_patches
from .runs import app_state

# Bokeh sets sys.argv to the arguments after --args only while it executes this file.
ARGUMENTS = sys.argv[1:]

apply_patches()


def on_server_loaded(server_context: ServerContext) -> None:
    app_state.start(ARGUMENTS)


def on_server_unloaded(server_context: ServerContext) -> None:
    app_state.stop()
