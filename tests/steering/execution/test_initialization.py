"""New filters start as a fresh layer of their kind, or as the user initializes it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditFailedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.execution.initialization import Initialization
from tests.steering import nets


class Sevens(nn.Conv2d):
    """A conv with an initialization of its own."""

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 7.0)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.5)


class OwnConv(nets.Plain):
    """Every new filter is read, through a batch norm, so that nothing scales it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Sevens(3, 6, 3, padding=1)


def grown(
    kind: type[nn.Module], initialize: Initialization | None = None
) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network after growth, its output before, and its output after."""
    model = nets.build(kind)
    before = nets.output(model)
    editor = Editor(model, initialize=initialize)
    editor.apply(requests.AddFilters("conv1", 2), nets.probe_of(model))
    return model, before, nets.output(model)


def test_a_layer_draws_new_filters_as_its_reset_parameters_does() -> None:
    model, before, after = grown(OwnConv)
    assert torch.equal(model.conv1.weight[-2:], torch.full_like(model.conv1.weight[-2:], 7.0))
    assert torch.equal(model.conv1.bias[-2:], torch.full_like(model.conv1.bias[-2:], 0.5))
    torch.testing.assert_close(after, before)


def test_the_users_function_draws_new_filters() -> None:
    seen = []

    def initialize(module: nn.Module) -> None:
        seen.append(type(module))
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 3.0)
            module.bias.data = torch.ones_like(module.bias)

    model, before, after = grown(nets.Plain, initialize)
    assert torch.equal(model.conv1.weight[-2:], torch.full_like(model.conv1.weight[-2:], 3.0))
    assert torch.equal(model.conv1.bias[-2:], torch.ones(2, dtype=torch.float64))
    assert set(seen) == {nn.Conv2d}
    torch.testing.assert_close(after, before)


def test_reinitialized_filters_are_drawn_by_the_users_function() -> None:
    model = nets.build(nets.Plain)
    editor = Editor(model, initialize=lambda m: nn.init.constant_(m.weight, 2.0))
    editor.apply(requests.Reinitialize("conv1", [1, 4]), nets.probe_of(model))
    assert (model.conv1.weight[[1, 4]] == 2).all()
    assert (model.conv1.weight[[0, 2, 3, 5]] != 2).all()


def test_initial_values_are_reproducible_and_leave_all_random_states_alone() -> None:
    def initialize(module: nn.Module) -> None:
        nn.init.normal_(module.weight)
        module.weight.data += np.random.rand()

    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (grown(nets.Plain, initialize)[0] for _ in range(2))
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    torch.manual_seed(0)
    nets.build(nets.Plain)  # what `grown` has drawn itself
    del state
    assert (np.random.get_state()[1] == numpy_state).all()


def test_the_layer_itself_is_not_touched() -> None:
    """The function gets a copy without hooks and children: those belong to the network."""
    calls = []

    def initialize(module: nn.Module) -> None:
        calls.append((len(module._forward_hooks), len(list(module.children()))))
        if module.bias is not None:
            module.bias.data.fill_(9.0)
        module.training = False
        for buffer in module.buffers():
            buffer.fill_(9.0)

    model = nets.build(nets.Plain)
    kept = model.conv1.bias.detach().clone()
    editor = Editor(model, initialize=initialize)
    editor.apply(requests.InsertLayer("conv1"), nets.probe_of(model))
    editor.apply(requests.AddFilters("conv1"), nets.probe_of(model))
    assert torch.equal(model.conv1.bias[:6], kept)
    assert model.conv1.training
    assert calls
    assert all(call == (0, 0) for call in calls)


def break_down(module: nn.Module) -> None:
    raise KeyError("gain")


@pytest.mark.parametrize(
    ("initialize", "reason"),
    [
        (break_down, r"the option init=... raised KeyError: 'gain'"),
        (lambda m: nn.init.constant_(m.weight, float("nan")), "not finite"),
        (lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(1, 2))), "shape"),
    ],
)
def test_a_faulty_function_fails_the_edit_and_says_so(initialize, reason: str) -> None:
    model = nets.build(nets.Plain)
    before = nets.checksum(model)
    with pytest.raises(EditFailedError, match=reason):
        Editor(model, initialize=initialize).apply(
            requests.AddFilters("conv1"), nets.probe_of(model)
        )
    assert nets.checksum(model) == before


def test_the_copies_of_a_split_stayed_equal_under_adam() -> None:
    """Proportional outgoing weights give proportional gradients, which Adam normalizes."""
    model = nets.build(nets.Plain)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = nets.images()
    editor, before = Editor(model, [optimizer]), nets.output(model)
    nets.step(model, optimizer)
    before = nets.output(model)
    editor.apply(requests.AddFilters("conv2", split_from=3), ForwardProbe([partial(model, x)]))
    torch.testing.assert_close(nets.output(model), before)
    assert torch.equal(model.conv2.weight[3], model.conv2.weight[4])
    for seed in range(5):
        nets.step(model, optimizer, seed=seed)
    update = (model.conv2.weight[3] - model.conv2.weight[4]).abs().max().item()
    assert update > 1e-4
