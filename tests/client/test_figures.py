"""Static figures of a layer and of the network."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from revacnn_lightning import Batch, LayerDetail
from revacnn_lightning.client import layer_figure, network_figure, svg
from revacnn_lightning.client.svg import Figure
from revacnn_lightning.protocol.inspections import FilterFeaturesAndImages
from tests.client.simulated_run import layer, snapshot, structure
from viewer.rendering.palette import FONT, LIGHT

EMPTY = FilterFeaturesAndImages(np.zeros(0), np.zeros(0))
SVG = "{http://www.w3.org/2000/svg}"


def detail(name: str, images: np.ndarray) -> LayerDetail:
    view = FilterFeaturesAndImages(np.zeros(0), images)
    return LayerDetail("run", 0, 7, name, view, EMPTY, EMPTY, EMPTY, np.zeros(0))


def elements(figure: Figure, tag: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(figure.svg).findall(f"{SVG}{tag}")


def test_colors_are_those_of_the_viewer():
    assert {name: getattr(LIGHT, name) for name in svg.COLORS} == svg.COLORS
    assert svg.FONT == FONT


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 5, 5, 3)])
def test_a_layer_shows_an_image_and_two_bars_per_filter(shape: tuple[int, ...]):
    images = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    figure = layer_figure.draw_layer_filters(detail("a", images), Batch(snapshot(7), structure()))
    assert len(elements(figure, "image")) == 2
    texts = [one.text for one in elements(figure, "text")]
    assert texts[:2] == ["a", "Conv2d 3 → 2, 3×3"]
    assert texts[-2:] == ["0", "1"]
    widths = [float(one.get("width") or 0) for one in elements(figure, "rect")]
    assert widths[-2:] == [40.0, 40.0]  # the activation of the last filter is the largest


def test_a_layer_without_images_or_statistics_still_has_a_figure():
    bare = structure(0, layer("a", 0, 1, 2))
    figure = layer_figure.draw_layer_filters(detail("gone", np.zeros(0)), Batch(snapshot(7), bare))
    assert elements(figure, "image") == []
    values = np.full((2, 3), np.nan, np.float32)
    unknown = snapshot(7)
    batch = Batch(type(unknown)(**{f: getattr(unknown, f) for f in unknown.__struct_fields__}
                                | {"values": values}), bare)  # fmt: skip
    assert (
        "nan"
        not in layer_figure.draw_layer_filters(detail("a", np.full((3, 2, 2), np.nan)), batch).svg
    )


def test_a_network_shows_every_layer():
    figure = network_figure.draw_network_figure(Batch(snapshot(7), structure()))
    texts = [one.text for one in elements(figure, "text")]
    assert {"Net", "a", "b"} <= set(texts)


def test_a_layer_of_many_filters_has_a_cell_per_pixel():
    count = 5000
    network = structure(0, layer("wide", *range(count)))
    figure = network_figure.draw_network_figure(Batch(snapshot(0, filters=count), network))
    assert len(elements(figure, "rect")) < 1200


def test_names_are_escaped():
    evil = "<script>&\"'"
    network = structure(0, layer(evil, 0, 1, 2))
    batch = Batch(snapshot(0), network)
    for figure in (
        network_figure.draw_network_figure(batch),
        layer_figure.draw_layer_filters(detail(evil, np.ones((3, 2, 2))), batch),
    ):
        assert "<script" not in figure._repr_html_()
        assert evil in [one.text for one in elements(figure, "text")]


def test_a_figure_is_saved(tmp_path: Path):
    figure = Figure("A & B", 10, 10, [])
    path = figure.save(tmp_path / "figure.svg")
    assert ElementTree.parse(path).getroot().get("viewBox") == "0 0 10 10"
    assert figure._repr_svg_() == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3)])
def test_pixels_survive_in_the_png(shape: tuple[int, ...]):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    png = svg._png(pixels)
    assert png.startswith(svg.PNG_SIGNATURE)
    assert struct.unpack(">II", png[16:24]) == (3, 2)
    start = png.index(b"IDAT") + 4
    rows = zlib.decompress(png[start : png.index(b"IEND") - 8])
    decoded = np.frombuffer(rows, np.uint8).reshape(2, -1)
    assert (decoded[:, 0] == 0).all()
    assert (decoded[:, 1:].reshape(shape) == pixels).all()
