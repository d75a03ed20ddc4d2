"""Creates the page of one browser tab. Bokeh runs this file once per tab.

Serve it with ``bokeh serve viewer`` (``--args --connect FILE`` limits it to one run). Each tab
shows one run, which its address names: ``viewer?run=3f2a…``. What tests can rely on in the page is
documented in ``static/main.js``.
"""

from __future__ import annotations

from bokeh.io import curdoc

from .rendering.palette import PALETTES
from .runs.app_state import runs
from .tab.page import Page
from .tab.page_assets import page_assets

document = curdoc()
context = document.session_context
theme_name = requested_run = ""
if context is not None and context.request is not None:
    theme_name = str(context.request.cookies.get("revacnn-theme", ""))
    requested_run = context.request.arguments.get("run", [b""])[0].decode("ascii", "replace")
if theme_name not in PALETTES:
    theme_name = ""
document.title = "ReVACNN"
document.config.notify_connection_status = False  # the page's header shows it
document.template_variables.update(theme=theme_name, **page_assets())
registry = runs()
page = Page(
    registry.placeholder, theme_name or "dark", registry=registry, requested_run=requested_run
)
page.open(document)
