"""The page of one tab: when its components are updated, and what is sent."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from bokeh.document import Document

from ..components import Component
from ..rendering.frame_codec import encode_frame
from ..rendering.palette import PALETTES, make_theme
from ..runs.registry import RunRegistry
from ..runs.run_follower import RunFollower
from .commands import CHART_COMMANDS, perform_command
from .page_components import PageComponents
from .page_link import PageLink, decode_command, is_connected
from .page_update_scheduler import SECONDARY_INTERVALS, PageUpdateScheduler, UpdateUrgency
from .requested_view import RequestedView
from .tab_state import TabState
from .tab_title import tab_title

__all__ = ["Page"]

REFRESH_SECONDS = 0.25  # between updates of what changes with time, without a message
PANEL_SECONDS = 0.25  # between updates of the panels where only statistics are new
BEAT_SECONDS = 0.5  # without a frame, before the page is sent a beat
NEVER = float("inf")
TITLE_SECONDS = 2.0  # between changes of the browser tab's title
MIN_ADVANCE_SECONDS = 0.001  # an update is rescheduled only if it becomes earlier by this much


class Page:
    """The components of one tab. Lives as long as its document.

    Args:
        follower: the run to start with; it may be a follower without a run.
        theme_name: a key of PALETTES.
        registry: provides the other runs.
        requested_view: what the page's address names; None if there is no address.

    Attributes:
        components: everything that the page shows.
        frames_sent: number of frames that the page may have to confirm.
    """

    def __init__(
        self,
        follower: RunFollower,
        theme_name: str = "dark",
        *,
        registry: RunRegistry | None = None,
        requested_view: RequestedView | None = None,
    ) -> None:
        self.link = PageLink(name="link", theme=theme_name)
        self.tab = TabState(
            follower,
            self.link,
            PALETTES[theme_name],
            registry=registry,
            requested_view=requested_view,
        )
        self._registry = registry
        self.components = PageComponents(self.tab)
        self.frames_sent = 0
        self._frame_serials = itertools.count()
        self._scheduler = PageUpdateScheduler()
        self._updated_at = self._panels_updated_at = self._titled_at = 0.0
        # Copies of the link's, which are read at each message: a default costs 20 µs there.
        self._is_in_view, self._is_drawing = bool(self.link.visible), False
        self._sent_at = time.monotonic()
        self._next_update_at = NEVER  # when the next scheduled update runs
        # Keys of what the page shows
        self._update_key: tuple[object, ...] = ()
        self._actions_key: tuple[object, ...] = ()
        self._shown_replies = 0
        self._statistics_key: tuple[float, ...] = ()
        self._structure_key: tuple[object, ...] = ()
        self._connect_link()

    def _connect_link(self) -> None:
        self.link.on_change("command", self._on_command)
        self.link.on_change("theme", self._on_theme)
        self.link.on_change("seen", self._on_seen)
        for name in ("visible", "width", "height"):
            self.link.on_change(name, self._on_view)

    def open(self, document: Document) -> None:
        """Add the page to a document and start updating it.

        What it shows is sent once the browser has reported the size of the view.
        """
        document.theme = make_theme(self.tab.palette)
        with document.models.freeze():  # visit all models once, not once per root
            for root in (*self.components.chart_places, self.link):
                document.add_root(root)
        self.tab.update()
        self._titled_at = time.monotonic()
        self._update_title()
        self.link.frame = (next(self._frame_serials), encode_frame([], sent=0, stamps=[]))
        self._structure_key = self.tab.structure_key()  # the first picture shows no edit
        if self._registry is not None:
            self._registry.observers.add(self)

    # Scheduling

    def on_update(self) -> None:
        """Schedule an update if something may be new. Called by the registry, and by the page."""
        document, now = self.link.document, time.monotonic()
        if document is None or not is_connected(document):
            return
        self.tab.run_selection.update()
        if now - self._titled_at >= TITLE_SECONDS:
            self._titled_at = now
            if tab_title(self.tab) != document.title:
                document.add_next_tick_callback(self._update_title)
        if not self._is_visible():
            return
        if now - self._sent_at >= BEAT_SECONDS:
            self._sent_at = now
            document.add_next_tick_callback(self._send_beat)
        delay = self._delay(now) if self._is_update_due(now) else None
        if delay is not None and now + delay < self._next_update_at - MIN_ADVANCE_SECONDS:
            self._next_update_at = now + delay
            if delay == 0:
                document.add_next_tick_callback(self.update)
                return
            document.add_timeout_callback(self.update, 1 + int(1000 * delay))
        # The time until the next frame suffices for a chart or the images.
        if any(self._scheduler.is_secondary_due(kind, now) for kind in SECONDARY_INTERVALS):
            document.add_next_tick_callback(self._update_secondary)

    def update(self) -> None:
        """Update what is due and send a frame, if the scheduler permits it."""
        self._next_update_at = NEVER
        self.tab.run_selection.update()
        now = time.monotonic()
        new_statistics, urgency = self._has_new_statistics(), self._urgency()
        if not self._is_visible() or not self._is_update_due(now) or self._delay(now) != 0:
            return
        self.tab.update()
        are_panels_due = self._are_panels_due(now)
        self._store_keys(now)
        if are_panels_due:
            self._panels_updated_at = now
        components = self.components
        due = components.panels_and_drawings if are_panels_due else components.drawings
        if urgency == UpdateUrgency.EDIT:  # all charts would be painted before the network
            due = [component for component in due if component is not components.markers]
        if self._update_all(due):
            self.frames_sent += 1
            is_confirmed = self._scheduler.needs_confirmation(now, urgency)
            self._send(is_confirmed=is_confirmed)
            self._scheduler.record_frame_sent(
                now, new_statistics=new_statistics, urgency=urgency, is_confirmed=is_confirmed
            )
            if not is_confirmed:
                self._schedule_secondary(now)

    def _schedule_secondary(self, now: float) -> None:
        """Update the images or a chart, if one is due, once the last frame counts as painted."""
        document, painted_at = self.link.document, self._scheduler.painted_at
        if document is None:
            return
        if any(self._scheduler.is_secondary_due(kind, painted_at) for kind in SECONDARY_INTERVALS):
            milliseconds = 1 + int(1000 * (painted_at - now))
            document.add_timeout_callback(self._update_secondary, milliseconds)

    def _update_title(self) -> None:
        """Set the title of the browser tab, also of a hidden one: there it is all that is seen."""
        document, title = self.link.document, tab_title(self.tab)
        if document is not None and document.title != title:
            document.title = title

    def _update_secondary(self) -> None:
        """Update the images, or one chart.

        Images and charts are sent one at a time and never together with new statistics, which
        would be painted later. The page does not confirm these frames.
        """
        now, has_changed = time.monotonic(), False
        if not self._is_visible():
            return
        if self._scheduler.is_secondary_due("images", now):
            self._scheduler.record_secondary_sent("images", now)
            has_changed = self._update_all(self.components.images)
        if not has_changed and self._scheduler.is_secondary_due("chart", now):
            self._scheduler.record_secondary_sent("chart", now)
            has_changed = self.components.update_next_chart()
        if has_changed:
            self._send()

    def _update_all(self, components: Iterable[Component]) -> bool:
        """Update all components. Return whether any has changed."""
        changed = [component.update() for component in components]
        return any(changed)

    # Conditions

    def _is_visible(self) -> bool:
        """Return whether the tab is visible and ready for its first frame."""
        return self._is_in_view and self._is_drawing

    def _is_update_due(self, now: float) -> bool:
        """Return whether there is something new, or the last update is REFRESH_SECONDS ago."""
        is_old = now - self._updated_at >= REFRESH_SECONDS
        return is_old or self.tab.update_key() != self._update_key

    def _are_panels_due(self, now: float) -> bool:
        """Return whether more than statistics is new, or the panels are PANEL_SECONDS old."""
        is_old = now - self._panels_updated_at >= PANEL_SECONDS
        is_past = not self.tab.playback.is_live  # the timeline moves with every frame
        return is_old or is_past or self.tab.actions_key() != self._actions_key

    def _has_new_statistics(self) -> bool:
        return self.tab.statistics_key() != self._statistics_key

    def _urgency(self) -> UpdateUrgency:
        """Return how urgent the next frame is: what a person waits for and does not see yet."""
        if self.tab.structure_key() != self._structure_key:
            return UpdateUrgency.EDIT
        is_same = self._replies() == self._shown_replies
        return UpdateUrgency.NOTHING if is_same else UpdateUrgency.REPLY

    def _replies(self) -> int:
        """Return the number of requests and replies so far."""
        return 0 if self.tab.state is None else self.tab.state.requests.revision

    def _delay(self, now: float) -> float | None:
        """Return the seconds until a frame may be sent; None while the last one is unconfirmed."""
        return self._scheduler.seconds_until_frame(
            now, new_statistics=self._has_new_statistics(), urgency=self._urgency()
        )

    def _store_keys(self, now: float) -> None:
        """Record what the page is about to show."""
        self._update_key, self._updated_at = self.tab.update_key(), now
        self._actions_key = self.tab.actions_key()
        self._statistics_key = self.tab.statistics_key()
        self._structure_key, self._shown_replies = self.tab.structure_key(), self._replies()

    # Communication

    def _send(self, *, is_confirmed: bool = False) -> None:
        """Send all changed parts in one frame, after the Bokeh models that they refer to.

        The page replies once it has painted a frame that is ``is_confirmed``.
        """
        state, timestamps = self.tab.state, []
        if state is not None and state.snapshot is not None:
            timestamps = [state.snapshot.time, state.snapshot_time, time.time()]
        self._sent_at = time.monotonic()
        header = {"sent": self.frames_sent, "stamps": timestamps, "confirm": is_confirmed}
        frame = encode_frame(self.components.frame_parts(), **header)
        self.link.frame = (next(self._frame_serials), frame)

    def _send_beat(self) -> None:
        """Show the page that the server is at work; see viewer/static/shared/reconnect.js."""
        self.link.beat += 1

    def _on_seen(self, _attribute: str, _old: object, _new: object) -> None:
        """Handle the confirmation that the page has painted a frame."""
        self._is_drawing = self.link.seen >= 0
        if self.link.seen >= self.frames_sent:
            self._scheduler.record_frame_painted(time.monotonic())
        self.on_update()

    def _on_view(self, _attribute: str, _old: object, _new: object) -> None:
        """Handle a change of the page's size or visibility."""
        self._is_in_view = bool(self.link.visible)
        self._updated_at = float("-inf")
        self.on_update()

    def _on_command(self, _attribute: str, _old: str, new: str) -> None:
        """Perform a command, and show its effect immediately."""
        command = decode_command(new)
        if command is None:
            return
        images_key = self.tab.images_key()
        perform_command(self.tab, command)
        components = list(self.components.panels_and_drawings)
        components += self.components.shown_charts() if command.name in CHART_COMMANDS else []
        components += self.components.images if self.tab.images_key() != images_key else []
        if self._update_all(components):
            self._send()

    def _on_theme(self, _attribute: str, _old: str, new: str) -> None:
        """Apply another theme to all components."""
        palette = PALETTES.get(new)
        if palette is None or palette is self.tab.palette:
            return
        self.tab.palette = palette
        document = self.link.document
        if document is not None:
            document.theme = make_theme(palette)
        for component in self.components:
            component.restyle(palette)
        if self._update_all(self.components):
            self._send()
