"""A journal replays a run's edits on a fresh model, also from checkpoints of earlier versions."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.steering import Editor, ForwardProbe, Journal, checkpoint, edited_models
from revacnn_lightning.steering.journal_text import format_journal, format_script
from tests.small import TwoConvs
from tests.steering import nets

# Written before the modules and classes of this package got their present names.
FORMAT_1 = Path(__file__).parent.parent / "data" / "edited_adamw.ckpt"


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


def test_data_loads_as_weights_only_and_as_json() -> None:
    _, editor = edited(nets.Residual)
    data = editor.journal.to_data()
    file = io.BytesIO()
    torch.save(data, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["plans"] == data["plans"]
    del data["records"]
    assert Journal.from_data(json.loads(json.dumps(data))).entries[0].plan.title


def test_text_of_a_checkpoint_becomes_neither_code_nor_escapes() -> None:
    """A title with a line break became a line of the script."""
    _, editor = edited(nets.Residual)
    data = editor.journal.to_data()
    title = "Add\n    __import__('os').abort(),\x1b]0;title\x07"
    data["plans"][0]["title"] = title
    data["plans"][0]["notes"] = ["\x1b[2J"]
    journal = Journal.from_data(data)
    script = format_script(journal)
    names = {node.id for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Name)}
    assert names == {"Journal", "PLANS", "model"}
    for text in (script, format_journal(journal)):
        assert "\x1b" not in text
        assert r"Add\n    __import__" in text


def test_plans_store_only_changed_indices() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.RemoveFilters("conv2", [3]), probe)
    plan = editor.journal.entries[0].plan
    flat = next(edit for edit in plan.tensors if edit.tensor == "fc.weight")
    assert flat.runs == [(0, 12), (16, 32)]


def test_replay_on_another_model_raises_and_changes_nothing() -> None:
    _, editor = edited(nets.Residual)
    other = nets.build(nets.Plain)
    before = nets.checksum(other)
    with pytest.raises(SteeringError, match="edit 1"):
        editor.journal.replay(other)
    assert nets.checksum(other) == before


def test_invalid_data_is_refused() -> None:
    with pytest.raises(SteeringError):
        Journal.from_data({"format": 1, "version": 0, "plans": [{"title": 3}]})
    with pytest.raises(SteeringError):
        Journal.from_data({"format": 99})


def test_a_stored_journal_of_format_1_is_read_and_written_unchanged() -> None:
    state = checkpoint.find_edit_state(torch.load(FORMAT_1, weights_only=True))
    assert state is not None
    data = state["journal"]
    assert data["format"] == 1
    journal = Journal.from_data(data)
    written = journal.to_data()
    plans = _without_later_fields(written["plans"], data["plans"])
    assert plans == _without_omitted_fields(data["plans"], plans)
    assert [len(each) for each in written["records"]] == [len(each) for each in data["records"]]
    assert (written["format"], written["version"]) == (data["format"], data["version"])


LATER = {"dims": 2}  # fields that the format has got since, whose default is not empty


def _without_later_fields(written: Any, stored: Any) -> Any:
    """Return what was written without fields that the format has got since, at their defaults."""
    if isinstance(written, dict):
        kept = {k: v for k, v in written.items() if k in stored or (v and v != LATER.get(k))}
        return {k: _without_later_fields(v, stored.get(k)) for k, v in kept.items()}
    if isinstance(written, list):
        return [_without_later_fields(*pair) for pair in zip(written, stored, strict=True)]
    return written


def _without_omitted_fields(stored: Any, written: Any) -> Any:
    """Return what was stored without fields at empty defaults that are omitted today."""
    if isinstance(stored, dict):
        kept = {k: v for k, v in stored.items() if v or k in written}
        return {k: _without_omitted_fields(v, written.get(k)) for k, v in kept.items()}
    if isinstance(stored, list):
        return [_without_omitted_fields(*pair) for pair in zip(stored, written, strict=True)]
    return stored


def test_a_stored_journal_of_format_1_is_replayed_and_undone() -> None:
    loaded = torch.load(FORMAT_1, weights_only=True)
    state = checkpoint.find_edit_state(loaded)
    assert state is not None
    model = TwoConvs()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    checkpoint.adopt_structure(model, loaded)
    journal = edited_models.find_journal(model)
    assert journal is not None
    model.load_state_dict(loaded["state_dict"])
    optimizer = model.configure_optimizers()
    [groups] = state["parameters"]
    checkpoint.regroup_parameters_as_saved(
        optimizer, model, groups, checkpoint.inserted_layer_names(state)
    )
    optimizer.load_state_dict(loaded["optimizer_states"][0])
    editor = Editor(model, [optimizer], journal=journal)
    images = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    editor.apply(requests.Undo(len(journal.entries)), ForwardProbe([lambda: model(images)]))
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
    for parameter in model.parameters():
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_scripts_written_by_earlier_versions_run() -> None:
    """They import ``Journal`` from this package and call ``from_data(...).replay(model)``."""
    state = checkpoint.find_edit_state(torch.load(FORMAT_1, weights_only=True))
    assert state is not None
    data = {key: value for key, value in state["journal"].items() if key != "records"}
    model = TwoConvs()
    Journal.from_data(data).replay(model)
    model.load_state_dict(torch.load(FORMAT_1, weights_only=True)["state_dict"])


def test_the_journal_keeps_who_has_requested_what(tmp_path: Path) -> None:
    _, editor = edited(nets.Residual)
    journal = editor.journal
    for i in range(600):
        journal.record_request(
            RequestOutcome("run", str(i), "Undo\x1b[2J", "refused", 0.0, key="ann", host="gpu01",
                           detail="because")
        )  # fmt: skip
    assert [journal.requests[0].id, journal.requests[-1].id] == ["100", "599"]
    torch.save(journal.to_data(), tmp_path / "journal.pt")
    loaded = Journal.from_data(torch.load(tmp_path / "journal.pt", weights_only=True))
    assert loaded.requests == journal.requests
    last = format_journal(loaded).splitlines()[-1]
    assert last.endswith("refused by ann on gpu01  Undo\\x1b[2J: because")
    assert "gpu01" not in format_script(loaded)


def test_refused_requests_displace_none_that_were_carried_out() -> None:
    """An observer could remove from the journal who has edited the network."""
    journal = Journal()
    journal.record_request(RequestOutcome("run", "edit", "Undo", "applied", 0.0))
    for i in range(600):
        journal.record_request(RequestOutcome("run", str(i), "Undo", "refused", 0.0))
    assert [one.id for one in journal.requests[:2]] == ["edit", "101"]


def test_a_journal_of_an_earlier_version_names_nobody() -> None:
    _, editor = edited(nets.Residual)
    data = editor.journal.to_data()
    del data["requests"]
    assert Journal.from_data(data).requests == []
