"""What of signals and volumes the page draws."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.protocol.inspections import VolumeSlice
from viewer.rendering.inspected_inputs import (
    MAX_CURVES,
    MAX_LENGTH,
    attribution_picture,
    describe_input_crop,
    describe_receptive_field_crop,
    input_picture,
    is_drawn_as_curves,
    quantize_curves,
    signal_raster_row_count,
)


def test_a_signal_of_few_channels_is_curves_and_one_of_many_is_a_tile() -> None:
    few, many = np.random.rand(MAX_CURVES, 1, 50), np.random.rand(80, 1, 50)
    assert is_drawn_as_curves(few)
    assert input_picture(few).shape == (MAX_CURVES, 50)
    assert signal_raster_row_count(few) is None
    assert not is_drawn_as_curves(many)
    assert input_picture(many).shape == (1, 80, 50, 3)
    assert attribution_picture(many).shape == (1, 80, 50)
    assert signal_raster_row_count(many) == 80
    assert not is_drawn_as_curves(np.random.rand(3, 5, 50))
    assert not is_drawn_as_curves(np.zeros(0))


def test_long_curves_keep_their_extremes() -> None:
    values = np.zeros((1, 50_000), np.float16)
    values[0, 777], values[0, 778] = 1.0, -1.0
    levels = quantize_curves(values)
    assert levels.shape[1] <= MAX_LENGTH
    assert (levels.max(), levels.min(), levels[0, -1]) == (255, 0, 128)
    strip = attribution_picture(values[:, None])
    assert strip.shape[:2] == (1, 1)
    assert strip.shape[2] <= MAX_LENGTH
    assert strip.max() == 255  # the first of two magnitudes


def test_a_part_of_a_curve_has_the_levels_of_the_whole_and_levels_stay_as_they_are() -> None:
    values = np.array([[0.0, 0.5, 1.0, 0.5]])
    np.testing.assert_array_equal(quantize_curves(values, slice(1, 2)), [[128]])
    levels = np.array([[10, 20, 30]], np.uint8)
    np.testing.assert_array_equal(quantize_curves(levels), levels)
    assert not np.isnan(quantize_curves(np.full((1, 3), np.nan))).any()


def test_places_are_described_in_words() -> None:
    volume = VolumeSlice(5, 16, 3, 8)
    assert describe_input_crop((0, 4, 1, 9), (1, 40), None, is_signal=True) == "values 4–8 of 40"
    assert describe_input_crop((1, 2, 4, 6), (9, 8), None, is_signal=False) == (
        "rows 1–3, columns 2–5 of 9×8 pixels"
    )
    assert describe_input_crop((1, 2, 4, 6), (9, 8), volume, is_signal=False) == (
        "slice 5 of slices 3–7, rows 1–3, columns 2–5 of 16×9×8 pixels"
    )

    def field(size: tuple[int, int], **kind: bool) -> str:
        return describe_receptive_field_crop(
            size, 3, **{"is_signal": False, "is_volume": False, **kind}
        )

    assert field((0, 0)) == "not cropped"
    assert field((5, 7)) == "cropped to the 5×7 receptive field"
    assert field((5, 7), is_volume=True) == "cropped to the 3×5×7 receptive field"
    assert field((1, 7), is_signal=True) == "cropped to the receptive field of 7 values"
