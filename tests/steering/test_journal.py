"""A journal repeats a run's edits on a fresh model."""

from __future__ import annotations

import io
import json

import pytest
import torch

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, Journal
from tests.steering import nets


def edited(kind: type[torch.nn.Module]) -> tuple[torch.nn.Module, Editor]:
    model, editor, probe = nets.editor_of(kind)
    convs = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    for layer in convs[:3]:
        editor.apply(requests.AddFilters(layer), probe)
        nets.step(model, editor.optimizers[0])
        editor.apply(requests.RemoveFilters(layer, [1]), probe)
        nets.step(model, editor.optimizers[0])
    return model, editor


@pytest.mark.parametrize("kind", [nets.Residual, nets.Grouped, nets.Concat, nets.Shuffle])
def test_replay_on_a_fresh_model(kind: type[torch.nn.Module]) -> None:
    model, editor = edited(kind)
    fresh = nets.build(kind, seed=3)
    journal = Journal.from_data(editor.journal.to_data())
    journal.replay(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(nets.output(fresh), nets.output(model))
    again = Editor(fresh, journal=journal)
    assert again.version == editor.version
    for name in again.channel_groups(nets.probe_of(fresh)).filters:
        assert again.filter_ids(name) == editor.filter_ids(name)


def test_data_is_plain() -> None:
    _, editor = edited(nets.Residual)
    data = editor.journal.to_data()
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["plans"] == data["plans"]
    del data["records"]
    assert Journal.from_data(json.loads(json.dumps(data))).entries[0].plan.title


def test_only_what_changed_is_stored() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.RemoveFilters("conv2", [3]), probe)
    plan = editor.journal.entries[0].plan
    flat = next(edit for edit in plan.tensors if edit.tensor == "fc.weight")
    assert flat.runs == [(0, 12), (16, 32)]


def test_another_model_is_left_alone() -> None:
    _, editor = edited(nets.Residual)
    other = nets.build(nets.Plain)
    before = nets.checksum(other)
    with pytest.raises(SteeringError, match="edit 1"):
        editor.journal.replay(other)
    assert nets.checksum(other) == before


def test_broken_data_is_no_journal() -> None:
    with pytest.raises(SteeringError):
        Journal.from_data({"format": 1, "version": 0, "plans": [{"title": 3}]})
    with pytest.raises(SteeringError):
        Journal.from_data({"format": 99})
