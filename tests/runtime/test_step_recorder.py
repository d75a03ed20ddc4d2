"""Recording a step observes it and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from revacnn_lightning.runtime.recorded_step import RecordedStep
from revacnn_lightning.runtime.step_recorder import StepRecorder
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free

IMAGES = torch.randn(6, 1, 5, 5)


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten())


def record(model: nn.Module, step: Callable[[], Any], size: int = 6) -> RecordedStep:
    recorder = StepRecorder(model, size, 2)
    with recorder.recording():
        output = step()
    recorder.add_result(output)
    assert recorder.failure is None
    with side_effect_free(model):
        recorder.step.prepare(model)
    return recorder.step


def names(step: RecordedStep) -> list[str]:
    return [call.name for call in step.calls]


def groups(model: nn.Module, step: RecordedStep):
    return trace_channel_groups(model, ForwardProbe([lambda: step.replay(model)]))


def why_fixed(model: nn.Module, step: RecordedStep, layer: str) -> str:
    found = groups(model, step)
    return found.why_fixed(found.groups_of_channels(found.filters[layer]))


def test_outermost_modules_and_the_functions_between_them_are_recorded():
    model = TwoParts()
    step = record(model, lambda: model.second(2 * model.first(IMAGES + 1)).mean())
    assert [name.strip("_") for name in names(step)] == ["first", "mul", "second", "mean"]
    assert [tuple(value.shape) for value in step.constants.values()] == [(2, 1, 5, 5)]


def test_channels_are_linked_through_functions_between_modules():
    model = TwoParts()
    step = record(model, lambda: model.second(torch.relu(model.first(IMAGES))).square().mean())
    assert why_fixed(model, step, "first.0") == ""
    found = groups(model, step)
    members = found.members(found.groups_of_filters("first.0", [1]))
    assert members["second.0.weight", 1].tolist() == [1]


def test_what_training_step_returns_is_fixed():
    model = TwoParts()
    step = record(model, lambda: {"loss": model.second(h := model.first(IMAGES)).sum(), "h": h})
    assert "output" in why_fixed(model, step, "first.0")


def test_what_no_recorded_call_reads_is_fixed():
    model = TwoParts()
    kept = []

    def run():
        hidden = model.first(IMAGES)
        kept.append(hidden.detach())
        return model.second(hidden).sum()

    assert "output" in why_fixed(model, record(model, run), "first.0")


def test_a_call_that_needs_the_whole_batch_is_opaque_and_fixes_what_it_reads():
    model = TwoParts()
    weights = torch.ones(6, 4, 3, 3)

    def run():
        hidden = model.first(IMAGES)
        return model.second(hidden).mean() + (hidden.flatten() * weights.flatten()).mean()

    reason = why_fixed(model, record(model, run), "first.0")
    assert "mul" in reason
    assert "cannot be replayed" in reason


def test_numbers_that_count_samples_are_adapted():
    model = TwoParts()
    step = record(model, lambda: model.second(model.first(IMAGES)).view(6, 3).sum())
    with side_effect_free(model):
        assert not any(call.is_opaque for call in step.calls)
        assert step.replay(model).tensors[0].ndim == 0


def test_a_module_that_needs_the_whole_batch_is_reported():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, images):
            assert len(images) == 6
            return self.conv(images)

    model = nn.ModuleDict({"fixed": Fixed()})
    assert "fixed raised AssertionError" in record(model, lambda: model["fixed"](IMAGES)).failure


def test_keyword_arguments_and_nested_values_are_replayed():
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, batch, *, scale):
            return {"out": [self.conv(batch["images"]) * scale]}

    model = nn.ModuleDict({"net": Nested()})
    step = record(model, lambda: model["net"]({"images": IMAGES}, scale=3)["out"][0].mean())
    expected = (model["net"].conv(IMAGES[:2]) * 3).mean()
    with side_effect_free(model):
        assert torch.equal(step.replay(model).tensors[0], expected)


def test_the_arguments_are_those_of_before_the_call():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(1, 2, 3))
    images = IMAGES.clone()
    outer = nn.ModuleDict({"net": model})
    step = record(outer, lambda: outer["net"](images).mean())
    [constant] = step.constants.values()
    assert torch.equal(constant, IMAGES[:2])


def test_an_update_of_a_momentum_encoder_couples_both_networks():
    model = nn.ModuleDict({"query": nn.Conv2d(1, 4, 3), "key": nn.Conv2d(1, 4, 3)})

    def run():
        for query, key in zip(model["query"].parameters(), model["key"].parameters(), strict=True):
            key.data = key.data * 0.9 + query.data * 0.1
        return (model["query"](IMAGES).mean((2, 3)) - model["key"](IMAGES).mean((2, 3))).mean()

    step = record(model, run)
    found = groups(model, step)
    members = found.members(found.groups_of_filters("query", [1]))
    assert members["key.weight", 0].tolist() == [1]


def test_steps_of_optimizers_are_not_recorded():
    model = TwoParts()
    optimizer = torch.optim.Adam(model.parameters())

    def run():
        loss = model.second(model.first(IMAGES)).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    assert names(record(model, run)) == ["first", "second", "mean", "detach"]


@pytest.mark.parametrize("by_name", [False, True])
def test_of_an_optimizer_step_only_the_closure_is_recorded(by_name: bool):
    # Lightning passes a closure in manual optimization, too.
    model = TwoParts()
    optimizer = torch.optim.Adam(model.parameters())  # without state, it creates zeros first

    def closure():
        loss = model.second(model.first(IMAGES)).mean()
        loss.backward()
        return loss

    def run():
        return optimizer.step(closure=closure) if by_name else optimizer.step(closure)

    assert names(record(model, run)) == ["first", "second", "mean"]


def test_an_optimizer_step_by_hand_is_not_recorded():
    model = TwoParts()

    def run():
        model.second(model.first(IMAGES)).mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad

    assert names(record(model, run)) == ["first", "second", "mean"]


def test_an_unobserved_function_fixes_all_channels():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.from_numpy(x.numpy() * 2)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2

    model = TwoParts()
    step = record(model, lambda: model.second(Double.apply(model.first(IMAGES))).mean())
    assert "cannot be observed" in why_fixed(model, step, "first.0")


def per_sample_norms(model: nn.Module, inputs: torch.Tensor, parameters: dict) -> torch.Tensor:
    def loss(values, sample):
        output = torch.func.functional_call(model, values, (sample[None],))
        return (output * 2).square().mean()

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, inputs)
    return next(iter(gradients.values())).flatten(1).norm(dim=1)


def test_calls_inside_a_transform_of_torch_func_are_not_recorded_and_fix_what_they_read():
    model = TwoParts()

    def run():
        hidden = model.first(IMAGES)
        parameters = {name: p.detach() for name, p in model.second.named_parameters()}
        norms = per_sample_norms(model.second, hidden.detach(), parameters)
        return (model.second(hidden).mean(1) / (1 + norms)).mean()

    step = record(model, run)
    assert {name.strip("_") for name in names(step)} <= {
        "first",
        "detach",
        "second",
        "mean",
        "truediv",
        "div",
    }
    assert "a transform of torch.func" in why_fixed(model, step, "first.0")


def test_a_transform_fixes_only_the_channels_that_it_reads():
    model = nn.ModuleDict({"a": nn.Conv2d(1, 4, 3), "b": nn.Conv2d(4, 3, 3), "c": nn.Flatten()})

    def run():
        hidden = model["b"](model["a"](IMAGES))
        scales = torch.func.vmap(lambda x: x.norm())(hidden.detach())
        return (hidden.mean((1, 2, 3)) / scales).mean()

    step = record(model, run)
    assert why_fixed(model, step, "a") == ""
    assert "a transform of torch.func" in why_fixed(model, step, "b")


def test_a_function_in_a_transform_that_reads_the_network_from_outside_is_not_recorded():
    model = TwoParts()

    def run():
        hidden = model.first(IMAGES)
        torch.func.grad(lambda x: (hidden * x).sum())(torch.ones(()))
        return model.second(hidden).mean()

    step = record(model, run)
    assert names(step) == ["first", "second", "mean"]
    assert "a transform of torch.func" in why_fixed(model, step, "first.0")


def test_a_transform_of_the_images_alone_fixes_nothing():
    model = TwoParts()
    step = record(
        model, lambda: model.second(model.first(torch.func.vmap(torch.relu)(IMAGES))).mean()
    )
    assert names(step) == ["first", "second", "mean"]
    assert why_fixed(model, step, "first.0") == ""


def test_an_observed_autograd_function_links_channels():
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return -gradient

    model = TwoParts()
    step = record(model, lambda: model.second(Reverse.apply(model.first(IMAGES))).mean())
    assert why_fixed(model, step, "first.0") == ""


def test_a_wrapper_of_the_network_is_transparent():
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, images):
            return self.module.second(self.module.first(images))

    model = TwoParts()
    wrapper = Wrapper(model)
    assert names(record(model, lambda: wrapper(IMAGES))) == ["first", "second"]


def test_the_step_draws_the_same_random_numbers_and_returns_the_same_values():
    def run(model):
        noise = torch.randn(6, 4, 3, 3)
        return nn.functional.dropout(model.second(model.first(IMAGES) + noise), 0.5).sum()

    torch.manual_seed(1)
    plain = TwoParts()
    torch.manual_seed(1)
    expected = run(plain)
    model = TwoParts()
    torch.manual_seed(1)
    recorder = StepRecorder(model, 6, 2)
    with recorder.recording():
        found = run(model)
    assert torch.equal(found, expected)
    for name, value in model.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name])


def test_inside_modules_no_mode_is_active_and_nothing_is_patched():
    original, seen = nn.Module.__call__, []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images):
            seen.append((nn.Module.__call__, torch.overrides._get_current_function_mode()))
            return images * self.weight

    model = nn.ModuleDict({"spy": Spy()})
    record(model, lambda: model["spy"](IMAGES))
    assert seen[0] == (original, None)
    assert nn.Module.__call__ is original


def test_a_mode_of_the_user_stays_active():
    class Counting(TorchFunctionMode):
        calls = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    model, mode = TwoParts(), Counting()

    def run():
        with mode:
            return model.second(model.first(IMAGES)).mean()

    step = record(model, run)
    assert mode.calls > 3
    assert names(step)[:2] == ["first", "second"]


@pytest.mark.parametrize("where", ["step", "module"])
def test_everything_is_removed_after_an_exception(where: str):
    class Failing(nn.Module):
        def forward(self, images):
            raise ZeroDivisionError

    model, original = TwoParts(), nn.Module.__call__
    model.failing = Failing()

    def run():
        hidden = model.first(IMAGES)
        return 1 / 0 if where == "step" else model.failing(hidden)

    recorder = StepRecorder(model, 6, 2)
    with pytest.raises(ZeroDivisionError), recorder.recording():
        run()
    assert nn.Module.__call__ is original
    assert torch.overrides._get_current_function_mode() is None
