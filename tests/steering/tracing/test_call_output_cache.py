"""The forwards of one edit compute what they have in common once, and what differs again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from revacnn_lightning.steering import ForwardProbe
from revacnn_lightning.steering.execution.replacement import replace_data
from revacnn_lightning.steering.execution.transaction import Transaction
from revacnn_lightning.steering.tracing import call_output_cache, compared_calls
from revacnn_lightning.steering.tracing.forward_cache import EditForwardCache
from revacnn_lightning.steering.tracing.forward_probe import evaluate_first_forward
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups
from tests.steering import nets


@pytest.fixture(autouse=True)
def reuse_of_small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared_calls, "_MIN_MACS", 1)
    monkeypatch.setattr(compared_calls, "_MIN_MACS_PER_INPUT", 1)
    monkeypatch.setattr(compared_calls, "_MIN_POOLED", 1)


def convs_computed(run: Callable[[], object], operation: str = "aten::_convolution") -> int:
    """Return how many convolutions, or other operations, a call computes."""
    with profile() as result:
        run()
    counts = {event.key: event.count for event in result.key_averages()}
    return counts.get(operation, 0)


def poolings_computed(run: Callable[[], object]) -> int:
    """Return how many poolings a `Chain` computes. Each is an event that is dispatched, too."""
    return convs_computed(run, "aten::max_pool2d_with_indices") - 3


def shared_probe(model: nn.Module) -> ForwardProbe:
    return replace(nets.probe_of(model), shared=EditForwardCache())


class Chain(nn.Module):
    """Three convs, each followed by what ``between`` says."""

    def __init__(self, between: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = self.between(conv(x))
        return x


def chain(between: Callable[[Tensor], Tensor] = F.relu) -> Chain:
    torch.manual_seed(0)
    return Chain(between).double().train()


def change_weight(conv: nn.Conv2d) -> None:
    replace_data(Transaction(), conv.weight, conv.weight.detach() * 2, None)


def test_only_what_follows_a_changed_layer_is_computed_again() -> None:
    model = chain()
    probe = shared_probe(model)
    assert convs_computed(lambda: evaluate_first_forward(model, probe)) == 3
    assert convs_computed(lambda: evaluate_first_forward(model, probe)) == 0
    change_weight(model.convs[1])
    outputs: list[list[Tensor]] = []
    assert convs_computed(lambda: outputs.append(evaluate_first_forward(model, probe))) == 2
    alone = evaluate_first_forward(model, nets.probe_of(model))
    assert torch.equal(outputs[0][0], alone[0])


def test_the_last_forward_keeps_nothing() -> None:
    model = chain()
    probe = shared_probe(model)
    assert probe.shared is not None
    evaluate_first_forward(model, probe)
    change_weight(model.convs[1])
    kept = probe.shared.outputs._bytes
    outputs: list[list[Tensor]] = []
    assert (
        convs_computed(lambda: outputs.append(evaluate_first_forward(model, probe, is_last=True)))
        == 2
    )
    assert probe.shared.outputs._bytes == kept
    assert torch.equal(outputs[0][0], evaluate_first_forward(model, nets.probe_of(model))[0])


def test_the_last_forward_reuses_what_is_equal_behind_a_change() -> None:
    model = chain(lambda x: F.relu(x.clone().mul_(1)))
    probe = shared_probe(model)
    expected = evaluate_first_forward(model, probe)
    replace_data(Transaction(), model.convs[0].weight, model.convs[0].weight.detach().clone(), None)
    outputs: list[list[Tensor]] = []
    assert (
        convs_computed(lambda: outputs.append(evaluate_first_forward(model, probe, is_last=True)))
        <= 1
    )
    assert torch.equal(outputs[0][0], expected[0])


def test_a_pooling_of_equal_maps_is_computed_once() -> None:
    model = chain(lambda x: F.max_pool2d(x, 2, stride=1))
    probe = shared_probe(model)
    assert poolings_computed(lambda: evaluate_first_forward(model, probe)) == 3
    change_weight(model.convs[1])
    outputs: list[list[Tensor]] = []
    assert poolings_computed(lambda: outputs.append(evaluate_first_forward(model, probe))) == 2
    assert torch.equal(outputs[0][0], evaluate_first_forward(model, nets.probe_of(model))[0])


def test_the_maxima_and_their_positions_are_those_of_the_pooling() -> None:
    def between(x: Tensor) -> Tensor:
        values, positions = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(values, positions, 2, output_size=x.shape[-2:])

    model = chain(between)
    probe, expected = shared_probe(model), evaluate_first_forward(model, nets.probe_of(model))
    for _ in range(3):
        assert torch.equal(evaluate_first_forward(model, probe)[0], expected[0])
    assert poolings_computed(lambda: evaluate_first_forward(model, probe)) == 0


def test_a_trace_pools_maps_whose_values_have_changed() -> None:
    """What it returns shows whether a new filter is silent."""
    model = chain(lambda x: F.max_pool2d(x, 2, stride=1))
    images, outputs = nets.images(), list[Tensor]()

    def forward() -> Tensor:
        outputs.append(model(images))
        return outputs[-1]

    probe = ForwardProbe([forward], shared=EditForwardCache())
    evaluate_first_forward(model, probe)
    for conv in model.convs:  # at another address, so that they are computed
        change_weight(conv)
    trace_channel_groups(model, probe)
    with torch.no_grad():
        torch.testing.assert_close(outputs[-1].detach(), model(images), rtol=0, atol=0)


def test_a_weight_changed_in_place_is_read_again() -> None:
    model = chain()
    probe = shared_probe(model)
    evaluate_first_forward(model, probe)
    with torch.no_grad():
        model.convs[0].weight.mul_(2)
    assert torch.equal(
        evaluate_first_forward(model, probe)[0],
        evaluate_first_forward(model, nets.probe_of(model))[0],
    )


def test_outputs_that_the_model_overwrites_are_kept_as_they_were() -> None:
    def overwrite(x: Tensor) -> Tensor:
        return x.data.add_(1).relu_()

    model = chain(overwrite)
    probe, expected = shared_probe(model), evaluate_first_forward(model, nets.probe_of(model))
    for _ in range(3):
        assert torch.equal(evaluate_first_forward(model, probe)[0], expected[0])
    assert convs_computed(lambda: evaluate_first_forward(model, probe)) == 0


def test_inputs_that_the_model_overwrites_are_kept_as_they_were() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            y = self.conv(x)
            x += 1
            return y + self.conv(x)

    torch.manual_seed(0)
    model = Overwriting().double().train()
    probe, expected = shared_probe(model), evaluate_first_forward(model, nets.probe_of(model))
    for _ in range(3):
        assert torch.equal(evaluate_first_forward(model, probe)[0], expected[0])
    assert convs_computed(lambda: evaluate_first_forward(model, probe)) == 0


def test_a_different_input_is_computed() -> None:
    model, factors = chain(), iter([1.0, 2.0])
    images = nets.images()
    probe = ForwardProbe([lambda: model(images * next(factors))], shared=EditForwardCache())
    first, second = evaluate_first_forward(model, probe), evaluate_first_forward(model, probe)
    with torch.no_grad():
        torch.testing.assert_close(second[0], model.eval()(images * 2), rtol=0, atol=0)
    assert not torch.equal(first[0], second[0])


def test_a_trace_computes_the_convs_whose_shapes_have_changed() -> None:
    model = chain()
    probe = shared_probe(model)
    evaluate_first_forward(model, probe)
    assert convs_computed(lambda: trace_channel_groups(model, probe)) == 0
    wider = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    model.convs[2] = nn.Conv2d(3, 4, 3, padding=1).double()
    replace_data(Transaction(), model.convs[2].weight, wider, None)
    assert convs_computed(lambda: trace_channel_groups(model, probe)) == 1


def test_a_forward_with_gradients_reuses_nothing() -> None:
    model = chain()
    probe = shared_probe(model)

    def with_gradients() -> Tensor:
        with torch.enable_grad():
            output = model(nets.images())
            (gradient,) = torch.autograd.grad(output.sum(), model.convs[0].weight)
        return gradient

    probe = ForwardProbe([with_gradients], shared=EditForwardCache())
    first, second = evaluate_first_forward(model, probe), evaluate_first_forward(model, probe)
    assert torch.equal(first[0], second[0])
    assert first[0].any()


def test_cheap_calls_with_new_arguments_are_computed_without_comparing_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    model = chain()
    # A copy of the images has unknown contents.
    probe = ForwardProbe([lambda: model(nets.images().clone())], shared=EditForwardCache())
    for _ in range(2):
        assert convs_computed(lambda: evaluate_first_forward(model, probe)) == 3


# ------------------------------------------------- cheap operations, by what their arguments are


class Normed(nn.Module):
    """A conv, a batch norm, an activation in place, and what ``between`` does with them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.norm(self.conv(x))))


