"""Starts and stops following runs. Bokeh runs this file once per server process."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any

from bokeh.server.contexts import ServerContext
from bokeh.settings import settings
from tornado.httputil import HTTPServerRequest

from revacnn_lightning.page_server.access_token import AccessToken
from revacnn_lightning.page_server.bokeh_serve import cookies_and_headers_for_session

from . import page_access
from .bokeh_compat import apply_enabled_patches
from .runs import app_state

# Bokeh sets sys.argv to the arguments after --args only while it executes this file.
OPTIONS = app_state.parse_options(sys.argv[1:])
# Made before Bokeh forks: all processes of --num-procs have the same.
TOKEN = AccessToken.of_this_process()

apply_enabled_patches()
# A check of all models of each page, a fifth of the time in which it is made; tests do it.
settings.perform_document_validation = False
if OPTIONS.access == "server":
    page_access.require_auth_module()
elif OPTIONS.access == "token":
    page_access.set_default_auth_module()


def on_server_loaded(server_context: ServerContext) -> None:
    """Start following runs. Bokeh calls this hook when the server starts."""
    if OPTIONS.access != "token":
        page_access.let_server_check_access()
    else:
        print(
            f"ReVACNN: add  ?{TOKEN.query}  to the address of the page. It opens only with this "
            "token and, without --ssl-certfile, only on this machine.\n"
            "ReVACNN: bokeh serve listens on all interfaces unless it has the option --address "
            "127.0.0.1. `revacnn view` does not.",
            flush=True,
        )
    app_state.start_following_runs(OPTIONS)
    import_module(".tab.page", __package__)  # the first page need not wait for it
    # Bokeh collects all garbage when a page is closed, and other pages wait meanwhile: what is
    # loaded by now is no garbage.
    gc.collect()
    gc.freeze()


def process_request(request: HTTPServerRequest) -> dict[str, Any]:
    """Return what the session keeps of a request. Bokeh calls this hook for each request."""
    return cookies_and_headers_for_session(request)


def on_server_unloaded(server_context: ServerContext) -> None:
    """Detach from all runs. Bokeh calls this hook when the server ends."""
    app_state.stop_following_runs()
