"""The headers above the columns of the network."""

from __future__ import annotations

from tests.viewer.fake_training import FakeTraining
from viewer.components.network_headers import network_header_data
from viewer.layout import compute_layout
from viewer.layout.folding import initially_closed_blocks


def test_only_blocks_that_are_modules_can_be_removed() -> None:
    structure = FakeTraining("resnet152").structure()
    closed = initially_closed_blocks([layer.name for layer in structure.layers])
    layout = compute_layout(structure, 1100, 620, closed_blocks=closed)
    data = network_header_data(structure, layout)
    headers = [*data["blocks"], *data["stages"]]
    assert {block["path"]: block["is_module"] for block in headers} == {
        block["path"]: "–" not in block["path"] for block in headers
    }
    assert {block["is_module"] for block in headers} == {True, False}
