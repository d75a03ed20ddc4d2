"""Creates the page of one browser tab. Bokeh runs this file once per tab.

Serve it with ``bokeh serve viewer`` (``--args --connect FILE`` limits it to one run). Each tab
shows one run, which its address names: ``viewer?run=3f2a…``.

Tests rely on these parts of the page:

- ``window.revacnn.ready`` is true once the network and its first statistics have been painted.
  ``revacnn.frames`` counts animation frames, ``revacnn.sent`` counts received updates.
- ``revacnn.nodes("conv2")`` lists the nodes of a layer: ``{index, last, state, x, y}``, with x and
  y in pixels of the window. A bar stands for the filters ``index`` to ``last``. States are those
  of `viewer.layout.NodeState`.
- ``revacnn.parts`` holds the newest data of each part of the page: ``header``, ``columns``
  (``layers[i].filters`` is a width), ``selection``, ``selection_panel``, ``layer_panel``,
  ``staging``, ``reply``, ``changes``, ``timeline``, ``charts``.
- ``#staging`` is the bar of staged changes: ``.row[data-plan=pending|planned|refused]`` with
  ``.title`` and ``.detail``, and the buttons ``button.apply`` and ``button.discard``.
- ``#reply[data-state]`` is ``sent``, ``applied`` or ``refused``, with ``.outcome`` and ``.text``.
  ``#records li[data-state]`` are all requests, newest first.
- ``.column[data-layer="conv2"]`` is a layer's header with ``button.less`` and ``button.more``.
- ``#dot[data-kind]`` and ``#run-state`` show the status of the run. ``#app[data-run]`` is ``none``
  without a run, ``connecting`` until its first reply, then ``attached``. ``#ended[data-kind]``
  is the notice of an ended run, ``#ended .next`` shows the next run, ``#runs`` lists all runs.
- ``select[data-chart="0"]`` selects the metric of the metric chart, ``1`` and ``2`` the statistics
  of the layer charts. ``#keys`` is the list of keyboard shortcuts.

With ``?plain=1``, with $REVACNN_PLAIN set, and with a Bokeh version that lacks the hooks of our
own glyphs, the network is drawn with Bokeh's glyphs: it looks the same, but is slower.
"""

from __future__ import annotations

import os

from bokeh.io import curdoc

from .bokeh_compat import may_draw
from .rendering.palette import PALETTES
from .runs.app_state import runs
from .tab.page import Page, assets

document = curdoc()
context = document.session_context
theme_name = requested_run = ""
plain = not may_draw() or os.environ.get("REVACNN_PLAIN", "") not in ("", "0")
if context is not None and context.request is not None:
    theme_name = str(context.request.cookies.get("revacnn-theme", ""))
    requested_run = context.request.arguments.get("run", [b""])[0].decode("ascii", "replace")
    plain = plain or "plain" in context.request.arguments
if theme_name not in PALETTES:
    theme_name = ""
document.title = "ReVACNN"
document.config.notify_connection_status = False  # the page's header shows it
document.template_variables.update(theme=theme_name, **assets())
registry = runs()
page = Page(
    registry.placeholder,
    theme_name or "dark",
    registry=registry,
    requested_run=requested_run,
    plain=plain,
)
page.open(document)
