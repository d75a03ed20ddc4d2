"""Saving an edited run, resuming it in a fresh process, and loading it for inference."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, Journal, checkpoint
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
    torch.save(
        {
            "state_dict": model.state_dict(),
            "optimizer": editor.optimizers[0].state_dict(),
            "callbacks": {"ReVACNN": {checkpoint.STATE_KEY: checkpoint.state_to_save(editor)}},
        },
        path,
    )


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    model, editor = edited_run()
    save(tmp_path / "run.ckpt", model, editor)
    loaded = torch.load(tmp_path / "run.ckpt", weights_only=True)
    state = checkpoint.find_state(loaded)
    assert state is not None

    fresh = nets.build(nets.Residual, seed=5)
    kept = checkpoint.replay_for_load(fresh, state)
    fresh.load_state_dict(loaded["state_dict"])
    optimizer = two_groups(fresh)
    checkpoint.order_param_groups(fresh, [optimizer], state)
    optimizer.load_state_dict(loaded["optimizer"])
    resumed = Editor(fresh, [optimizer], journal=kept)
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
    state = checkpoint.state_to_save(editor)
    other = nets.build(nets.Plain)
    with pytest.raises(SteeringError, match="other parameters"):
        checkpoint.order_param_groups(other, [two_groups(other)], state)
    with pytest.raises(SteeringError, match="groups"):
        checkpoint.order_param_groups(model, [torch.optim.SGD(model.parameters(), lr=1.0)], state)


def test_load_edited_without_a_trainer(tmp_path: Path) -> None:
    model, editor = edited_run()
    save(tmp_path / "run.ckpt", model, editor)
    loaded = checkpoint.load_edited(
        lambda: nets.build(nets.Residual, seed=8), tmp_path / "run.ckpt"
    )
    assert not loaded.training
    assert torch.equal(nets.output(loaded), nets.output(model))
    with pytest.raises(SteeringError, match="does not fit"):
        checkpoint.load_edited(lambda: nets.build(nets.Plain), tmp_path / "run.ckpt")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(SteeringError, match="not a checkpoint"):
        checkpoint.load_edited(nets.Residual, tmp_path / "other.ckpt")


def test_hyperparameters_are_passed_to_the_model(tmp_path: Path) -> None:
    class Sized(nn.Module):
        def __init__(self, width: int, depth: int = 1) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, width, 1)

    model = Sized(7)
    hyper = {"width": 7, "learning_rate": 0.1}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": hyper}, tmp_path / "a.ckpt")
    assert checkpoint.load_edited(Sized, tmp_path / "a.ckpt").conv.out_channels == 7


def test_format_journal_and_script(tmp_path: Path) -> None:
    model, editor = edited_run()
    shown = format_journal(editor.journal)
    assert "Add 2 filters to stem.0" in shown
    assert len([line for line in shown.splitlines() if line.lstrip()[:1].isdigit()]) == 5
    (tmp_path / "edits.py").write_text(format_script(editor.journal))
    torch.save(copy.deepcopy(model.state_dict()), tmp_path / "weights.pt")
    run = (
        "import torch, sys; sys.path.insert(0, sys.argv[1])\n"
        "from edits import edit\n"
        "from tests.steering import nets\n"
        "model = nets.build(nets.Residual, seed=9)\n"
        "edit(model)\n"
        "model.load_state_dict(torch.load(sys.argv[1] + '/weights.pt', weights_only=True))\n"
    )
    subprocess.run([sys.executable, "-c", run, str(tmp_path)], check=True, timeout=120)


def test_format_an_empty_journal() -> None:
    assert format_journal(Journal()) == "no edits"
