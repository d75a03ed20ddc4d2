"""Fake layer details that look like those of a training: Gabor filters and their maps."""

from __future__ import annotations

import numpy as np
from numpy.fft import irfft2, rfft2

from revacnn_lightning.protocol.inspections import (
    ClassScore,
    FilterFeaturesAndImages,
    Histogram,
    ImagePrediction,
    LayerDetail,
)
from revacnn_lightning.protocol.requests import KernelSlice

FEATURES = 64
IMAGE = 64  # px
MAP = 24  # px
HISTOGRAM_BINS = 64


class FakeDetails:
    """Coefficients per filter id that drift with every call, and layer details made of them."""

    def __init__(self, seed: int = 3) -> None:
        self.random = np.random.default_rng(seed)
        self.coefficients: dict[tuple[str, int], np.ndarray] = {}
        self.projections: dict[int, np.ndarray] = {}
        self.maps: dict[tuple[object, ...], np.ndarray] = {}

    def detail(
        self, run: str, version: int, step: int, layer: str, ids: list[int], kernel: int,
        rgb: bool, dead: set[int], image: int | None, slices: KernelSlice = "strongest",
    ) -> LayerDetail:  # fmt: skip
        weights = np.stack([self._filter(layer, id_, kernel, rgb) for id_ in ids])  # (n, k, k, 3)
        weights[[i for i, id_ in enumerate(ids) if id_ in dead]] = 0
        photo = fake_photo(0 if image is None else image)  # (H, W, 3)
        key = (layer, tuple(ids), image)
        if key not in self.maps:  # convolutions of hundreds of filters are slow
            self.maps = {key: self._maps(weights, photo)}
        maps = self.maps[key] * self.random.normal(1, 0.05, (len(ids), 1, 1))
        errors = self.random.normal(size=maps.shape) * (maps > 0)
        errors *= self.random.lognormal(0, 0.8, (len(ids), 1, 1))
        gradients = 0.15 * weights + 0.2 * self.random.normal(size=weights.shape)
        gradients[(weights == 0).all(axis=(1, 2, 3))] = 0
        seen, seen_gradients = weights, gradients
        if not rgb:
            mean = slices == "mean"
            seen = weights.mean(axis=3) if mean else weights[..., 0]
            seen_gradients = gradients.mean(axis=3) if mean else gradients[..., 0]
        return LayerDetail(
            run=run,
            version=version,
            step=step,
            layer=layer,
            coefficients=self._view(seen),
            gradients=self._view(1e-3 * seen_gradients),
            activations=self._view(maps),
            activation_gradients=self._view(1e-3 * errors),
            image=photo.transpose(2, 0, 1).astype(np.float32),
            image_index=image,
            kernel_slice=slices,
            weight_histogram=fake_histogram(weights, step),
            gradient_histogram=fake_histogram(1e-3 * gradients, step),
            prediction=None if image is None else fake_prediction(step, version, image),
        )

    def _filter(self, layer: str, id_: int, kernel: int, rgb: bool) -> np.ndarray:
        """Return the current filter (k, k, 3); it drifts a little with every call."""
        key = (layer, id_)
        if key not in self.coefficients:
            self.coefficients[key] = gabor(np.random.default_rng(id_), kernel, rgb)
        drift = self.random.normal(0, 0.004, self.coefficients[key].shape)
        self.coefficients[key] = self.coefficients[key] + drift
        return self.coefficients[key].copy()

    def _maps(self, weights: np.ndarray, photo: np.ndarray) -> np.ndarray:
        """Return rectified responses (n, MAP, MAP) to the photo, by Fourier transform."""
        n, size = len(weights), photo.shape[0]
        spectrum = rfft2(photo - photo.mean(axis=(0, 1)), axes=(0, 1))  # (H, W/2+1, 3)
        padded = np.zeros((n, size, size, 3))
        padded[:, : weights.shape[1], : weights.shape[2]] = weights
        responses = irfft2((rfft2(padded, axes=(1, 2)) * spectrum).sum(axis=3), axes=(1, 2))
        at = np.linspace(0, size - 1, MAP).astype(int)
        return np.maximum(responses[:, at][:, :, at], 0)

    def _view(self, images: np.ndarray) -> FilterFeaturesAndImages:
        rows = images.reshape(len(images), -1)
        if rows.shape[1] not in self.projections:
            random = np.random.default_rng(rows.shape[1])
            self.projections[rows.shape[1]] = random.normal(size=(rows.shape[1], FEATURES))
        features = rows @ self.projections[rows.shape[1]] / np.sqrt(FEATURES)
        largest = np.abs(features).max() or 1.0
        return FilterFeaturesAndImages(
            (features / largest).astype(np.float16), images.astype(np.float32)
        )


