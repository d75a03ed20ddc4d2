"""Convs that compute their weight in each forward: what is recorded, and that nothing changes."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

from tests.telemetry import reference
from tests.telemetry.adapter import of_layer

IMAGES = torch.randn(6, 3, 10, 10, generator=torch.Generator().manual_seed(2))


class Standardized(nn.Conv2d):
    """Standardizes its weight in the forward (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        spread = self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / spread, self.bias)


class Generated(nn.Conv2d):
    """Its weight is a property that counts how often it is read."""

    reads = 0

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.code = nn.Parameter(self._parameters.pop("weight").detach())

    @property
    def weight(self) -> Tensor:
        type(self).reads += 1
        return torch.tanh(self.code)

    @weight.setter
    def weight(self, value: Tensor) -> None:
        self._parameters["weight"] = value


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def pruned(conv: nn.Conv2d) -> nn.Conv2d:
    prune.l1_unstructured(conv, "weight", 0.3)
    prune.random_unstructured(conv, "weight", 0.2)  # stacked: a PruningContainer
    return conv


def old_weight_norm(conv: nn.Conv2d) -> nn.Conv2d:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(conv)


KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "user": lambda conv: parametrize.register_parametrization(conv, "weight", Doubled()) or conv,
    "old weight_norm": old_weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "pruned": pruned,
    "standardized": lambda conv: Standardized(3, 4, 3),
    "generated": lambda conv: Generated(3, 4, 3),
    "transposed": lambda conv: parametrizations.weight_norm(nn.ConvTranspose2d(3, 4, 3)),
    "QAT": lambda conv: qat_conv(),
}


def qat_conv() -> nn.Module:
    from torch.ao.nn.qat import Conv2d
    from torch.ao.quantization import get_default_qat_qconfig

    return Conv2d(3, 4, 3, qconfig=get_default_qat_qconfig("fbgemm"))


class Net(nn.Module):
    """Computes its loss from the conv's output, and keeps the weight that the conv call received.

    The weight is observed by replacing `torch.conv2d`'s arguments, independently of the recorder.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = KINDS[kind](nn.Conv2d(3, 4, 3))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x))


class Spy(torch.overrides.TorchFunctionMode):
    """Keeps the weight of each conv call, and later its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.conv2d, torch.conv_transpose2d):
            weight = args[1]
            if weight.requires_grad and not weight.is_leaf:
                weight.retain_grad()
            self.weights.append(weight)
        return func(*args, **(kwargs or {}))


# Of convs with a forward of their own, the weight is read from the autograd graph.
IN_GRAPH = {"standardized", "generated", "QAT"}
CAN_READ_GRAPH = hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks")


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_the_weight_that_the_conv_call_receives(recorder_of, kind):
    if kind in IN_GRAPH and not CAN_READ_GRAPH:
        pytest.skip("this torch does not say whether reading the graph would run hooks")
    model = Net(kind)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.5)
    recorder = recorder_of(model)
    before = None
    for batch in range(4):  # the first is the discovery batch
        optimizer.zero_grad()
        recorder.begin_batch()
        with Spy() as spy:
            reference.train_step(model, IMAGES * (1 + batch))
        optimizer.step()
        recording = recorder.end_batch()
        (weight,) = spy.weights
        expected = {
            "gradient": reference.mean_absolute_coefficient(weight.grad, model.conv),
            "weight_norm": reference.norm(weight.detach(), model.conv),
        }
        if before is not None:
            change = reference.norm(weight.detach() - before, model.conv)
            expected["update_ratio"] = change / expected["weight_norm"]
        for name, values in expected.items():
            np.testing.assert_allclose(
                of_layer(recording, name, "conv"), values, rtol=2e-4, atol=1e-7, err_msg=name
            )
        assert not recording.nonfinite
        before = weight.detach().clone()


@pytest.mark.parametrize("kind", KINDS)
def test_recording_and_inspecting_leaves_the_training_bit_identical(recorder_of, kind):
    states = []
    for is_recorded in (False, True):
        model = Net(kind)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        recorder = recorder_of(model) if is_recorded else None
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as that about .grad of a non-leaf tensor
            warnings.filterwarnings("ignore", ".*deprecated.*")
            for batch in range(3):
                optimizer.zero_grad()
                if recorder is not None:
                    recorder.details.open("conv", smoothed=batch == 1)
                    recorder.begin_batch()
                reference.train_step(model, IMAGES * (1 + batch))
                optimizer.step()
                if recorder is not None:
                    recorder.end_batch()
                    recorder.collect_details()
                    recorder.collect_details_while_paused(["conv"], IMAGES[0])
                    recorder.current_gradient("conv")
        states.append(model.state_dict())
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_details_show_the_computed_weight_and_its_gradient(recorder_of):
    model = Net("weight_norm")
    recorder = recorder_of(model)
    recorder.details.open("conv", hz=1000)
    recorder.begin_batch()
    with Spy() as spy:
        reference.train_step(model, IMAGES)
    recorder.end_batch()
    (sample,) = recorder.collect_details()
    (weight,) = spy.weights
    assert torch.equal(recorder.current_weight("conv"), weight)
    assert torch.equal(recorder.current_gradient("conv"), weight.grad)
    for values, expected in ((sample.coefficients, weight), (sample.gradients, weight.grad)):
        rows = expected.detach().flatten(1)
        np.testing.assert_allclose(values, rows / rows.abs().max(), atol=1e-3)


