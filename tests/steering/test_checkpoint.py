"""Saving an edited run, resuming it in a fresh process, and loading it for inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, Journal, checkpoint, edited_models
from revacnn_lightning.steering.journal_text import format_journal, format_script
from tests.steering import nets


def two_groups(model: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer with weight decay for weights only: its order is not the module's."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.01
    )


def edited_run() -> tuple[nn.Module, Editor]:
    model = nets.build(nets.Residual)
    editor = Editor(model, [two_groups(model)])
    probe = nets.probe_of(model)
    for i, request in enumerate(
        (
            requests.AddFilters("stem.0", count=2),
            requests.InsertLayer("a.0.0"),
            requests.RemoveFilters("b.0.0", [1, 2]),
            requests.RemoveLayer("a.1"),
            requests.Freeze("stem.0", [1]),
        )
    ):
        editor.apply(request, probe)
        nets.step(model, editor.optimizers[0], seed=i)
    return model, editor


def save(path: Path, model: nn.Module, editor: Editor) -> None:
    content = {
        "state_dict": model.state_dict(),
        "optimizer": editor.optimizers[0].state_dict(),
    }
    checkpoint.add_edits(content, model, editor.optimizers)
    torch.save(content, path)


def order(optimizer: torch.optim.Optimizer, model: nn.Module, state: dict) -> None:
    [groups] = state["parameters"]
    checkpoint.regroup_parameters_as_saved(
        optimizer, model, groups, checkpoint.inserted_layer_names(state)
    )


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    model, editor = edited_run()
    save(tmp_path / "run.ckpt", model, editor)
    loaded = torch.load(tmp_path / "run.ckpt", weights_only=True)
    state = checkpoint.find_edit_state(loaded)
    assert state is not None

    fresh = nets.build(nets.Residual, seed=5)
    checkpoint.adopt_structure(fresh, loaded)
    fresh.load_state_dict(loaded["state_dict"])
    optimizer = two_groups(fresh)
    order(optimizer, fresh, state)
    optimizer.load_state_dict(loaded["optimizer"])
    resumed = Editor(fresh, [optimizer], journal=edited_models.find_journal(fresh))
    assert resumed.version == editor.version
    assert resumed.filter_ids("stem.0") == editor.filter_ids("stem.0")
    for i in range(3):
        nets.step(model, editor.optimizers[0], seed=20 + i)
        nets.step(fresh, optimizer, seed=20 + i)
    resumed_weights, weights = fresh.state_dict(), model.state_dict()
    assert all(torch.equal(resumed_weights[name], weights[name]) for name in weights)
    states = zip(optimizer.state_dict()["state"].values(),
                 editor.optimizers[0].state_dict()["state"].values(), strict=True)  # fmt: skip
    for state, expected in states:
        assert all(torch.equal(state[key], expected[key]) for key in expected)
    resumed.apply(requests.Undo(5), nets.probe_of(fresh))
    assert fresh.a[1].weight.shape == (8, 6, 3, 3)


def test_other_optimizers_or_groups_are_refused(tmp_path: Path) -> None:
    model, editor = edited_run()
    content: dict = {}
    checkpoint.add_edits(content, model, editor.optimizers)
    state = checkpoint.find_edit_state(content)
    assert state is not None
    other = nets.build(nets.Plain)
    with pytest.raises(SteeringError, match="other parameters"):
        order(two_groups(other), other, state)
    with pytest.raises(SteeringError, match="groups"):
        order(torch.optim.SGD(model.parameters(), lr=1.0), model, state)


def test_format_journal_and_script() -> None:
    model, editor = edited_run()
    shown = format_journal(editor.journal)
    assert "Add 2 filters to stem.0" in shown
    assert len([line for line in shown.splitlines() if line.lstrip()[:1].isdigit()]) == 5
    namespace: dict[str, Any] = {}
    exec(format_script(editor.journal), namespace)
    fresh = nets.build(nets.Residual, seed=9)
    namespace["edit"](fresh)
    fresh.load_state_dict(model.state_dict())


def test_format_an_empty_journal() -> None:
    assert format_journal(Journal()) == "no edits"
