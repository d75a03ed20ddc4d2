"""Deconvolution and guided backpropagation, against direct calls of captum and the definition."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
import torchvision
from captum.attr import Deconvolution, GuidedBackprop
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from revacnn_lightning.telemetry.inspection.attribution import (
    attribute_filter_response,
    trace_activation,
)

IMAGE = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(5))


class Plain(nn.Module):
    """Two convs with ReLU modules, and a head that does not matter here."""

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


def attribute_peak(model: nn.Module, conv: nn.Module, index: int, image: Tensor = IMAGE):
    traced = trace_activation(model, model, conv, image)
    assert traced is not None
    return attribute_filter_response(model, model, traced, index, image)


def reference_attribution(model: nn.Module, maps, index: int, guided: bool) -> Tensor:
    """Replace every ReLU by a function whose backward pass is that of the papers."""

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

    def replace_relus(module: nn.Module) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, Module())
            else:
                replace_relus(child)

    model = model.eval()
    replace_relus(model)
    pixels = IMAGE[None].clone().requires_grad_()
    return torch.autograd.grad(maps(model, pixels)[0, index].max(), pixels)[0][0]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("index", [0, 2])
def test_matches_direct_calls_of_captum(inplace: bool, index: int):
    model = Plain(inplace).eval()
    attribution = attribute_peak(model, model.second, index)
    maps = model.maps(IMAGE[None]).detach()[0, index]
    row, column = divmod(int(maps.argmax()), maps.shape[1])
    assert attribution.response == pytest.approx(float(maps.max()))
    assert attribution.refusal == ""
    box = attribution.box
    for method, actual in [
        (Deconvolution, attribution.deconvolution),
        (GuidedBackprop, attribution.guided_backpropagation),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = IMAGE[None].clone()
            expected = (
                method(Maps(model)).attribute(pixels, target=(index, row, column))[0].detach()
            )
        torch.testing.assert_close(
            actual[:, 0], expected[:, box.top : box.bottom, box.left : box.right], rtol=0, atol=0
        )
        outside = expected.clone()
        outside[:, box.top : box.bottom, box.left : box.right] = 0
        assert not outside.any()
        assert actual.any()


def resnet_maps(model: nn.Module, x: Tensor) -> Tensor:
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    block = model.layer1[1]
    return block.relu(block.bn1(block.conv1(model.layer1[0](x))))


@pytest.mark.parametrize("guided", [False, True])
def test_shared_relu_and_shortcuts_are_supported(guided: bool):
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    attribution = attribute_peak(model, model.layer1[1].conv1, 7)
    expected = reference_attribution(model, resnet_maps, 7, guided)
    box = attribution.box
    torch.testing.assert_close(
        (attribution.guided_backpropagation if guided else attribution.deconvolution)[:, 0],
        expected[:, box.top : box.bottom, box.left : box.right],
        rtol=1e-4,
        atol=1e-6,
    )


def unsupported_modules() -> list:
    def functional_relu(x: Tensor) -> Tensor:
        return functional.relu(x)

    return [
        (functional_relu, "functional ReLU"),
        (lambda x: x.relu_(), "functional ReLU"),
        (nn.SiLU(), "SiLU"),
        (nn.Hardswish(), "Hardswish"),
        (nn.ReLU6(), "ReLU6"),
        (nn.GELU(), "GELU"),
        (nn.LeakyReLU(), "LeakyReLU"),
        (lambda x: nn.ReLU()(x) + x, "another operation read the same tensor"),
        (lambda x: x.clamp(min=0), "clamp"),
        (lambda x: x.detach(), "no gradient"),
    ]


@pytest.mark.parametrize(("between", "reason"), unsupported_modules())
def test_unsupported_network_is_refused(between, reason: str):
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
            self.between = between

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.between(self.first(x)))

    model = Other()
    attribution = attribute_peak(model, model.second, 1)
    assert reason in attribution.refusal
    assert attribution.deconvolution is attribution.guided_backpropagation is None
    assert attribution.response == pytest.approx(float(model(IMAGE[None])[0, 1].max()), rel=1e-5)


def test_first_conv_is_supported_in_any_network():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.SiLU())
    assert attribute_peak(model, model[0], 0).refusal == ""


def test_relu_shared_by_parallel_branches_is_refused():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.relu(self.a(x)) + self.relu(self.b(x)))

    model = Branches()
    assert "parallel branches" in attribute_peak(model, model.c, 0).refusal


def test_missing_captum_is_refused_with_install_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    model = Plain().eval()
    attribution = attribute_peak(model, model.second, 0)
    assert "pip install 'revacnn-lightning[inspect]'" in attribution.refusal
    assert attribution.deconvolution is None
    assert attribution.response > 0


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_with_any_number_of_channels(channels: int):
    model, image = Plain(channels=channels), torch.randn(channels, 14, 18)
    attribution = attribute_peak(model, model.second, 0, image)
    assert attribution.deconvolution.shape == (
        channels,
        1,
        attribution.box.bottom - attribution.box.top,
        attribution.box.right - attribution.box.left,
    )


def test_map_is_read_before_it_is_overwritten():
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            y += 100
            return y

    model = Overwriting()
    attribution = attribute_peak(model, model.conv, 0)
    assert attribution.response == pytest.approx(
        float(model(IMAGE[None])[0, 0].max()) - 100, abs=1e-4
    )


def test_nan_maps_raise_no_error():
    model = Plain()
    with torch.no_grad():
        model.second.weight[0] = torch.nan
    attribution = attribute_peak(model, model.second, 0)
    assert attribution.response != attribution.response


def test_attribution_has_no_side_effects():
    model = Plain(inplace=True).train()
    model.drop.eval()
    model(torch.randn(4, 3, 20, 20)).sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random, image = torch.get_rng_state(), IMAGE.clone()
    attribute_peak(model, model.second, 1, image)
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


def test_exception_in_forward_has_no_side_effects():
    model = Plain()
    traced = trace_activation(model, model, model.second, IMAGE)
    with pytest.raises(RuntimeError):
        attribute_filter_response(model, model, traced, 0, torch.zeros(7, 20, 20))
    with pytest.raises(RuntimeError):
        trace_activation(model, model, model.second, torch.zeros(7, 20, 20))
    assert all(module.training for module in model.modules())
    assert not torch.nn.modules.module._global_forward_hooks
    assert not any(module._forward_hooks for module in model.modules())


def test_uncalled_conv_is_not_traced():
    model = Plain()
    assert trace_activation(model, model, nn.Conv2d(3, 4, 3), IMAGE) is None


class Recomputes(nn.Module):
    """A network with activation checkpointing."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=False)


def test_activation_checkpointing_updated_batch_norms_while_its_graph_was_read():
    model = Recomputes().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert trace_activation(model, model, model.net[2], IMAGE) is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
