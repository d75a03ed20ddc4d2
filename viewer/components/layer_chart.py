"""Chart with one curve per layer: the mean of a statistic over its filters."""

from __future__ import annotations

import time

import numpy as np
from bokeh.core.properties import value, without_property_validation
from bokeh.models import ColumnDataSource, DataRange1d, Label, NumeralTickFormatter, Range1d

from ..rendering.formatting import format_sampling_interval
from ..rendering.frame_codec import PagePart
from ..rendering.layer_names import shorten_middle, unique_names
from ..rendering.palette import FONT, Palette
from ..tab.tab_state import TabState
from .chart import VALUE_AND_BATCH, Chart, color_ramp, hover_tool
from .label_placement import spread_labels

__all__ = ["LayerChart"]

MAX_NAMED_LAYERS = 8  # with more layers, only the selected one is labeled
MANY_LAYERS = 16  # with more layers, curves are translucent and updated less often
TRANSLUCENT = "80"  # alpha appended to a hex color
SECONDS_PER_LAYER = 0.025  # between updates: a ResNet-50 is redrawn every 1.3 s
MAX_POINTS = 240  # per curve
LABEL_HEIGHT, PLOT_HEIGHT = 11.0, 130.0  # px; the plot is at least this high
LABEL_FONT_SIZE = "9.5px"
MAX_LABEL_CHARS = 11
CHAR_FRACTION = 0.031  # width of a label character, as a fraction of the x axis
SHARE_STATISTIC = "dead"  # drawn on a linear axis in percent
MIN_SHARE = 0.1  # the axis of shares ends here or higher, so that it has no negative values