def fake_histogram(values: np.ndarray, step: int) -> Histogram:
    """Return a histogram of values that spread with the batches."""
    values = values.ravel() * (1 + step / 2000)
    limit = float(np.abs(values).max())
    counts, _ = np.histogram(values, np.linspace(-limit, limit, HISTOGRAM_BINS + 1))
    return Histogram(counts.astype(np.float32), limit)


def fake_prediction(step: int, version: int, image: int) -> ImagePrediction:
    """Return the probabilities of three classes; the second is the true one."""
    share = 0.2 + 0.7 * step / (step + 200)
    classes = [ClassScore(1, share, "flower"), ClassScore(0, 0.8 * (1 - share), "rings")]
    classes.append(ClassScore(2, 0.2 * (1 - share), "stripes"))
    classes.sort(key=lambda one: -one.probability)
    return ImagePrediction(step, version, classes, truth=ClassScore(1, share, "flower"))


def gabor(random: np.random.Generator, kernel: int, rgb: bool) -> np.ndarray:
    """Return an oriented wave or a spot, gray or colored, (kernel, kernel, 3)."""
    grid = np.linspace(-1, 1, kernel) if kernel > 1 else np.zeros(1)
    x, y = np.meshgrid(grid, grid)
    angle, phase = random.uniform(0, np.pi), random.uniform(0, 2 * np.pi)
    frequency, width = random.uniform(0.4, 1.6), random.uniform(0.4, 0.8)
    along = x * np.cos(angle) + y * np.sin(angle)
    envelope = np.exp(-(x**2 + y**2) / (2 * width**2))
    if not rgb or random.random() < 0.5:
        color = np.ones(3)
    else:
        color = random.normal(size=3)
    if random.random() < 0.3:
        frequency = 0.0
    wave = envelope * np.cos(np.pi * frequency * along * 2 + phase)
    return wave[..., None] * color / max(1e-9, np.abs(color).max())


def fake_photo(index: int) -> np.ndarray:
    """Return an image (IMAGE, IMAGE, 3) in [0, 1]: a flower, circles, or stripes."""
    grid = np.linspace(-1, 1, IMAGE)
    x, y = np.meshgrid(grid, grid)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    kind = index % 3
    if kind == 0:
        petals = 0.5 + 0.5 * np.cos(13 * angle + 16 * np.sqrt(radius))
        inside = np.clip((0.85 - radius) * 8, 0, 1)
        flower = np.stack([0.55 + 0.45 * petals, 0.2 + 0.45 * petals * (1 - radius / 2),
                           0.15 + 0.2 * petals], axis=2)  # fmt: skip
        leaves = np.stack([0.05 + 0.1 * x**2, 0.25 + 0.15 * np.sin(5 * x + 3 * y),
                           0.15 + 0.05 * y], axis=2)  # fmt: skip
        return np.clip(inside[..., None] * flower + (1 - inside[..., None]) * leaves, 0, 1)
    if kind == 1:
        rings = [0.5 + 0.5 * np.cos(20 * np.hypot(x - c, y)) for c in (-0.4, 0.1, 0.5)]
        return np.stack(rings, axis=2)
    waves = [0.5 + 0.5 * np.sin((6 + index) * x + k * y) for k in (2, 4, 7)]
    return np.stack(waves, axis=2)
