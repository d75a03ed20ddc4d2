"""Creates the page of one browser tab. Bokeh runs this file once per tab.

Serve it with ``revacnn view``, or with ``bokeh serve viewer`` (``--args --connect FILE`` limits it
to one run). Without the token, the page says how to get in and nothing else. Each tab shows one
run. Its address names the run and what is shown of it (``tab/requested_view.py``). What tests can
rely on in the page is documented in ``static/main.js``.
"""

from __future__ import annotations

from typing import Any

from bokeh.io import curdoc

from . import page_access
from .rendering.palette import PALETTES
from .runs.app_state import run_registry
from .tab.page import Page
from .tab.page_assets import page_template_variables
from .tab.requested_view import parse_address

document = curdoc()
context = document.session_context
request = None if context is None else context.request


def open_page(request: Any) -> None:
    """Fill the document with the page that a request asks for, and start updating it."""
    theme_name = str(request.cookies.get("revacnn-theme", ""))
    if theme_name not in PALETTES:
        theme_name = ""
    document.title = "ReVACNN"
    if hasattr(document, "config"):  # older Bokeh shows no notification
        document.config.notify_connection_status = False  # the page's header shows it
    document.template_variables.update(
        theme=theme_name,
        hints=str(request.cookies.get("revacnn-hints", "")),
        access_cookie=page_access.cookie_for_page_to_set(request),
        **page_template_variables(),
    )
    registry = run_registry()
    view = parse_address(request.arguments)
    page = Page(registry.placeholder, theme_name or "dark", registry=registry, requested_view=view)
    page.open(document)


if page_access.is_access_granted(request):
    open_page(request)
else:
    page_access.show_sign_in(document, request)
