"""Chart of the learning rate of every parameter group."""

from __future__ import annotations

from bokeh.core.properties import without_property_validation
from bokeh.models import ColumnDataSource, DataRange1d

from ..rendering.palette import Palette
from ..runs.run_state import RunState
from ..tab.tab_state import TabState
from .chart import color_ramp, make_unsynced_data_range
from .curves import MAX_GROUPS, Curve, distinct_learning_rate_curves
from .time_chart import TimeChart, mask_nonpositive

__all__ = ["LearningRateChart"]


class LearningRateChart(TimeChart):
    """One line per distinct learning rate; groups with equal rates share a line."""

    name = "learning_rate"

    def __init__(self, tab: TabState, edit_markers: ColumnDataSource) -> None:
        super().__init__(tab, edit_markers, y_range=_range_from_zero())
        columns = ("step", "rate", "color", "label", "dash")
        self.source = ColumnDataSource({name: [] for name in columns})
        self._colors: list[str] = []
        lines = self.root.multi_line(
            "step", "rate", source=self.source, line_color="color", line_width=2, line_dash="dash"
        )
        self.add_curve_hover(lines, ("@label", ""))
        self.restyle(tab.palette)

    def restyle(self, palette: Palette) -> None:
        super().restyle(palette)
        self._colors = color_ramp((palette.green, palette.blue), MAX_GROUPS)

    def curves(self, state: RunState) -> list[Curve]:
        return distinct_learning_rate_curves(state)

    @without_property_validation
    def update(self) -> bool:
        state = self.tab.state
        if state is None:
            return False
        rates = state.histories.learning_rates
        lengths = (rates.length, rates.stride, rates.width)
        if not self.has_changed_since_last(
            state, *lengths, *self.settings_key(), *self.compared_key()
        ):
            return False
        self.update_x_axis()
        compared = self.tab.run_selection.compared_state()
        own, others = self.curves(state), self.compared_curves()
        is_log = self.apply_chosen_scale(
            is_log_by_default=False, values=[curve.values for curve in (*own, *others)]
        )
        steps = [self.x(state, curve.steps) for curve in own]
        if compared is not None:
            steps += [self.x(compared, curve.steps) for curve in others]
        values = [curve.values for curve in (*own, *others)]
        self.source.data = {
            "step": steps,
            "rate": [mask_nonpositive(one) if is_log else one for one in values],
            "color": [self._colors[k] for curves in (own, others) for k in range(len(curves))],
            "label": [curve.label if len(own) > 1 else "" for curve in (*own, *others)],
            "dash": ["solid"] * len(own) + ["dashed"] * len(others),
        }
        return True

    def set_log_scale(self, is_log: bool) -> None:
        if is_log != self.is_log:
            self.root.y_range = make_unsynced_data_range() if is_log else _range_from_zero()
        super().set_log_scale(is_log)


def _range_from_zero() -> DataRange1d:
    """Return a range that starts at zero, so that a small decay does not look like a collapse."""
    return make_unsynced_data_range(start=0)
