"""One curve per layer: the mean over its filters of a statistic."""

from __future__ import annotations

import time

import numpy as np
from bokeh.core.properties import value, without_property_validation
from bokeh.models import ColumnDataSource, Label, NumeralTickFormatter, Range1d

from ..rendering.formatting import format_sampling_interval
from ..rendering.frame_codec import FramePart
from ..rendering.palette import FONT, Palette
from ..tab.tab_state import TabState
from .chart import VALUE_AND_BATCH, Chart, blend, hover

__all__ = ["LayerChart", "apart"]

NAMED_LAYERS = 8  # with more, only the layer under the pointer is named
MANY_LAYERS = 16
FAINT = "80"  # alpha, of curves that are too many to be told apart
SECONDS_PER_LAYER = 0.025  # a ResNet-50: every 1.3 s
POINTS = 240  # per curve
LINE, HEIGHT = 11.0, 130.0  # px: of a name, and of the curves at least
LETTER = 0.031  # of the time axis, that a letter of a name takes


class LayerChart(Chart):
    """``place``: 0 or 1, the first or the second of the page's two.

    ``source`` has all curves in one array; the page makes of it what Bokeh draws lines from.
    Bokeh itself would send every curve twice, steps and values, as a message part of its own.
    """

    def __init__(self, tab: TabState, marks: ColumnDataSource, place: int = 0) -> None:
        self.place = place
        self.name = f"layers_{place}"
        super().__init__(tab, marks, y_axis_type="log", x_range=Range1d(0, 1))
        self.source = FramePart(f"curves-{self.name}")
        self.panels = (self.source,)
        columns: dict[str, list[float]] = {
            name: [] for name in ("step", "value", "color", "layer", "width")
        }
        curves = ColumnDataSource(columns, name=f"{self.name}_curves")
        places: dict[str, list[float]] = {
            name: [] for name in ("step", "value", "color", "layer", "shift")
        }
        self.names = ColumnDataSource(places)
        lines = self.root.multi_line(
            "step", "value", source=curves, line_color="color", line_width="width"
        )
        self.root.text(
            "step", "value", text="layer", source=self.names, text_color="color", x_offset=4,
            y_offset="shift", text_font_size="9.5px", text_font=value(FONT), text_baseline="middle",
        )  # fmt: skip
        self.root.add_tools(hover(lines, ("@layer", ""), *VALUE_AND_BATCH, line_policy="nearest"))
        self.sampled = Label(
            x=4, y=2, x_units="screen", y_units="screen", text="",
            text_font_size="9.5px", text_font=FONT,
        )  # fmt: skip
        self.root.add_layout(self.sampled)
        self._drawn = 0.0
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self.sampled.text_color = palette.muted
        self._shown, self._drawn = (), 0.0

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None or state.structure is None:
            return False
        of = self.tab.charts.layers[self.place]
        series = state.histories.layers[of]
        here = self.tab.selected()
        current = -1 if here is None else here[0]
        # With very many curves the page takes its time to draw them: they are sent less often.
        n_layers, now = len(state.structure.layers), time.monotonic()
        same = bool(self._shown) and self._shown[-1] == of
        if same and n_layers > MANY_LAYERS and now - self._drawn < n_layers * SECONDS_PER_LAYER:
            return False
        if not self.is_new(
            state, series.length, series.stride, state.structure_revision, current, of
        ):
            return False
        self._drawn = now
        thin = max(1, series.length // POINTS)
        steps = series.steps[::thin].copy()
        values = series.rows[::thin].T.copy()  # (layers, steps)
        self._set_scale(of)
        self.sampled.text = format_sampling_interval(state.sampling_interval(of))
        if of != "dead":
            values[~(values > 0)] = np.nan  # what a logarithmic axis cannot show
        self._draw([layer.name for layer in state.structure.layers], steps, values, current)
        return True

    def _ramp(self) -> tuple[str, ...]:
        """Forward is blue, backward is orange."""
        palette = self.tab.palette
        forward = self.tab.charts.layers[self.place] in ("activation", "dead")
        return palette.tides if forward else palette.layers

    def _set_scale(self, of: str) -> None:
        """Logarithmic, but for a share, which is drawn in percent from zero."""
        self.use_log_scale(of != "dead")
        if of == "dead":
            self.root.yaxis[0].formatter = NumeralTickFormatter(format="0[.]0 %")

    def _draw(self, names: list[str], steps: np.ndarray, values: np.ndarray, current: int) -> None:
        colours = blend(self._ramp(), len(names))
        many = len(names) > NAMED_LAYERS
        # Among many, the current one lies over the others, and those show through each other.
        order = sorted(range(len(names)), key=lambda i: many and i == current)
        faint = FAINT if len(names) > MANY_LAYERS else ""
        self.source.data = {
            "step": steps,
            "value": values[order],
            "color": [colours[i] + ("" if i == current else faint) for i in order],
            "layer": [names[i] for i in order],
            "width": [2.4 if i == current else 1.0 if many else 1.6 for i in order],
        }
        if not len(steps):
            return
        named = [i for i in range(len(names)) if not many or i == current]
        named = [i for i in named if np.isfinite(values[i, -1])]
        room = 0.02 + LETTER * max((len(_short(names[i])) for i in named), default=0)
        self.root.x_range.update(
            start=float(steps[0]),
            end=float(steps[-1] + room * (steps[-1] - steps[0]) + 1),
        )
        last = np.array([values[i, -1] for i in named])
        self.names.data = {
            "step": np.full(len(named), steps[-1]),
            "value": last,
            "color": [colours[i] for i in named],
            "layer": [_short(names[i]) for i in named],
            "shift": self._shifts(values, last),
        }

    def _shifts(self, values: np.ndarray, last: np.ndarray) -> np.ndarray:
        """How far below the end of its curve (px) each name is written, so that all can be read.

        ``values`` (layers, steps) span the axis, ``last`` (names,) are the ends.
        """
        if not len(last):
            return last
        if self.tab.charts.layers[self.place] != "dead":
            values, last = np.log(values), np.log(last)
        known = values[np.isfinite(values)]  # nor do infinite values span an axis
        low, high = known.min(), known.max()
        at = HEIGHT * (high - last) / max(high - low, 1e-9)
        return apart(at, LINE, HEIGHT) - at


def apart(at: np.ndarray, least: float, height: float) -> np.ndarray:
    """Places near ``at`` (n,), in the same order, no two nearer to each other than ``least``.

    Those that are too near are centred on where they want to be, but none is beyond 0 or
    ``height`` by more than it must.
    """
    order = np.argsort(at, kind="stable")
    groups: list[tuple[float, int]] = []  # centre and size, from above to below
    for place in at[order]:
        groups.append((_inside(float(place), least, height), 1))
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2:]
            if b - a >= least * (n + m) / 2:
                break
            groups[-2:] = [(_inside((a * n + b * m) / (n + m), least * (n + m), height), n + m)]
    placed = [centre + least * (i - (n - 1) / 2) for centre, n in groups for i in range(n)]
    found = np.empty(len(at))
    found[order] = placed
    return found


def _inside(centre: float, long: float, height: float) -> float:
    """``centre`` of something so long, moved to where it is wholly inside."""
    return max(long / 2, min(height - long / 2, centre))


def _short(name: str) -> str:
    """The end of a module path, as many of its parts as fit."""
    parts = name.split(".")
    short = parts[-1]
    for part in reversed(parts[:-1]):
        if len(part) + 1 + len(short) > 11:
            break
        short = f"{part}.{short}"
    return short
