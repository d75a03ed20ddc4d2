"""Optimizers after an edit: surviving filters train exactly as in an unedited run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.optimizers import COUPLED, OPTIMIZERS
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor
from tests.steering import nets

STEPS = 10
DENSE = [(name, options) for name, options in OPTIMIZERS if name not in {*COUPLED, "LBFGS"}]


def without_third_channel() -> nn.Module:
    """Return Plain with a dead filter 2 in conv2: it has zero weights and gets no gradient.

    The conv before the batch norm has no bias: its gradient is rounding noise, which changes the
    steps of Rprop.
    """
    model = nets.build(nets.Plain)
    with torch.no_grad():
        model.conv2.weight[2] = 0
        model.conv2.bias[2] = -1  # always negative before the ReLU
        model.fc.weight[:, 8:12] = 0
    model.conv1.register_parameter("bias", None)
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, first: int) -> None:
    for i in range(steps):
        x = nets.images(4, seed=first + i)
        y = torch.randint(5, (4,), generator=torch.Generator().manual_seed(first + i))

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)


@pytest.mark.parametrize("variant", ["default", "foreach"])
@pytest.mark.parametrize(("name", "options"), DENSE, ids=lambda v: v if isinstance(v, str) else "")
def test_surviving_filters_train_as_without_the_edit(
    name: str, options: dict[str, Any], variant: str
) -> None:
    if variant == "foreach":
        options = {**options, "foreach": True}
    make = getattr(torch.optim, name)
    plain, pruned = without_third_channel(), without_third_channel()
    optimizers = [make(m.parameters(), **options) for m in (plain, pruned)]
    for model, optimizer in zip((plain, pruned), optimizers, strict=True):
        train(model, optimizer, STEPS, first=0)
    editor = Editor(pruned, [optimizers[1]])
    editor.apply(requests.RemoveFilters("conv2", [2]), nets.probe_of(pruned))
    for model, optimizer in zip((plain, pruned), optimizers, strict=True):
        train(model, optimizer, STEPS, first=100)
    kept = [0, 1, 3, 4, 5, 6, 7]
    for weight, expected in (
        (pruned.conv1.weight, plain.conv1.weight),
        (pruned.conv2.weight, plain.conv2.weight[kept]),
        (pruned.fc.weight, plain.fc.weight[:, [i for i in range(32) if i // 4 != 2]]),
    ):
        assert ((weight - expected).norm() / expected.norm()).item() < 1e-12


@pytest.mark.parametrize(
    ("name", "key", "start"),
    [("Adam", "exp_avg", 0.0), ("Adagrad", "sum", 0.25), ("Rprop", "step_size", 0.02)],
)
def test_new_entries_start_with_initial_optimizer_state(name: str, key: str, start: float) -> None:
    options = {"Adagrad": {"initial_accumulator_value": 0.25}}.get(name, {})
    model = nets.build(nets.Plain)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.02, **options)
    nets.step(model, optimizer)
    editor = Editor(model, [optimizer])
    editor.apply(requests.AddFilters("conv1"), nets.probe_of(model))
    assert optimizer.state[model.conv1.weight][key][6].eq(start).all()
    assert optimizer.state[model.conv2.weight][key][:, 6].eq(start).all()


def test_the_plan_notes_inexact_optimizers() -> None:
    model = nets.build(nets.Plain)
    editor = Editor(model, [torch.optim.Adafactor(model.parameters())])
    plan = editor.plan(requests.RemoveFilters("conv1", [0]), nets.probe_of(model))
    assert any("Adafactor" in note for note in plan.notes)


def test_state_of_unknown_shape_is_refused() -> None:
    """A custom optimizer with a matrix per parameter that cannot be resized."""

    class Preconditioned(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            super().step(closure)
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["preconditioner"] = torch.eye(len(p))

    model = nets.build(nets.Plain)
    optimizer = Preconditioned(model.parameters(), lr=0.1)
    nets.step(model, optimizer)
    editor = Editor(model, [optimizer])
    before = nets.checksum(model, optimizer)
    with pytest.raises(EditRefusedError, match="'preconditioner' that Preconditioned keeps"):
        editor.apply(requests.RemoveFilters("conv1", [0]), nets.probe_of(model))
    assert nets.checksum(model, optimizer) == before


def test_two_optimizers() -> None:
    model = nets.build(nets.Plain)
    first = torch.optim.SGD(model.conv1.parameters(), lr=0.1, momentum=0.9)
    rest = [p for p in model.parameters() if all(p is not q for q in model.conv1.parameters())]
    second = torch.optim.Adam(rest, lr=0.01)
    for optimizer in (first, second):
        nets.step(model, optimizer)
    editor = Editor(model, [first, second])
    before = nets.checksum(model, first, second)
    editor.apply(requests.RemoveFilters("conv1", [3]), nets.probe_of(model))
    assert first.state[model.conv1.weight]["momentum_buffer"].shape == model.conv1.weight.shape
    assert second.state[model.conv2.weight]["exp_avg"].shape == model.conv2.weight.shape
    editor.apply(requests.Undo(), nets.probe_of(model))
    assert nets.checksum(model, first, second) == before


def test_schedulers_and_gradient_clipping_work_after_edits() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    for request in (requests.AddFilters("conv1"), requests.InsertLayer("conv2")):
        editor.apply(request, probe)
        nets.step(model, optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.81)
