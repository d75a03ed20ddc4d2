"""Once per browser tab: the page.

Serve it with ``bokeh serve viewer`` (``--args --connect FILE`` for a certain run). Each tab
follows a run of its own, which its address names: ``viewer?run=3f2a…``.

What a test can hold on to in the page, all of it kept stable:

- ``window.revacnn.ready`` is true once the network and its first numbers have been painted.
  ``revacnn.frames`` counts animation frames, ``revacnn.sent`` the updates received.
- ``revacnn.nodes("conv2")`` lists the nodes of a layer: ``{index, last, state, x, y}``, with x and
  y in the window's pixels, where the mouse can click. A bar of a strip stands for the filters
  ``index`` to ``last``. States are those of `viewer.layout.State` (3: staged for removal).
- ``revacnn.parts`` holds the newest data of each part of the page: ``header``, ``columns``
  (``layers[i].filters`` is a width), ``selection`` (``company``: the nodes that go together),
  ``staging``, ``reply``, ``changes``, ``inspector``, ``timeline``, ``charts``.
- ``#staging`` is the bar of staged changes: ``.row[data-plan=asked|planned|refused]`` with
  ``.title``, ``.detail``; ``button.apply``, ``button.undo``. ``#reply[data-state]`` is ``sent``,
  ``applied`` or ``refused``, with ``.outcome`` and ``.text``. ``#records li[data-state]`` are all
  requests, newest first.
- ``.column[data-layer="conv2"]`` is a layer's header with ``button.less`` and ``button.more``;
  ``#dot[data-kind]`` and ``#run-state`` say what the run is doing; ``#app[data-run]`` is ``none``
  before there is a run, ``connecting`` until it answers, then ``here``. ``#ended[data-kind]`` tells
  the end of a run, ``#ended .next`` shows the next one; ``#runs`` is the chooser.
- ``select[data-chart="0"]`` chooses the metric of the first chart, ``1`` and ``2`` the statistics
  of the charts of layers. ``#keys`` is the sheet of keys.

With ``?plain=1``, with $REVACNN_PLAIN set, and where this Bokeh is not the one our own glyphs were
written for, the network is drawn with Bokeh's: the same to look at and to use, but slower.
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
remembered = wanted = ""
plain = not may_draw() or os.environ.get("REVACNN_PLAIN", "") not in ("", "0")
if context is not None and context.request is not None:
    remembered = str(context.request.cookies.get("revacnn-theme", ""))
    wanted = context.request.arguments.get("run", [b""])[0].decode("ascii", "replace")
    plain = plain or "plain" in context.request.arguments
if remembered not in PALETTES:
    remembered = ""
document.title = "ReVACNN"
document.config.notify_connection_status = False  # the page's own head says so
document.template_variables.update(theme=remembered, **assets())
page = Page(runs().placeholder, remembered or "dark", runs=runs(), wanted=wanted, plain=plain)
page.open(document)