def test_before_the_first_forward_no_sample_is_made(recorder_of):
    model = Net("weight_norm")
    recorder = recorder_of(model)
    recorder.details.open("conv")
    assert recorder.collect_details_while_paused(["conv"]) == []


def test_observing_reads_no_property_of_the_user(recorder_of):
    model = Net("generated")
    recorder = recorder_of(model)
    recorder.details.open("conv", hz=1000)
    reads = Generated.reads
    for _ in range(3):
        recorder.begin_batch()
        reference.train_step(model, IMAGES)
        recorder.end_batch()
        recorder.collect_details()
    assert Generated.reads == reads + 3


def test_a_weight_that_two_calls_share_has_one_gradient(recorder_of):
    """`parametrize.cached` computes the weight once; without it, each call computes it."""

    class Twice(Net):
        def forward(self, x):
            return self.conv(x).sum() + self.conv(2 * x).square().mean()

    for is_cached in (True, False):
        model = Twice("weight_norm")
        recorder = recorder_of(model)
        for _ in range(2):
            model.zero_grad()
            recorder.begin_batch()
            with Spy() as spy:
                if is_cached:
                    with parametrize.cached():
                        model(IMAGES).backward()
                else:
                    model(IMAGES).backward()
            recording = recorder.end_batch()
            gradients = {id(w): w.grad for w in spy.weights}
            np.testing.assert_allclose(
                of_layer(recording, "gradient", "conv"),
                reference.mean_absolute_coefficient(sum(gradients.values()), model.conv),
                rtol=1e-4,
            )


def test_a_weight_assigned_in_the_forward_is_observed(recorder_of):
    """A network that generates the weight of another deletes the parameter and assigns it."""

    class Hyper(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.code = nn.Linear(2, 4 * 27)
            self.conv = nn.Conv2d(3, 4, 3)
            del self.conv.weight

        def forward(self, x):
            self.conv.weight = self.code(torch.ones(2)).view(4, 3, 3, 3)
            return self.conv(x)

    model = Hyper()
    recorder = recorder_of(model)
    for _ in range(2):
        model.zero_grad()
        recorder.begin_batch()
        with Spy() as spy:
            reference.train_step(model, IMAGES)
        recording = recorder.end_batch()
        np.testing.assert_allclose(
            of_layer(recording, "gradient", "conv"),
            reference.mean_absolute_coefficient(spy.weights[0].grad, model.conv),
            rtol=1e-4,
        )


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("kind", ["weight_norm", "pruned", "standardized"])
def test_activation_checkpointing(recorder_of, kind, reentrant):
    states = []
    for is_recorded in (False, True):
        model = Net(kind)
        recorder = recorder_of(model)
        for _ in range(2):
            model.zero_grad()
            if is_recorded:
                recorder.begin_batch()
            images = IMAGES.clone().requires_grad_()
            checkpoint(model, images, use_reentrant=reentrant).square().mean().backward()
            recording = recorder.end_batch()
        if is_recorded:
            assert np.isfinite(of_layer(recording, "gradient", "conv")).all()
        states.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_weight_that_is_pruned_during_training_is_observed_from_then_on(recorder_of):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    recorder = recorder_of(model)
    for batch in range(4):
        if batch == 2:
            prune.l1_unstructured(model[0], "weight", 0.5)
        if batch == 3:
            prune.remove(model[0], "weight")
        model.zero_grad()
        recorder.begin_batch()
        with Spy() as spy:
            reference.train_step(model, IMAGES)
        recording = recorder.end_batch()
        for name, values in (
            ("gradient", reference.mean_absolute_coefficient(spy.weights[0].grad, model[0])),
            ("weight_norm", reference.norm(spy.weights[0].detach(), model[0])),
        ):
            np.testing.assert_allclose(of_layer(recording, name, "0"), values, rtol=1e-4)


def test_copies_and_the_modules_keep_nothing_of_ours(recorder_of):
    model = Net("weight_norm")
    recorder = recorder_of(model)
    for _ in range(2):
        recorder.begin_batch()
        reference.train_step(model, IMAGES)
        copied = copy.deepcopy(model)
        recorder.end_batch()
    hooks = [hook for module in copied.modules() for hook in module._forward_hooks.values()]
    assert hooks == []
    recorder.detach()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_subclass_that_passes_its_parameter_on_is_a_plain_conv(recorder_of):
    class Padded(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)

    model = nn.Sequential(Padded(3, 4, 3))
    recorder = recorder_of(model)
    for _ in range(2):
        model.zero_grad()
        recorder.begin_batch()
        reference.train_step(model, IMAGES)
        recording = recorder.end_batch()
    np.testing.assert_allclose(
        of_layer(recording, "gradient", "0"),
        reference.mean_absolute_coefficient(model[0].weight.grad, model[0]),
        rtol=1e-4,
    )
    assert torch.equal(recorder.current_weight("0"), model[0].weight)


def test_a_wrong_number_of_filters_costs_only_its_statistics(recorder_of):
    """Surgery that shortens the weight but forgets ``out_channels``."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3))
    model[0].weight = nn.Parameter(model[0].weight[:3].detach().clone())
    model[0].bias = nn.Parameter(model[0].bias[:3].detach().clone())
    recorder = recorder_of(model, ("gradient", "activation", "weight_norm"))
    recorder.begin_batch()
    reference.train_step(model, IMAGES)
    recording = recorder.end_batch()
    assert np.isnan(of_layer(recording, "gradient", "0")).all()
    assert np.isfinite(of_layer(recording, "gradient", "1")).all()
