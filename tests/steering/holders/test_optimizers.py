"""The optimizers that train a model now, wherever they are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.wrappers import _FabricOptimizer
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import nn

from revacnn_lightning import AddFilters, InsertLayer, RemoveLayer, Undo
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.holders.object_walk import CopyHolder
from revacnn_lightning.steering.holders.optimizers import all_optimizers, unwrapped_optimizers
from tests.steering.nets import Plain, build, images, probe_of


class Lookahead(torch.optim.Optimizer):
    """Wraps an optimizer and keeps a slow copy of each weight (Zhang et al. 2019)."""

    def __init__(self, optimizer: torch.optim.Optimizer, *, share: bool) -> None:
        groups = optimizer.param_groups
        super().__init__([{"params": list(g["params"])} for g in groups], {"lr": 0.0})
        if share:
            self.param_groups = groups
        self.optimizer = optimizer

    @torch.no_grad()
    def step(self, closure=None):
        loss = self.optimizer.step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    slow = self.state[p].setdefault("slow", p.clone())
                    slow.lerp_(p, 0.5)
                    p.copy_(slow)
        return loss


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    x = images(4)
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def listed(optimizer: torch.optim.Optimizer) -> list[int]:
    return sorted(id(p) for group in optimizer.param_groups for p in group["params"])


def test_wrappers_of_lightning_and_fabric_are_unwrapped() -> None:
    adam = torch.optim.Adam(build(Plain).parameters())
    strategy = SimpleNamespace()
    assert (
        unwrapped_optimizers([LightningOptimizer(adam), _FabricOptimizer(adam, strategy), adam])
        == [adam] * 3
    )


def test_optimizers_held_by_the_model_and_by_callbacks_are_found() -> None:
    model = build(Plain)
    given = torch.optim.SGD(model.conv1.parameters(), 0.1)
    model.own = {"opt": torch.optim.Adam(model.conv2.parameters())}
    foreign = torch.optim.Adam(build(Plain).parameters())
    holder = SimpleNamespace(other=torch.optim.SGD(model.fc.parameters(), 0.1), foreign=foreign)
    found = all_optimizers(model, [given], [CopyHolder("Callback", holder)])
    assert found == [given, model.own["opt"], holder.other]


def test_an_optimizer_replaced_after_the_editor_was_made_is_edited() -> None:
    model, current = build(Plain), []
    current.append(torch.optim.Adam(model.parameters()))
    editor = Editor(model, lambda: current)
    train(model, current[0])
    current[:] = [torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)]
    train(model, current[0])
    editor.apply(AddFilters("conv1", 2), probe_of(model))
    editor.apply(InsertLayer("conv1"), probe_of(model))
    train(model, current[0])
    assert listed(current[0]) == sorted(map(id, model.parameters()))


def test_a_frozen_filter_stays_as_it_is_when_the_optimizer_is_replaced() -> None:
    from revacnn_lightning import Freeze

    model, current = build(Plain), []
    current.append(torch.optim.Adam(model.parameters(), 0.1))
    editor = Editor(model, lambda: current)
    editor.apply(Freeze("conv1", [1]), probe_of(model))
    before = model.conv1.weight.detach().clone()
    current[:] = [torch.optim.Adam(model.parameters(), 0.1, weight_decay=0.1)]
    train(model, current[0])
    assert torch.equal(model.conv1.weight[1], before[1])
    assert not torch.equal(model.conv1.weight[0], before[0])
    editor.close()
    train(model, current[0])
    assert not torch.equal(model.conv1.weight[1], before[1])


def test_a_removed_layer_returns_to_an_optimizer_of_another_kind() -> None:
    model, current = build(Plain), []
    model.bn1 = nn.Sequential(model.bn1, nn.Conv2d(6, 6, 3, padding=1)).double()
    current += [
        torch.optim.SGD(p, 0.1, momentum=0.9) for p in (model.fc.parameters(), _without_fc(model))
    ]
    editor = Editor(model, lambda: current)
    for optimizer in current:
        train(model, optimizer)
    editor.apply(RemoveLayer("bn1.1"), probe_of(model))
    current[:] = [torch.optim.Adam(model.parameters())]
    train(model, current[0])
    editor.apply(Undo(), probe_of(model))
    train(model, current[0])
    assert listed(current[0]) == sorted(map(id, model.parameters()))


def _without_fc(model: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in model.named_parameters() if not name.startswith("fc")]


@pytest.mark.parametrize("share", [True, False], ids=["shared groups", "own groups"])
def test_an_optimizer_inside_another_trains_an_inserted_layer(share: bool) -> None:
    model = build(Plain)
    inner = torch.optim.Adam(model.parameters())
    outer = Lookahead(inner, share=share)
    editor = Editor(model, [outer])
    train(model, outer)
    editor.apply(AddFilters("conv1", 1), probe_of(model))
    editor.apply(InsertLayer("conv1"), probe_of(model))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, outer)
    assert listed(inner) == listed(outer) == sorted(map(id, model.parameters()))
    assert not any(torch.equal(p, before[n]) for n, p in model.named_parameters() if "bn" in n)
    editor.apply(Undo(2), probe_of(model))
    train(model, outer)
    assert listed(inner) == listed(outer) == sorted(map(id, model.parameters()))


def test_new_entries_of_slow_weights_are_those_of_the_weight() -> None:
    model = build(Plain)
    outer = Lookahead(torch.optim.Adam(model.parameters()), share=True)
    train(model, outer)
    Editor(model, [outer]).apply(AddFilters("conv1", 1), probe_of(model))
    slow = outer.state[model.conv1.weight]["slow"]
    assert torch.equal(slow, model.conv1.weight)
    assert not outer.optimizer.state[model.conv1.weight]["exp_avg"][6].any()
