"""Fake filter inspections that look like those of a training."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import FilterInspection, PreferredImage, TopImage
from tests.viewer.fake_detail import IMAGE, fake_photo

FIELD = 12  # px


def fake_inspection(
    run: str, version: int, step: int, layer: str, index: int, image: int | None = None,
    **changes: object,
) -> FilterInspection:  # fmt: skip
    """Return the inspection of a filter with a receptive field of `FIELD` pixels."""
    random = np.random.default_rng(index)
    top_images = []
    for rank in range(9):
        top, left = random.integers(0, IMAGE - FIELD, 2).tolist()
        pixels = (255 * fake_photo(rank)).astype(np.uint8).transpose(2, 0, 1)
        crop = pixels[:, top : top + FIELD, left : left + FIELD]
        box = (top, left, top + FIELD, left + FIELD)
        top_images.append(
            TopImage(crop, box, (IMAGE, IMAGE), 5.0 - 0.4 * rank, max(0, step - 7 * rank))
        )
    sent = FilterInspection(
        run, version, step, layer, index,
        image=fake_photo(0 if image is None else image).transpose(2, 0, 1).astype(np.float16),
        deconvolution=random.normal(size=(3, FIELD, FIELD)).astype(np.float16),
        guided_backpropagation=random.normal(size=(3, FIELD, FIELD)).astype(np.float16),
        top_images=top_images,
        receptive_field=(FIELD, FIELD),
        response=3.25,
        box=(20, 30, 20 + FIELD, 30 + FIELD),
        image_size=(IMAGE, IMAGE),
        image_index=image,
        preferred=PreferredImage(
            random.normal(size=(3, FIELD, FIELD)).astype(np.float16),
            (20, 20, 20 + FIELD, 20 + FIELD), 8.5, 60, 150,
        ),
    )  # fmt: skip
    return replace(sent, **changes)
