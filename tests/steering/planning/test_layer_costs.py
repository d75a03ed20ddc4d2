from __future__ import annotations

import torch
from torch import nn

from revacnn_lightning.protocol.requests import InsertLayer
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.planning.macs import count_macs
from tests.steering import nets


def test_the_costs_of_the_layers_add_up_to_that_of_the_network() -> None:
    for kind in nets.NETS.values():
        _, editor, probe = nets.editor_of(kind)
        sizes = editor.layer_costs_and_sizes(probe)
        assert sum(each.macs for each in sizes.values()) == count_macs(editor.channel_groups(probe))


def test_a_conv_costs_its_weight_at_every_output_pixel_of_one_sample() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    sizes = editor.layer_costs_and_sizes(probe)
    assert sizes["conv1"] == (6 * 3 * 9 * 8 * 8 * 2, (8, 8))  # the probe counts as one sample
    assert sizes["fc"].output_size == ()
    assert sizes["bn1"].output_size is None


def test_a_block_inserted_after_a_conv_is_not_counted_as_the_conv() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    before = editor.layer_costs_and_sizes(probe)["conv1"]
    editor.apply(InsertLayer("conv1", "dirac"), probe)
    after = editor.layer_costs_and_sizes(probe)
    assert after["conv1"].macs == before.macs
    assert after["conv1.inserted1.conv"].macs == 6 * 6 * 9 * 8 * 8 * 2


def test_a_layer_that_is_called_at_two_sizes_has_none() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3)) + self.conv(x[:, :, ::2]).mean((2, 3))

    model = Shared()
    probe = ForwardProbe([lambda: model(torch.ones(2, 3, 8, 8))], samples=2)
    sizes = Editor(model).layer_costs_and_sizes(probe)["conv"]
    assert sizes == (4 * 3 * 9 * (64 + 32), None)
