"""Creates the page of one browser tab. Bokeh runs this file once per tab.

Serve it with ``bokeh serve viewer`` (``--args --connect FILE`` limits it to one run). Each tab
shows one run. Its address names the run and what is shown of it (``tab/requested_view.py``). What
tests can rely on in the page is documented in ``static/main.js``.
"""

from __future__ import annotations

from bokeh.io import curdoc

from .rendering.palette import PALETTES
from .runs.app_state import runs
from .tab.page import Page
from .tab.page_assets import page_assets
from .tab.requested_view import parse_address

document = curdoc()
context = document.session_context
theme_name, hints, view = "", "", None
if context is not None and context.request is not None:
    theme_name = str(context.request.cookies.get("revacnn-theme", ""))
    hints = str(context.request.cookies.get("revacnn-hints", ""))
    view = parse_address(context.request.arguments)
if theme_name not in PALETTES:
    theme_name = ""
document.title = "ReVACNN"
if hasattr(document, "config"):  # older Bokeh shows no notification
    document.config.notify_connection_status = False  # the page's header shows it
document.template_variables.update(theme=theme_name, hints=hints, **page_assets())
registry = runs()
page = Page(registry.placeholder, theme_name or "dark", registry=registry, requested_view=view)
page.open(document)
