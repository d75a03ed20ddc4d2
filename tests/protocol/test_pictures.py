from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from revacnn_lightning import EditRefusedError
from revacnn_lightning.protocol.encoding import MAX_REQUEST_BYTES, encode
from revacnn_lightning.protocol.messages import Request
from revacnn_lightning.protocol.pictures import (
    new_image_index,
    picture_requests,
    to_rgb_pixels,
)
from revacnn_lightning.protocol.requests import PaintImage, Patch
from revacnn_lightning.protocol.validation import validate_request


def test_a_large_picture_is_downsampled_by_means_and_sent_in_pieces() -> None:
    large = np.zeros((1000, 2000, 3), np.uint8)
    large[:, ::2] = 200
    pixels = to_rgb_pixels(large)
    assert pixels.shape == (160, 320, 3)
    assert abs(int(pixels.mean()) - 100) <= 1
    requests = picture_requests(-7, pixels)
    assert b"".join(one.pixels for one in requests) == pixels.tobytes()
    for body in requests:
        assert len(encode(Request("x", body))[1]) < MAX_REQUEST_BYTES
        assert validate_request(body) == body


def test_the_most_patches_fit_a_request() -> None:
    body = PaintImage(-1, -2, [Patch(0.1, 0.2, 0.3, 0.4, (255, 255, 255))] * 256)
    assert len(encode(Request("x" * 32, body))[1]) < MAX_REQUEST_BYTES
    assert validate_request(body) == body


@pytest.mark.parametrize(
    "picture",
    [np.full((5, 4), 0.4), np.full((5, 4, 3), 102, np.uint8), np.full((5, 4, 4), 102, np.uint8)],
)
def test_pictures_of_all_kinds(picture: Any) -> None:
    pixels = to_rgb_pixels(picture)
    assert pixels.shape == (5, 4, 3)
    assert np.unique(pixels).tolist() == [102]


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"transpose one of \(channels, H, W\)"),
        (np.zeros((0, 8, 3), np.uint8), "a picture is an array"),
        (np.full((8, 8, 3), 1.5), "from 0 to 1"),
        (np.full((8, 8, 3), np.nan), "from 0 to 1"),
        (np.zeros((8, 8, 3), np.int64), "not int64"),
        ("cat.jpg", "a picture is an array"),
        (None, "a picture is an array"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Any, reason: str) -> None:
    with pytest.raises(EditRefusedError, match=reason):
        to_rgb_pixels(picture)


@pytest.mark.parametrize("index", [0, 5, -(2**40)])
def test_an_image_that_is_made_has_a_negative_index(index: int) -> None:
    with pytest.raises(EditRefusedError, match="invalid PaintImage"):
        validate_request(PaintImage(index))
    assert -(2**31) <= new_image_index() < 0