class LayerChart(Chart):
    """One of the two layer charts of the page.

    ``source`` holds all curves in one array, which the page converts to Bokeh lines. Bokeh would
    send two message parts per curve, for its steps and its values.

    Args:
        index: 0 for the first layer chart, 1 for the second.
    """

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource, index: int = 0) -> None:
        self.index = index
        self.name = f"layers_{index}"
        super().__init__(tab, edit_markers, y_axis_type="log", x_range=Range1d(0, 1))
        self.source = PagePart(f"curves-{self.name}")
        self.panels = (self.source,)
        # The page fills these curves; syncable=False keeps it from sending them back.
        curves = ColumnDataSource(
            _empty("step", "value", "color", "layer", "width"),
            name=f"{self.name}_curves",
            syncable=False,
        )
        self.labels = ColumnDataSource(_empty("step", "value", "color", "layer", "shift"))
        lines = self.root.multi_line(
            "step", "value", source=curves, line_color="color", line_width="width"
        )
        self.root.text(
            "step", "value", text="layer", source=self.labels, text_color="color", x_offset=4,
            y_offset="shift", text_font_size=LABEL_FONT_SIZE, text_font=value(FONT),
            text_baseline="middle",
        )  # fmt: skip
        self.root.add_tools(
            hover_tool(lines, ("@layer", ""), *VALUE_AND_BATCH, line_policy="nearest")
        )
        self.sampling_label = _make_corner_label()
        self.root.add_layout(self.sampling_label)
        self._drawn_at = 0.0
        self.restyle(tab.palette)

    @property
    def statistic(self) -> str:
        """The statistic that is shown."""
        return self.tab.chart_settings.layer_statistics[self.index]

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self.sampling_label.text_color = palette.muted
        self._shown_key, self._drawn_at = (), 0.0

    @without_property_validation
    def update(self) -> bool:
        state, statistic = self.tab.state, self.statistic
        if state is None or state.structure is None:
            return False
        history = state.histories.layers[statistic]
        position = self.tab.selected_position()
        selected = -1 if position is None else position[0]
        layers, now = state.structure.layers, time.monotonic()
        is_same_statistic = bool(self._shown_key) and self._shown_key[-1] == statistic
        is_recent = now - self._drawn_at < len(layers) * SECONDS_PER_LAYER
        if is_same_statistic and len(layers) > MANY_LAYERS and is_recent:
            return False  # drawing many curves takes the page a while
        key = (state, history.length, history.stride, state.structure_revision, selected, statistic)
        if not self.has_changed(*key):
            return False
        self._drawn_at = now
        stride = max(1, history.length // MAX_POINTS)
        steps = history.steps[::stride].copy()
        values = history.rows[::stride].T.copy()  # (layers, steps)
        self._set_scale(statistic)
        self.sampling_label.text = format_sampling_interval(state.sampling_interval(statistic))
        if statistic != SHARE_STATISTIC:
            values[~(values > 0)] = np.nan  # a logarithmic axis cannot show them
        self._draw([layer.name for layer in layers], steps, values, selected)
        return True

    def _ramp(self) -> tuple[str, ...]:
        """Return blue colors for forward statistics, orange colors for backward statistics."""
        palette = self.tab.palette
        is_forward = self.statistic in ("activation", SHARE_STATISTIC)
        return palette.activation_curves if is_forward else palette.gradient_curves

    def _set_scale(self, statistic: str) -> None:
        """Use a logarithmic axis, or a linear axis in percent for a share."""
        is_share = statistic == SHARE_STATISTIC
        self.set_log_scale(not is_share)
        if isinstance(self.root.y_range, Range1d) != is_share:
            self.root.y_range = Range1d(0, 1) if is_share else DataRange1d()
        if is_share:
            self.root.yaxis[0].formatter = NumeralTickFormatter(format="0[.]0 %")

    def _draw(self, names: list[str], steps: np.ndarray, values: np.ndarray, selected: int) -> None:
        colors = color_ramp(self._ramp(), len(names))
        many = len(names) > MAX_NAMED_LAYERS
        # Among many curves, the selected one is drawn last, over the others.
        order = sorted(range(len(names)), key=lambda i: many and i == selected)
        alpha = TRANSLUCENT if len(names) > MANY_LAYERS else ""
        if self.statistic == SHARE_STATISTIC:
            finite = values[np.isfinite(values)]
            self.root.y_range.end = max(MIN_SHARE, 1.05 * float(finite.max(initial=0.0)))
        self.source.data = {
            "step": steps,
            "value": values[order],
            "color": [colors[i] + ("" if i == selected else alpha) for i in order],
            "layer": [names[i] for i in order],
            "width": [2.4 if i == selected else 1.0 if many else 1.6 for i in order],
        }
        if len(steps):
            labeled = [i for i in range(len(names)) if not many or i == selected]
            self._draw_labels(names, steps, values, colors, labeled)

    def _draw_labels(
        self,
        names: list[str],
        steps: np.ndarray,
        values: np.ndarray,
        colors: list[str],
        labeled: list[int],
    ) -> None:
        """Write the names of the layers ``labeled`` at the ends of their curves."""
        labeled = [i for i in labeled if np.isfinite(values[i, -1])]
        short = unique_names(names)
        texts = [shorten_middle(short[i], MAX_LABEL_CHARS) for i in labeled]
        margin = 0.02 + CHAR_FRACTION * max(map(len, texts), default=0)
        end = float(steps[-1] + margin * (steps[-1] - steps[0]) + 1)
        self.root.x_range.update(start=float(steps[0]), end=end)
        last = np.array([values[i, -1] for i in labeled])
        self.labels.data = {
            "step": np.full(len(labeled), steps[-1]),
            "value": last,
            "color": [colors[i] for i in labeled],
            "layer": texts,
            "shift": self._label_shifts(values, last),
        }

    def _label_shifts(self, values: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return how far below the end of its curve each label is written, in px (labels,).

        ``values`` (layers, steps) span the axis; ``last`` (labels,) are the ends of the curves.
        """
        if not len(last):
            return last
        if self.statistic != SHARE_STATISTIC:
            values, last = np.log(values), np.log(last)
        finite = values[np.isfinite(values)]
        low, high = finite.min(), finite.max()
        positions = PLOT_HEIGHT * (high - last) / max(high - low, 1e-9)
        return spread_labels(positions, LABEL_HEIGHT, PLOT_HEIGHT) - positions


def _make_corner_label() -> Label:
    return Label(
        x=4, y=2, x_units="screen", y_units="screen", text="",
        text_font_size=LABEL_FONT_SIZE, text_font=FONT,
    )  # fmt: skip


def _empty(*columns: str) -> dict[str, list[float]]:
    return {name: [] for name in columns}
