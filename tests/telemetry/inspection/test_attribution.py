"""Deconvolution and guided backpropagation, against captum called by hand and by definition."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
import torchvision
from captum.attr import Deconvolution, GuidedBackprop
from torch import Tensor, nn
from torch.nn import functional

from revacnn_lightning.telemetry.inspection.attribution import attribute, examine

IMAGE = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(5))


class Plain(nn.Module):
    """Two convs with ReLU modules; what comes after them is of no matter."""

    def __init__(self, inplace: bool = False, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Conv2d(channels, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.relu1 = nn.ReLU(inplace)
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(6, 5, 3, padding=1)
        self.relu2 = nn.ReLU(inplace)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.maps(x)).mean((2, 3)))

    def maps(self, x: Tensor) -> Tensor:
        return self.relu2(self.second(self.pool(self.relu1(self.bn(self.first(x))))))


class Maps(nn.Module):
    def __init__(self, network: Plain) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.maps(x)


def looked_at(model: nn.Module, conv: nn.Module, index: int, image: Tensor = IMAGE):
    examined = examine(model, model, conv, image)
    assert examined is not None
    return attribute(model, model, examined, index, image)


def by_definition(model: nn.Module, maps, index: int, guided: bool) -> Tensor:
    """With every ReLU replaced by a function whose backward is as in the papers."""

    class Relu(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.clamp_min(0)

        @staticmethod
        def backward(context, gradient):
            (x,) = context.saved_tensors
            return gradient.clamp_min(0) * (x > 0 if guided else 1)

    class Module(nn.Module):
        def forward(self, x):
            return Relu.apply(x)

    def replaced(module: nn.Module) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, Module())
            else:
                replaced(child)

    model = model.eval()
    replaced(model)
    pixels = IMAGE[None].clone().requires_grad_()
    return torch.autograd.grad(maps(model, pixels)[0, index].max(), pixels)[0][0]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("index", [0, 2])
def test_both_are_what_captum_gives_when_called_by_hand(inplace: bool, index: int):
    model = Plain(inplace).eval()
    seen = looked_at(model, model.second, index)
    maps = model.maps(IMAGE[None]).detach()[0, index]
    row, column = divmod(int(maps.argmax()), maps.shape[1])
    assert seen.response == pytest.approx(float(maps.max()))
    assert seen.refused == ""
    box = seen.box
    for method, mine in [(Deconvolution, seen.deconvolution), (GuidedBackprop, seen.guided)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = IMAGE[None].clone()
            theirs = method(Maps(model)).attribute(pixels, target=(index, row, column))[0].detach()
        torch.testing.assert_close(
            mine, theirs[:, box.top : box.bottom, box.left : box.right], rtol=0, atol=0
        )
        outside = theirs.clone()
        outside[:, box.top : box.bottom, box.left : box.right] = 0
        assert not outside.any()
        assert mine.any()


def resnet_maps(model: nn.Module, x: Tensor) -> Tensor:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    block = model.layer1[1]
    return block.relu(block.bn1(block.conv1(model.layer1[0](x))))


@pytest.mark.parametrize("guided", [False, True])
def test_a_relu_that_serves_several_places_and_shortcuts_are_no_obstacle(guided: bool):
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    seen = looked_at(model, model.layer1[1].conv1, 7)
    expected = by_definition(model, resnet_maps, 7, guided)
    box = seen.box
    torch.testing.assert_close(
        seen.guided if guided else seen.deconvolution,
        expected[:, box.top : box.bottom, box.left : box.right],
        rtol=1e-4,
        atol=1e-6,
    )


def kinds() -> list:
    def functional_relu(x: Tensor) -> Tensor:
        return functional.relu(x)

    return [
        (functional_relu, "ReLU is a function"),
        (lambda x: x.relu_(), "ReLU is a function"),
        (nn.SiLU(), "SiLU"),
        (nn.Hardswish(), "Hardswish"),
        (nn.ReLU6(), "ReLU6"),
        (nn.GELU(), "GELU"),
        (nn.LeakyReLU(), "LeakyReLU"),
        (lambda x: nn.ReLU()(x) + x, "something else read the same map"),
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: x.detach(), "no gradient"),
    ]


@pytest.mark.parametrize(("between", "why"), kinds())
def test_where_it_would_be_something_else_it_is_refused_with_the_reason(between, why: str):
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
            self.between = between

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.between(self.first(x)))

    model = Other()
    seen = looked_at(model, model.second, 1)
    assert why in seen.refused
    assert seen.deconvolution is seen.guided is None
    assert seen.response == pytest.approx(float(model(IMAGE[None])[0, 1].max()), rel=1e-5)


def test_a_first_conv_can_be_looked_at_whatever_follows():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.SiLU())
    assert looked_at(model, model[0], 0).refused == ""


def test_a_relu_that_serves_two_branches_is_refused():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.relu(self.a(x)) + self.relu(self.b(x)))

    model = Branches()
    assert "two branches" in looked_at(model, model.c, 0).refused


def test_without_captum_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    model = Plain().eval()
    seen = looked_at(model, model.second, 0)
    assert "pip install captum" in seen.refused
    assert seen.deconvolution is None
    assert seen.response > 0


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_of_any_number_of_channels(channels: int):
    model, image = Plain(channels=channels), torch.randn(channels, 14, 18)
    seen = looked_at(model, model.second, 0, image)
    assert seen.deconvolution.shape == (
        channels,
        seen.box.bottom - seen.box.top,
        seen.box.right - seen.box.left,
    )


def test_the_map_is_taken_before_the_network_writes_to_it():
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y += 100
            return y

    model = Overwriting()
    seen = looked_at(model, model.conv, 0)
    assert seen.response == pytest.approx(float(model(IMAGE[None])[0, 0].max()) - 100, abs=1e-4)


def test_maps_that_are_not_a_number_are_no_fault():
    model = Plain()
    with torch.no_grad():
        model.second.weight[0] = torch.nan
    seen = looked_at(model, model.second, 0)
    assert seen.response != seen.response


def test_it_leaves_no_trace():
    model = Plain(inplace=True).train()
    model.drop.eval()
    model(torch.randn(4, 3, 20, 20)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random, image = torch.get_rng_state(), IMAGE.clone()
    looked_at(model, model.second, 1, image)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(image, IMAGE)
    assert not image.requires_grad
    assert not torch.nn.modules.module._global_forward_hooks
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks


def test_an_exception_in_the_forward_leaves_no_trace_either():
    model = Plain()
    examined = examine(model, model, model.second, IMAGE)
    with pytest.raises(RuntimeError):
        attribute(model, model, examined, 0, torch.zeros(7, 20, 20))
    with pytest.raises(RuntimeError):
        examine(model, model, model.second, torch.zeros(7, 20, 20))
    assert all(module.training for module in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks
    assert not any(module._forward_hooks for module in model.modules())


def test_a_conv_that_is_not_called_is_not_examined():
    model = Plain()
    assert examine(model, model, nn.Conv2d(3, 4, 3), IMAGE) is None
