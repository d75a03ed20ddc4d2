"""Dicts, lists and single tensors that are copies of the model's tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning import (
    AddFilters,
    EditRefusedError,
    InsertLayer,
    RemoveFilters,
    RemoveLayer,
    Undo,
)
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.holders.object_walk import CopyHolder
from tests.steering.nets import Plain, build, probe_of, step


class Held:
    """Holds copies, as a callback does."""

    def __init__(self, value: Any) -> None:
        self.value = value


Named = list[tuple[str, Tensor]]
CONTAINERS: dict[str, Callable[[nn.Module], tuple[Any, Callable[[], Named]]]] = {
    "by name": lambda m: (c := {n: p.detach().clone() for n, p in m.named_parameters()},
                          lambda: list(c.items())),
    "of a wrapper": lambda m: (
        c := {f"module.{n}": p.detach().clone() for n, p in m.named_parameters()},
        lambda: [(n.removeprefix("module."), t) for n, t in c.items()],
    ),
    "list": lambda m: (c := [p.detach().clone() for p in m.parameters()],
                       lambda: list(zip([n for n, _ in m.named_parameters()], c, strict=True))),
    "by parameter": lambda m: (c := {p: p.detach().clone() for p in m.parameters()},
                               lambda: [(n, c[p]) for n, p in m.named_parameters()]),
    "state": lambda m: (c := {n: t.clone() for n, t in m.state_dict().items()},
                        lambda: list(c.items())),
}  # fmt: skip


def setup(value: Any, model: nn.Module) -> tuple[Editor, ForwardProbe, torch.optim.Optimizer]:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    editor = Editor(model, [optimizer], find_holders=lambda: [CopyHolder("Shadow", Held(value))])
    return editor, probe_of(model), optimizer


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_of_copies_follows_every_edit_and_undo(kind: str) -> None:
    model = build(Plain)
    container, entries = CONTAINERS[kind](model)
    editor, probe, optimizer = setup(container, model)
    step(model, optimizer)
    before = {name: tensor.clone() for name, tensor in entries()}
    edits = [AddFilters("conv1", 2), InsertLayer("conv1"), RemoveFilters("conv2", [1]),
             RemoveLayer("bn1")]  # fmt: skip
    for edit in edits:
        assert "Shadow.value" in editor.apply(edit, probe).plan.coupling
        of_model = dict((*model.named_parameters(), *model.named_buffers()))
        assert {n: t.shape for n, t in entries()} == {
            n: of_model[n].shape
            for n in of_model
            if kind == "state" or n in dict(model.named_parameters())
        }
        step(model, optimizer)
    kept = dict(entries())["conv1.weight"]
    assert torch.equal(kept[:6], before["conv1.weight"])
    editor.apply(Undo(len(edits)), probe)
    after = dict(entries())
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_new_entries_are_the_models_or_zero_for_what_is_no_value() -> None:
    model = build(Plain)
    shadow = {n: p.detach().clone() for n, p in model.named_parameters()}
    importance = {n: torch.rand_like(p) for n, p in model.named_parameters()}
    editor, probe, _ = setup([shadow, importance], model)
    editor.apply(AddFilters("conv1", 1), probe)
    assert torch.equal(shadow["conv1.weight"], model.conv1.weight)
    assert not shadow["conv2.weight"][:, 6].any()
    assert not importance["conv1.weight"][6].any()
    assert importance["conv1.weight"][:6].all()


def test_a_single_copy_and_shared_memory_follow() -> None:
    model = build(Plain)
    anchor, alias = model.conv2.weight.detach().clone(), model.conv1.weight.detach()
    unrelated = torch.randn_like(anchor)
    editor, probe, _ = setup({"a": anchor, "b": unrelated, "n": 1, "c": alias}, model)
    editor.apply(AddFilters("conv1", 1), probe)
    assert torch.equal(anchor, model.conv2.weight)
    assert alias.data_ptr() == model.conv1.weight.data_ptr()
    assert alias.shape == model.conv1.weight.shape
    assert unrelated.shape == (8, 6, 3, 3)


def test_lists_of_the_models_own_parameters_are_left_alone() -> None:
    model = build(Plain)
    own = list(model.parameters())
    editor, probe, _ = setup(own, model)
    assert not editor.apply(AddFilters("conv1", 1), probe).plan.coupling
    assert all(a is b for a, b in zip(own, model.parameters(), strict=True))


REFUSED = {
    "one vector": (lambda m: nn.utils.parameters_to_vector(m.parameters()).detach().clone(),
                   AddFilters("conv1", 1), "in one vector"),
    "a tuple": (lambda m: tuple(p.detach().clone() for p in m.parameters()),
                InsertLayer("conv1"), "is a tuple"),
    "some": (lambda m: {n: p.detach().clone() for n, p in m.named_parameters() if p.ndim > 1},
             InsertLayer("conv1"), "some parameters only"),
    "parts": (lambda m: _parts(m), AddFilters("conv1", 1), "memory of a larger tensor"),
}  # fmt: skip


def _parts(model: nn.Module) -> list[Tensor]:
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    sizes = [p.numel() for p in model.parameters()]
    return [t.view_as(p) for t, p in zip(flat.split(sizes), model.parameters(), strict=True)]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_edited_is_refused_by_the_name_of_its_holder(kind: str) -> None:
    model = build(Plain)
    make, edit, reason = REFUSED[kind]
    editor, probe, _ = setup(make(model), model)
    with pytest.raises(EditRefusedError, match=rf"Shadow\.value.*{reason}"):
        editor.plan(edit, probe)


def test_a_saved_state_can_be_loaded_after_a_layer_was_inserted() -> None:
    model = build(Plain)
    model.bn1 = nn.Identity()  # no buffers: the state has the names of the parameters
    best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    editor, probe, _ = setup(best, model)
    editor.apply(InsertLayer("conv1"), probe)
    editor.apply(AddFilters("conv1", 1), probe)
    model.load_state_dict(best)
