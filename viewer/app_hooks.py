"""Once per server process: begin to follow a run."""

from __future__ import annotations

import sys

from bokeh.server.contexts import ServerContext

from .bokeh_compat import send_changes_together, send_frames_at_once, write_messages_at_once
from .runs import app_state as server

# Bokeh sets sys.argv to what follows --args only while this file is executed.
ARGUMENTS = sys.argv[1:]

send_frames_at_once()
send_changes_together()
write_messages_at_once()


def on_server_loaded(server_context: ServerContext) -> None:
    server.start(ARGUMENTS)


def on_server_unloaded(server_context: ServerContext) -> None:
    server.stop()
