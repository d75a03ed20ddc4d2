"""What an input passes on its way through a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revacnn_lightning.telemetry.inspection.module_flow import INPUT, ModuleFlow, ModuleFlowResult
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free


def flow_of(model: nn.Module, *shape: int) -> ModuleFlowResult:
    layers = {name: each for name, each in model.named_modules() if isinstance(each, nn.Conv2d)}
    with side_effect_free(model, training=False), ModuleFlow(model, layers) as flow:
        return flow.finish(model(flow.mark_input(torch.randn(1, *shape))))


def passed(result: ModuleFlowResult) -> list[tuple[str, str]]:
    return [(one.name, result.last_called(one.sources)) for one in result.non_layer_calls]


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(4, 5))

    def forward(self, images: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.block(x) + x)
        return self.head(self.pool(x).flatten(1))


def test_modules_are_behind_the_layer_whose_output_they_receive() -> None:
    result = flow_of(Classifier(), 3, 8, 8)
    assert passed(result) == [
        ("bn1", "conv1"),
        ("relu", "conv1"),
        ("block.1", "block.0"),
        ("relu", "block.0"),  # of the sum of both layers
        ("pool", "block.0"),
        ("head.0", "block.0"),
        ("head.1", "block.0"),
    ]
    assert result.input_readers == ["conv1"]
    assert result.output_sources == {"conv1", "block.0"}
    linear = result.non_layer_calls[-1]
    assert (linear.input_shape, linear.output_shape) == ((1, 4), (1, 5))


def test_a_module_before_the_first_layer_receives_the_input() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3))
    result = flow_of(model, 3, 6, 6)
    assert passed(result) == [("0", INPUT)]
    assert result.input_readers == ["1"]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        right = self.right(self.pool(images))
        left = self.left(images)
        both = torch.empty(len(images), 4, *right.shape[2:])
        both[:, :2] = nn.functional.max_pool2d(left, 2)
        both[:, 2:].copy_(right)
        return [self.last(both), left]


def test_branches_are_told_apart_and_meet_in_what_is_written_into_one_tensor() -> None:
    result = flow_of(Branches(), 3, 8, 8)
    assert result.input_readers == ["right", "left"]
    assert passed(result) == [("pool", INPUT)]
    assert result.output_sources == {"last", "left"}


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.query(x) @ self.key(x).mT, -1) @ x


class WithAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.own = SelfAttention()
        self.torchs = nn.MultiheadAttention(4, 2, batch_first=True)
        self.mlp = nn.ModuleList([nn.Linear(4, 8), nn.GELU()])

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.own(self.conv(images).flatten(2).mT)
        tokens = self.torchs(tokens, tokens, tokens)[0]
        for module in self.mlp:
            tokens = module(tokens)
        return tokens


def test_an_attention_is_one_module_and_a_list_is_none() -> None:
    result = flow_of(WithAttention(), 3, 4, 4)
    assert [one.module_type for one in result.non_layer_calls] == [
        "SelfAttention",
        "MultiheadAttention",
        "Linear",
        "GELU",
    ]
    assert {result.last_called(one.sources) for one in result.non_layer_calls} == {"conv"}


def test_an_exception_that_the_model_catches_leaves_nothing_behind() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("of the user")

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails, self.conv, self.relu = Fails(), nn.Conv2d(3, 2, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.fails(x)
            except ValueError:
                return self.relu(self.conv(x))

    assert passed(flow_of(Catches(), 3, 4, 4)) == [("relu", "conv")]
