"""One tab's page: its components, when each is updated, and when nothing is sent at all."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from bokeh.document import Document

from ..components import Component
from ..components.chart_choices import ChartChoices
from ..components.controls import ControlsPanel
from ..components.edit_markers import EditMarkers
from ..components.filter_history import FilterActivation, FilterGradient
from ..components.filter_inspection import FilterInspectionPane
from ..components.header import Header
from ..components.layer_chart import LayerChart
from ..components.layer_filters import FilterBars, FilterCloud
from ..components.layer_views import InputImage, LayerPanel, layer_views
from ..components.learning_rate import LearningRateChart
from ..components.metric_chart import MetricChart
from ..components.network import NetworkView
from ..components.selection_panel import SelectionPanel
from ..components.staging_bar import ChangeListPanel, ReplyPanel, StagingBar
from ..components.timeline import Timeline
from ..glyphs import Command, PageLink
from ..rendering.frame_codec import FramePart, encode_frame
from ..rendering.palette import PALETTES, make_theme
from ..runs.registry import RunRegistry
from ..runs.run_follower import RunFollower
from .commands import perform
from .frame_scheduler import PERIODS, FrameScheduler
from .tab_state import TabState

__all__ = ["Page", "assets"]

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25  # how often things are looked at that come without a message
NEVER = float("inf")
SOONER = 0.001  # s, by which an update must be sooner than one that is asked for already


class Page:
    """Everything of one tab. Lives as long as its document.

    Attributes:
        sent: frames sent so far that the page answers.

    ``follower`` is of the run to begin with; ``runs`` and ``wanted`` are those of `RunSelection`.
    """

    def __init__(
        self,
        follower: RunFollower,
        theme_name: str = "dark",
        *,
        runs: RunRegistry | None = None,
        wanted: str = "",
        plain: bool = False,
    ) -> None:
        self.link = PageLink(name="link", theme=theme_name, plain=plain)
        self.tab = TabState(follower, self.link, PALETTES[theme_name], runs=runs, wanted=wanted)
        self._runs = runs
        tab, marks = self.tab, EditMarkers(self.tab)
        self.network = NetworkView(tab)
        parts: tuple[Callable[[TabState], Component], ...] = (
            *(
                Header,
                ControlsPanel,
                SelectionPanel,
                LayerPanel,
                StagingBar,
                ReplyPanel,
                ChangeListPanel,
            ),
            *(Timeline, ChartChoices),
        )
        self.fast: list[Component] = [self.network, marks, *(part(tab) for part in parts)]
        self.pictures: list[Component] = [
            InputImage(tab),
            *layer_views(tab),
            FilterInspectionPane(tab),
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
        self.sent = 0
        self._panels: list[FramePart] = []
        self._pace = FrameScheduler()
        self._looked_at = 0.0
        self._asked_for = NEVER  # when an update comes that was asked for
        self._news: tuple[object, ...] = ()
        self._clock: tuple[float, ...] = ()
        self._network: tuple[object, ...] = ()
        self._turns = itertools.cycle(self.slow), itertools.cycle([*self.slow, *self.statistics])
        self.link.on_event(Command, self._on_command)
        self.link.on_change("theme", self._on_theme)
        self.link.on_change("seen", self._on_seen)
        for name in ("visible", "width", "height"):
            self.link.on_change(name, self._on_view)

    def open(self, document: Document) -> None:
        """Put the page into a document and begin to update it."""
        document.theme = make_theme(self.tab.palette)
        for component in self.components:
            self._panels += getattr(component, "panels", ())
            if isinstance(component.root, FramePart):
                self._panels.append(component.root)
            elif not isinstance(component, EditMarkers):
                document.add_root(component.root)
        document.add_root(self.link)
        self.tab.update()
        for component in self.components:
            component.update()
        self._send()
        self._remember(time.monotonic())
        if self._runs is not None:
            self._runs.observers.add(self)

    @property
    def components(self) -> list[Component]:
        """All parts of the page."""
        return [*self.fast, *self.pictures, *self.slow, *self.statistics]

    def on_update(self) -> None:
        """There may be something new: have it shown as soon as it may be sent."""
        self.tab.choice.update()
        document, now = self.link.document, time.monotonic()
        if document is None or not self._is_watched():
            return
        wait = self._wait(now) if self._is_due(now) else None
        if wait is not None and now + wait < self._asked_for - SOONER:
            self._asked_for = now + wait
            if wait == 0:
                document.add_next_tick_callback(self.update)
                return
            document.add_timeout_callback(self.update, 1 + int(1000 * wait))
        if any(self._pace.is_due(what, now) for what in PERIODS):  # until then there is time for it
            document.add_next_tick_callback(self._update_besides)

    def update(self) -> None:
        """Show what is new, but for pictures and charts. Sends only on credit: see `PageLink`."""
        self._asked_for = NEVER
        self.tab.choice.update()
        now, numbers, edited = time.monotonic(), self._has_numbers(), self._is_edited()
        if not self._is_watched() or not self._is_due(now) or self._wait(now) != 0:
            return
        self.tab.update()
        self._remember(now)
        if self._update_all(self.fast):
            self.sent += 1
            self._send()
            self._pace.sent(now, numbers=numbers, edited=edited)

    def _remember(self, now: float) -> None:
        """All that is new at this moment is being shown."""
        self._news, self._clock, self._looked_at = self.tab.news(), self.tab.clock(), now
        self._network = self.tab.network()

    def _has_numbers(self) -> bool:
        """Whether other numbers are to be shown than before."""
        return self.tab.clock() != self._clock

    def _is_edited(self) -> bool:
        """Whether another network is to be shown than before."""
        return self.tab.network() != self._network

    def _wait(self, now: float) -> float | None:
        """Seconds until what is new may be sent; None: no credit."""
        return self._pace.wait(now, numbers=self._has_numbers(), edited=self._is_edited())

    def _update_besides(self) -> None:
        """The pictures of the layer, or the next chart that has something new.

        Never two charts at once, nor any of these with the numbers, which would be seen later: so
        these need not wait until the page has drawn it.
        """
        now, sent = time.monotonic(), False
        if not self._is_watched():
            return
        if self._pace.is_due("pictures", now):
            self._pace.spent("pictures", now)
            sent = self._update_all(self.pictures)
        if not sent and self._pace.is_due("chart", now):
            self._pace.spent("chart", now)
            sent = self._update_chart()
        if sent:
            self._send()

    def _update_chart(self) -> bool:
        """The next chart that has something new."""
        wide = self.tab.pane == "statistics"
        shown = len(self.slow) + wide * len(self.statistics)
        return any(next(self._turns[wide]).update() for _ in range(shown))

    def _update_all(self, components: Iterable[Component]) -> bool:
        """Have them all show what is new; whether any had something."""
        changed = [component.update() for component in components]
        return any(changed)

    def _is_watched(self) -> bool:
        """Nothing is sent to a hidden tab, nor before the page has come for its first frame."""
        return bool(self.link.visible) and self.link.seen >= 0

    def _is_due(self, now: float) -> bool:
        """At once when the run has told something new; else now and then, for what time changes."""
        return self.tab.news() != self._news or now - self._looked_at >= LOOK_SECONDS

    def _send(self) -> None:
        """Hand over what has changed: in one piece, and after all else, which it may speak of."""
        state, stamps = self.tab.state, []
        if state is not None and state.snapshot is not None:
            stamps = [state.snapshot.time, state.snapshot_time, time.time()]
        self.link.frame = encode_frame(self._panels, sent=self.sent, stamps=stamps)

    def _on_seen(self, _attribute: str, _old: object, _new: object) -> None:
        """The page has painted what it was sent: go on."""
        if self.link.seen >= self.sent:
            self._pace.answered(time.monotonic())
        self.on_update()

    def _on_view(self, _attribute: str, _old: object, _new: object) -> None:
        """The page has got another size, or can be seen again: something is to be done."""
        self._looked_at = float("-inf")
        self.on_update()

    def _on_command(self, event: Command) -> None:
        chosen = self.tab.pictured()
        perform(self.tab, event)
        parts = list(self.fast)  # and what was asked for, at once
        parts += self.slow if event.command == "chart" else []
        parts += self.pictures if self.tab.pictured() != chosen else []
        if self._update_all(parts):
            self._send()

    def _on_theme(self, _attribute: str, _old: str, new: str) -> None:
        palette = PALETTES.get(new)
        if palette is None or palette is self.tab.palette:
            return
        self.tab.palette = palette
        document = self.link.document
        if document is not None:
            document.theme = make_theme(palette)
        for component in self.components:
            component.restyle(palette)
        if self._update_all(self.components):  # the charts, too, all at once
            self._send()


@lru_cache(maxsize=1)
def assets() -> dict[str, str]:
    """Style and script of the page, to be written into it.

    So the page is the same wherever it is served from, and behind any prefix.
    """
    folder = Path(__file__).parents[1] / "static"
    scripts = sorted(folder.glob("*.js"))
    return {
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "script": ";\n".join(path.read_text(encoding="utf-8") for path in scripts),
    }
