"""Marks of the modules between the layers."""

from __future__ import annotations

import pytest

from revacnn_lightning.protocol.inspections import FilterlessModule
from tests.viewer.fake_pass import fake_modules
from tests.viewer.layout.test_input_output import SIZES, layout_of
from viewer.layout import InputOutputDimensions, place_input_output
from viewer.layout.marks import ModuleMark, place_module_marks


def marks_of(net: str, size: tuple[int, int], modules: list[FilterlessModule] | None = None):  # type: ignore[no-untyped-def]
    structure, layout = layout_of(net, *size)
    ends = place_input_output(
        layout, InputOutputDimensions((8, 8), 3, 10, (0,), (len(structure.layers) - 1,))
    )
    if modules is None:
        modules = fake_modules([(layer.name, layer.out_channels) for layer in structure.layers])
    marks: list[ModuleMark] = place_module_marks(structure, layout, ends, modules)
    return structure, layout, ends, modules, marks


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("net", ["digits", "alexnet", "resnet18", "inception"])
def test_marks_stand_behind_their_layer_and_before_the_next(
    net: str, size: tuple[int, int]
) -> None:
    structure, layout, ends, modules, marks = marks_of(net, size)
    index = {layer.name: i for i, layer in enumerate(structure.layers)}
    for mark in marks:
        unit = layout.unit_of_layer[index[modules[mark.modules[0]].after]]
        rank = layout.ranks[unit]
        places = zip(layout.boxes, layout.ranks, strict=True)
        following = [box.left for box, place in places if place == rank + 1]
        assert layout.boxes[unit].right < mark.x < min(following, default=ends.output_x)
        assert mark.top < layout.boxes[unit].middle < mark.bottom
    if net != "inception" and size[0] > 400:  # all are marked, each once
        assert sorted(i for mark in marks for i in mark.modules) == list(range(len(modules)))


def test_modules_before_the_first_layer_stand_behind_the_input() -> None:
    modules = [FilterlessModule("normalize", "BatchNorm2d", "", [3, 8, 8], [3, 8, 8])]
    _, layout, ends, _, (mark,) = marks_of("digits", SIZES[0], modules)
    assert ends.channel_x < mark.x < layout.boxes[0].left


def test_modules_without_room_share_a_mark_without_a_label() -> None:
    modules = [FilterlessModule(f"m{i}", "ReLU", "conv1", [8], [8]) for i in range(400)]
    _, _, _, _, marks = marks_of("digits", SIZES[2], modules)
    assert 1 <= len(marks) < 20
    assert not any(mark.has_label for mark in marks)
    assert sum(len(mark.modules) for mark in marks) == 400


def test_modules_inside_a_closed_block_and_of_unknown_layers_have_no_mark() -> None:
    structure, layout, _, modules, marks = marks_of("resnet50", SIZES[0])
    assert any(unit.is_block for unit in layout.units)
    shown = {modules[i].after for mark in marks for i in mark.modules}
    ends_of_units = {structure.layers[unit.end - 1].name for unit in layout.units}
    assert shown == ends_of_units
    gone = [FilterlessModule("relu", "ReLU", "removed", [8], [8])]
    assert marks_of("digits", SIZES[0], gone)[-1] == []
