"""One tab's page: its components, when each is updated, and when nothing is sent at all."""

from __future__ import annotations

import itertools
import logging
import time
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from bokeh.document import Document

from .commands import perform
from .components import Component
from .components.chart_choices import ChartChoices
from .components.controls import Controls
from .components.filter_history import FilterActivation, FilterGradient
from .components.header import Header
from .components.inspector import Inspector
from .components.layer_chart import LayerChart
from .components.layer_filters import FilterBars, FilterCloud
from .components.layer_views import InputImage, LayerPanel, layer_views
from .components.learning_rate import LearningRateChart
from .components.looks import Looks
from .components.marks import TimeMarks
from .components.metric_chart import MetricChart
from .components.network import NetworkView
from .components.staging_bar import Changes, Reply, StagingBar
from .components.timeline import Timeline
from .glyphs import Command, PageLink, Panel
from .hub import Hub
from .palette import PALETTES, theme
from .runs import Runs
from .tab import Tab

__all__ = ["Page", "assets"]

log = logging.getLogger(__name__)

TICK_MS = 15  # how soon a returned credit, a snapshot, a reply, a click is noticed
LOOK_SECONDS = 0.1  # how often things are looked at that come without a message
FRAME_SECONDS = 0.095  # network, header, staging: at most 10 Hz
CHARTS_PER_FRAME = 2  # in turn: each at about 2 Hz, never all in one frame
LOST_SECONDS = 5.0  # an answer that takes longer is not coming


class Page:
    """Everything of one tab. Lives as long as its document.

    ``hub`` is of the run to begin with; ``runs`` and ``wanted`` are those of `Choice`.
    """

    def __init__(
        self, hub: Hub, theme_name: str = "dark", *, runs: Runs | None = None, wanted: str = ""
    ) -> None:
        self.link = PageLink(name="link", theme=theme_name)
        self.tab = Tab(hub, self.link, PALETTES[theme_name], runs=runs, wanted=wanted)
        tab, marks = self.tab, TimeMarks(self.tab)
        self.network = NetworkView(tab)
        parts: tuple[Callable[[Tab], Component], ...] = (
            *(Header, Controls, Inspector, LayerPanel, StagingBar, Reply, Changes),
            *(Timeline, InputImage, Looks, ChartChoices),
        )
        self.fast: list[Component] = [
            self.network,
            marks,
            *(part(tab) for part in parts),
            *layer_views(tab),
        ]
        self.slow: list[Component] = [
            MetricChart(tab, marks.source),
            LearningRateChart(tab, marks.source),
            LayerChart(tab, marks.source, 0),
            LayerChart(tab, marks.source, 1),
        ]
        self.statistics: list[Component] = [
            FilterBars(tab),
            FilterCloud(tab),
            FilterGradient(tab, marks.source),
            FilterActivation(tab, marks.source),
        ]
        self._sent_at = self._looked_at = 0.0
        self._news: tuple[object, ...] = ()
        self._turns = itertools.cycle([*self.slow, *self.statistics])
        self.link.on_event(Command, self._on_command)
        self.link.on_change("theme", self._on_theme)

    def open(self, document: Document) -> None:
        """Put the page into a document and begin to update it."""
        document.theme = theme(self.tab.palette)
        panels = [self.network.headers, self.network.selection]
        for component in self.components:
            if isinstance(component.root, Panel):
                panels.append(component.root)
            elif not isinstance(component, TimeMarks):
                document.add_root(component.root)
        self.link.panels = panels
        document.add_root(self.link)
        self.tab.update()
        for component in self.components:
            component.update()
        _every(document, TICK_MS, self)

    @property
    def components(self) -> list[Component]:
        """All parts of the page."""
        return [*self.fast, *self.slow, *self.statistics]

    def update(self) -> None:
        """Show what is new, the charts less often. Sends only on credit: see `PageLink`."""
        self.tab.choice.update()
        if not self._may_send() or not self._is_due():
            return
        self.tab.update()
        due = [next(self._turns) for _ in range(CHARTS_PER_FRAME)]
        if self.tab.pane != "statistics":
            due = [component for component in due if component not in self.statistics]
        changed = [component.update() for component in (*self.fast, *due)]
        if any(changed):
            state = self.tab.state
            if state is not None and state.snapshot is not None:
                self.link.stamp = state.snapshot.time
            self.link.sent += 1
            self._sent_at = time.monotonic()

    def _is_due(self) -> bool:
        """At once when the run has told something new; else now and then, for what time changes."""
        news, now = self.tab.news(), time.monotonic()
        if news == self._news and now - self._looked_at < LOOK_SECONDS:
            return False
        self._news, self._looked_at = news, now
        return True

    def _may_send(self) -> bool:
        """Not to a hidden tab, and not while the page has yet to paint what it got."""
        if not self.link.visible:
            return False
        since = time.monotonic() - self._sent_at
        waiting = self.link.sent > self.link.seen
        return since > (LOST_SECONDS if waiting else FRAME_SECONDS)

    def _on_command(self, event: Command) -> None:
        perform(self.tab, event)
        charts = self.slow if event.command == "chart" else []  # what was asked for, at once
        for component in (*self.fast, *charts):
            component.update()

    def _on_theme(self, _attribute: str, _old: str, new: str) -> None:
        palette = PALETTES.get(new)
        if palette is None or palette is self.tab.palette:
            return
        self.tab.palette = palette
        document = self.link.document
        if document is not None:
            document.theme = theme(palette)
        for component in self.components:
            component.restyle(palette)


def _every(document: Document, ms: int, page: Page) -> None:
    """Update the page periodically, without keeping a closed one alive."""
    reference = weakref.ref(page)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive.update()

    document.add_periodic_callback(call, ms)


@lru_cache(maxsize=1)
def assets() -> dict[str, str]:
    """Style and script of the page, to be written into it.

    So the page is the same wherever it is served from, and behind any prefix.
    """
    folder = Path(__file__).with_name("static")
    scripts = sorted(folder.glob("*.js"))
    return {
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "script": ";\n".join(path.read_text(encoding="utf-8") for path in scripts),
    }
