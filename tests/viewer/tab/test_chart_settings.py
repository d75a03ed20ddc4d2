from __future__ import annotations

import math

from viewer.tab.chart_settings import MAX_SMOOTHING, ChartSettings


def test_the_x_axis_is_one_of_three() -> None:
    settings = ChartSettings()
    assert settings.x_axis == "batch"
    settings.set_x_axis("time")
    assert settings.x_axis == "time"
    settings.set_x_axis("__class__")
    assert settings.x_axis == "time"


def test_smoothing_is_set_per_chart_and_clamped() -> None:
    settings = ChartSettings()
    settings.set_smoothing("layers_0", 9.0)
    assert settings.smoothing["layers_0"] == MAX_SMOOTHING
    assert settings.smoothing["layers_1"] == 0
    settings.set_smoothing("layers_0", -1.0)
    settings.set_smoothing("layers_1", math.nan)
    settings.set_smoothing("learning_rate", 0.1)  # exact: it has no smoothing
    assert settings.smoothing == ChartSettings().smoothing


def test_scales_of_unknown_charts_and_unknown_scales_are_ignored() -> None:
    settings = ChartSettings()
    settings.set_y_axis_scale("loss", "log")
    settings.set_y_axis_scale("loss", "square")
    settings.set_y_axis_scale("nothing", "log")
    assert settings.scales["loss"] == "log"
    assert "nothing" not in settings.scales


def test_each_request_of_a_table_is_a_new_one() -> None:
    settings = ChartSettings()
    settings.request_chart_csv("loss")
    first = settings.saved_chart
    settings.request_chart_csv("loss")
    assert settings.saved_chart[0] == "loss"
    assert settings.saved_chart != first
    settings.request_chart_csv("bars")  # shows no curve
    assert settings.saved_chart[0] == "loss"
