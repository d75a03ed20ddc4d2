"""Checkpoints of edited runs: saved by Lightning, resumed with the unedited model class."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from revacnn_lightning import (
    AddFilters,
    Freeze,
    InsertLayer,
    RemoveFilters,
    ReVACNN,
    ScaleLearningRate,
    SteeringError,
    Undo,
    cli,
    load_edited,
)
from revacnn_lightning.protocol.requests import Edit
from tests.small import At, TwoConvs, fit

# The callback that saved the checkpoint is not needed to resume.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")

ROOT = Path(__file__).parent.parent
EDITS: dict[int, list[Edit]] = {
    2: [AddFilters("conv1", 2), RemoveFilters("conv2", [0])],
    5: [InsertLayer("conv1")],
    7: [RemoveFilters("conv1", [1, 3]), ScaleLearningRate("conv2", 0.1)],
}


def edited_run(model: TwoConvs, root: Path, edits: dict[int, list[Edit]], **options) -> pl.Trainer:
    revacnn = ReVACNN()
    requests = []
    steps = [
        At(step, lambda *_, todo=todo: requests.extend(revacnn.steer(edit) for edit in todo))
        for step, todo in edits.items()
    ]
    keep = ModelCheckpoint(root, filename="{step}", save_top_k=-1)
    # The requests come before the callback, so that they are handled at the same batch.
    callbacks = [*steps, revacnn, keep]
    trainer = fit(model, callbacks, count=8, max_epochs=3, enable_checkpointing=True, **options)
    for each in requests:
        each.result()
    return trainer


def collect_state(trainer: pl.Trainer) -> dict[str, torch.Tensor]:
    """Return the weights, and the optimizer state by parameter name."""
    model = trainer.lightning_module
    names = {parameter: name for name, parameter in model.named_parameters()}
    state = dict(model.state_dict())
    for optimizer in trainer.optimizers:
        for parameter, values in optimizer.state.items():
            for key, value in values.items():
                state[f"{names[parameter]}/{key}"] = torch.as_tensor(value)
    return state


@pytest.mark.parametrize("optimizer", ["sgd-momentum", "adamw"])
def test_a_resumed_run_is_bit_identical_to_the_uninterrupted_one(optimizer: str, tmp_path: Path):
    whole = collect_state(edited_run(TwoConvs(optimizer), tmp_path, EDITS))
    resumed_model = TwoConvs(optimizer)
    saved = tmp_path / "step=16.ckpt"
    trainer = fit(resumed_model, [ReVACNN()], count=8, max_epochs=3, resume=saved)
    resumed = collect_state(trainer)
    assert trainer.global_step == 24
    assert resumed.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name
    assert "on_load_checkpoint" not in vars(resumed_model)


def test_a_resumed_run_can_be_edited_and_undone(tmp_path: Path):
    edited_run(TwoConvs(), tmp_path, EDITS)
    revacnn = ReVACNN()
    requests = []
    submit = At(2, lambda *_: requests.extend(map(revacnn.steer, [Undo(2), AddFilters("conv2")])))
    model = TwoConvs()
    fit(model, [submit, revacnn], count=8, max_epochs=3, resume=tmp_path / "step=16.ckpt")
    for each in requests:
        each.result()
    assert (model.conv1.out_channels, model.conv2.out_channels) == (6, 3)


def test_a_checkpoint_saved_after_the_fit_holds_the_edits(tmp_path: Path):
    trainer = edited_run(TwoConvs(), tmp_path, EDITS)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    model = load_edited(TwoConvs, tmp_path / "last.ckpt")
    images = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    assert torch.equal(model(images), trainer.lightning_module.eval()(images))


def test_a_second_fit_of_the_same_model_keeps_the_edits_of_the_first(tmp_path: Path):
    model, revacnn = TwoConvs(), ReVACNN()
    submit = At(2, lambda *_: revacnn.steer(AddFilters("conv1")))
    fit(model, [submit, revacnn])
    trainer = fit(model, [revacnn])
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    assert load_edited(TwoConvs, tmp_path / "second.ckpt").conv1.out_channels == 5


def test_checkpoints_of_an_unedited_run_contain_nothing_of_ours(tmp_path: Path):
    edited_run(TwoConvs(), tmp_path, {})
    checkpoint = torch.load(tmp_path / "step=16.ckpt", weights_only=True)
    assert not [key for key in checkpoint if "revacnn" in key]
    plain = TwoConvs()
    plain.load_state_dict(checkpoint["state_dict"])


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path):
    edited_run(TwoConvs(), tmp_path, EDITS)

    class Other(TwoConvs):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.conv1 = self.conv1, torch.nn.Identity()

    with pytest.raises(SteeringError, match="does not fit this model"):
        load_edited(Other, tmp_path / "step=16.ckpt")


def test_the_model_can_be_copied_while_it_is_monitored():
    copies: list[TwoConvs] = []
    note = At(3, lambda _, module: copies.append(copy.deepcopy(module)))
    fit(TwoConvs(), [ReVACNN(), note])
    assert copies[0](torch.randn(2, 1, 6, 6, dtype=torch.float64)).shape == (2, 2)


def test_frozen_filters_stay_constant_through_a_fit():
    model, seen = TwoConvs("adamw"), []
    revacnn = ReVACNN()
    submit = At(3, lambda *_: revacnn.steer(Freeze("conv1", [1])))
    note = At(4, lambda _, module: seen.append(module.conv1.weight.detach().clone()))
    fit(model, [submit, revacnn, note])
    assert torch.equal(model.conv1.weight[1], seen[0][1])
    assert not torch.equal(model.conv1.weight[0], seen[0][0])


def test_the_journal_is_printed_as_text_and_as_a_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    edited_run(TwoConvs(), tmp_path, EDITS)
    file = str(tmp_path / "step=16.ckpt")
    assert cli.main(["journal", file]) == 0
    assert "Add 2 filters to conv1" in capsys.readouterr().out
    assert cli.main(["journal", "--script", file]) == 0
    namespace: dict[str, Any] = {}
    exec(capsys.readouterr().out, namespace)
    model = TwoConvs()
    namespace["edit"](model)
    model.load_state_dict(torch.load(file, weights_only=True)["state_dict"])


def test_journal_of_another_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "text.ckpt").write_text("hello")
    assert cli.main(["journal", str(tmp_path / "text.ckpt")]) == 1
    assert "not a readable checkpoint" in capsys.readouterr().err


OLD_CHECKPOINT = ROOT / "tests" / "data" / "edited_adamw.ckpt"  # of protocol 1, journal format 1


def test_a_checkpoint_of_journal_format_1_still_loads(capsys: pytest.CaptureFixture[str]):
    expected = json.loads(OLD_CHECKPOINT.with_suffix(".json").read_text())
    model = load_edited(TwoConvs, OLD_CHECKPOINT)
    images = torch.arange(72, dtype=torch.float64).reshape(2, 1, 6, 6) / 36 - 1
    with torch.no_grad():
        logits = model(images)
    torch.testing.assert_close(logits, torch.tensor(expected["logits"], dtype=torch.float64))
    assert sum(p.numel() for p in model.parameters()) == expected["parameters"]
    assert cli.main(["journal", str(OLD_CHECKPOINT)]) == 0
    assert "Add 3 filters to conv1" in capsys.readouterr().out


def test_a_checkpoint_of_journal_format_1_still_resumes():
    model, revacnn = TwoConvs("adamw"), ReVACNN()
    requests = []

    def undo(*_: object) -> None:
        assert isinstance(model.relu2, torch.nn.Identity)
        requests.append(revacnn.steer(Undo()))

    trainer = fit(model, [At(2, undo), revacnn], count=8, max_epochs=3, resume=OLD_CHECKPOINT)
    [reply] = [request.result() for request in requests]
    assert trainer.global_step == 24
    assert reply.plan.title == "Undo: Remove relu2"
    assert isinstance(model.relu2, torch.nn.ReLU)
