"""Fake passes of an input through a network that look like those of a training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from msgspec.structs import replace

from revacnn_lightning.protocol.inspections import (
    ClassScore,
    FilterlessModule,
    ImagePass,
    ImagePrediction,
)
from tests.viewer.fake_detail import IMAGE, fake_photo

NAMES = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PASS_SECONDS = 1.0


def fake_pass(
    run: str, version: int, step: int, layers: list[tuple[str, int]],
    image: int | None = None, classes: int = 10, **changes: Any,
) -> ImagePass:  # fmt: skip
    """Return the pass of a photo through layers of these names and widths, one after the other."""
    photo = fake_photo(0 if image is None else image).transpose(2, 0, 1)
    share = 0.2 + 0.7 * step / (step + 200)
    probabilities = np.full(classes, (1 - share) / max(1, classes - 1))
    probabilities[3] = share
    order = np.arange(classes) if classes <= 12 else np.argsort(-probabilities, kind="stable")[:6]
    scores = [_score(index, probabilities) for index in order]
    sent = ImagePass(
        run,
        version,
        step,
        photo.astype(np.float16),
        image_index=image,
        input_shape=[3, IMAGE, IMAGE],
        channel_sums=[float(channel.sum()) for channel in photo],
        prediction=ImagePrediction(step, version, scores, _score(5, probabilities)),
        class_count=classes,
        loss=-math.log(probabilities[5]),
        output_shapes=[[classes]],
        readers=[layers[0][0]],
        output_layers=[layers[-1][0]],
        modules=fake_modules(layers, classes),
    )
    return replace(sent, **changes)


def gan_pass(sent: ImagePass) -> ImagePass:
    """Return the pass of a GAN: its discriminator reads the photo, and one that is generated."""
    return replace(
        sent,
        prediction=ImagePrediction(sent.step, sent.version, note="several networks"),
        class_count=0,
        loss=None,
        output_shapes=[],
        readers=["discriminator.0"],
        generated=fake_photo(5).transpose(2, 0, 1).astype(np.float16),
    )


def _score(index: int, probabilities: np.ndarray) -> ClassScore:
    name = NAMES[index] if len(probabilities) == len(NAMES) else f"class {index}"
    return ClassScore(int(index), float(probabilities[index]), name)


def fake_modules(layers: list[tuple[str, int]], classes: int = 10) -> list[FilterlessModule]:
    """Return a batch norm and a ReLU behind each layer, and a classifier."""
    found, side = [], IMAGE
    for i, (name, width) in enumerate(layers, 1):
        shape = [width, side, side]
        found.append(FilterlessModule(f"bn{i}", "BatchNorm2d", name, shape, shape))
        found.append(FilterlessModule(f"relu{i}", "ReLU", name, shape, shape))
    name, width = layers[-1]
    found.append(
        FilterlessModule("pool", "AdaptiveAvgPool2d", name, [width, side, side], [width, 1, 1])
    )
    found.append(FilterlessModule("linear", "Linear", name, [width], [classes]))
    return found
