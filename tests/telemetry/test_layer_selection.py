"""Which layers are watched."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from revacnn_lightning.telemetry.layer_selection import LayerSelection
from tests.layer_kinds import KINDS


def selected(model: nn.Module, choice=None) -> list[str]:
    return [name for name, _ in LayerSelection(choice).select(model)]


class Module(nn.Module):
    """A model with these children."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def head(*sizes: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


def test_by_default_hidden_linear_layers_behind_the_last_convolution_are_watched():
    vgg = Module(
        features=nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), head=head(8, 6, 5, 3)
    )
    assert selected(vgg) == ["features.0", "features.1", "head.0", "head.1"]
    resnet = Module(conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(4, 2))
    assert selected(resnet) == ["conv"]


def test_an_mlp_without_a_convolution_has_hidden_layers():
    assert selected(head(4, 5, 6, 2)) == ["0", "1"]
    assert selected(nn.Linear(4, 2)) == []


def test_linear_layers_between_convolutions_are_not_watched_by_default():
    gated = Module(
        net=nn.Sequential(nn.Conv2d(3, 4, 3), head(4, 2, 4), nn.Conv2d(4, 4, 3), head(4, 3))
    )
    assert selected(gated) == ["net.0", "net.2"]


def test_each_network_of_a_model_has_hidden_layers_of_its_own():
    gan = Module(generator=head(8, 16, 4), judge=nn.Sequential(nn.Conv2d(1, 4, 3), head(4, 8, 1)))
    assert selected(gan) == ["generator.0", "judge.0", "judge.1.0"]


def test_the_output_projection_of_an_attention_is_no_hidden_layer():
    model = Module(
        patches=nn.Conv2d(3, 8, 4), attention=nn.MultiheadAttention(8, 2), mlp=head(8, 16, 8, 3)
    )
    assert selected(model) == ["patches", "mlp.0", "mlp.1"]
    assert "attention.out_proj" in selected(model, "all")


def test_conv_all_and_patterns():
    model = KINDS["channels-last"].build()
    assert selected(model, "conv") == ["conv", "last"]
    assert selected(model, "all") == ["conv", "first", "second", "last", "fc"]
    assert selected(model, ["f*", "conv"]) == ["conv", "first", "fc"]
    nested = Module(body=Module(conv=nn.Conv1d(2, 3, 3), fc=nn.Linear(3, 3)), fc=nn.Linear(3, 2))
    assert selected(nested, ["body"]) == ["body.conv", "body.fc"]
    assert selected(nested, ["*.fc"]) == ["body.fc"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("fcc", "no module of the model has this name; choose of conv, first, second, last, fc"),
        ("relu", "relu is a GELU, which has no filters"),
    ],
)
def test_a_pattern_that_selects_no_layer_is_an_error(pattern: str, reason: str):
    model = KINDS["channels-last"].build()
    with pytest.raises(ValueError, match=reason):
        LayerSelection(["conv", pattern]).check(model)
    LayerSelection(["conv"]).check(model)


def test_a_pattern_in_a_model_without_layers_is_an_error():
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        LayerSelection(["conv"]).check(nn.ReLU())
