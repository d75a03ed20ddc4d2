"""Once per browser tab: the page.

Serve it with ``bokeh serve viewer`` (``--args --connect FILE`` for a certain run). Each tab shows a
run of its own, which its address names: ``viewer?run=3f2a…``. What a test can rely on in the page
is documented in ``static/main.js``.
"""

from __future__ import annotations

from bokeh.io import curdoc

from .rendering.palette import PALETTES
from .runs.app_state import runs
from .tab.page import Page
from .tab.page_assets import page_assets

document = curdoc()
context = document.session_context
remembered = wanted = ""
if context is not None and context.request is not None:
    remembered = str(context.request.cookies.get("revacnn-theme", ""))
    wanted = context.request.arguments.get("run", [b""])[0].decode("ascii", "replace")
if remembered not in PALETTES:
    remembered = ""
document.title = "ReVACNN"
document.config.notify_connection_status = False  # the page's header shows it
document.template_variables.update(theme=remembered, **page_assets())
page = Page(runs().placeholder, remembered or "dark", runs=runs(), wanted=wanted)
page.open(document)