def normed(between: Callable[[Tensor], Tensor]) -> Normed:
    torch.manual_seed(0)
    return Normed(between).double().train()


def computed(run: Callable[[], object], *operations: str) -> list[int]:
    """Return how often a call computes each operation."""
    with profile() as result:
        run()
    counts = {event.key: event.count for event in result.key_averages()}
    return [counts.get(f"aten::{operation}", 0) for operation in operations]


class Answering(TorchDispatchMode):
    """Answers each operation with the same tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0]


def counts_answered_calls() -> bool:
    """Return whether the profiler counts operations that a mode answers, as that of torch 2.6."""
    x = torch.ones(1)

    def run() -> None:
        with Answering():
            F.silu(x)

    return computed(run, "silu") != [0]


def test_a_forward_of_the_same_network_computes_nothing_again() -> None:
    model = normed(F.silu)
    probe = shared_probe(model)
    with torch.no_grad():
        evaluate_first_forward(model, probe)
    operations = ["_convolution", "native_batch_norm", "silu"]
    if counts_answered_calls():
        del operations[1:]
    assert computed(lambda: evaluate_first_forward(model, probe), *operations)[0] == 0
    kernels = computed(lambda: evaluate_first_forward(model, probe), *operations)
    alone = computed(lambda: evaluate_first_forward(model, nets.probe_of(model)), *operations)
    assert all(now < before for now, before in zip(kernels, alone, strict=True))


def alias_by_view(y: Tensor) -> Tensor:
    part = y[:, :1]
    y.relu_()
    return y + part


def alias_by_data(y: Tensor) -> Tensor:
    other = y.data
    y.relu_()
    return y + other


def alias_by_numpy(y: Tensor) -> Tensor:
    array = y.numpy()
    y.relu_()
    return y + torch.from_numpy(array)


def alias_kept_in_a_list(y: Tensor) -> Tensor:
    kept = [y.detach()]
    F.silu(y, inplace=True)
    return y * kept[0]


def written_in_part(y: Tensor) -> Tensor:
    y[:, 1:3].mul_(2)
    return y.relu_()


def twice_the_same(y: Tensor) -> Tensor:
    a, b = F.relu(y), F.relu(y)
    b.add_(1)
    return a * b


def signed_zeros(y: Tensor) -> Tensor:
    return torch.atan2(y * 0.0, -y.abs()) + torch.atan2(y * -0.0, -y.abs())


def written_constants(y: Tensor) -> Tensor:
    a, b = torch.zeros(4, 1, 1).double(), torch.zeros(4, 1, 1).double()
    a += 1
    return y * a + b


def in_place_with_itself(y: Tensor) -> Tensor:
    z = y + 0
    return z.add_(z).mul_(y)


def random_mask(y: Tensor) -> Tensor:
    return y * torch.rand_like(y) * torch.bernoulli(torch.full_like(y, 0.5))


def overwritten_after_use(y: Tensor) -> Tensor:
    z = F.relu(y)
    y.zero_()
    return y + z


CASES = [
    alias_by_view, alias_by_data, alias_by_numpy, alias_kept_in_a_list, written_in_part,
    twice_the_same, signed_zeros, written_constants, in_place_with_itself, random_mask,
    overwritten_after_use,
]  # fmt: skip


@pytest.mark.parametrize("between", CASES)
@pytest.mark.parametrize("limit", [1 << 29, 3000, 0])
def test_shared_forwards_return_what_single_ones_do(
    between: Callable[[Tensor], Tensor], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where memory is short."""
    monkeypatch.setattr(call_output_cache, "_MAX_BYTES", limit)
    model = normed(between)
    probe, alone = shared_probe(model), nets.probe_of(model)
    for step in range(4):
        if step == 2:
            trace_channel_groups(model, probe)
        if step == 3:
            change_weight(model.conv)
        torch.manual_seed(1)
        found = evaluate_first_forward(model, probe)
        torch.manual_seed(1)
        assert torch.equal(found[0], evaluate_first_forward(model, alone)[0])


def test_a_trace_of_a_network_in_training_computes_no_norm_again() -> None:
    model = normed(F.relu)
    probe = shared_probe(model)
    evaluate_first_forward(model, probe)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with profile() as result:
        groups = trace_channel_groups(model, probe)
    computed_norms = [e for e in result.events() if e.name == "aten::native_batch_norm"]
    assert len(computed_norms) <= 1  # dispatched, and not run
    assert groups.norm_after == {"conv": {"norm"}}
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
