"""Loading an edited model without a trainer."""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from revacnn_lightning import load_edited
from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering import loading
from tests.steering import nets
from tests.steering.test_checkpoint import edited_run, save


def test_load_edited_without_a_trainer(tmp_path: Path) -> None:
    model, editor = edited_run()
    save(tmp_path / "run.ckpt", model, editor)
    loaded = load_edited(lambda: nets.build(nets.Residual, seed=8), tmp_path / "run.ckpt")
    assert not loaded.training
    assert torch.equal(nets.output(loaded), nets.output(model))
    with pytest.raises(SteeringError, match="does not fit"):
        load_edited(lambda: nets.build(nets.Plain), tmp_path / "run.ckpt")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(SteeringError, match="not a checkpoint"):
        load_edited(nets.Residual, tmp_path / "other.ckpt")


def test_hyperparameters_are_passed_to_the_model(tmp_path: Path) -> None:
    class Sized(nn.Module):
        def __init__(self, width: int, depth: int = 1) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, width, 1)

    model = Sized(7)
    hyper = {"width": 7, "learning_rate": 0.1}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": hyper}, tmp_path / "a.ckpt")
    assert load_edited(Sized, tmp_path / "a.ckpt").conv.out_channels == 7


class Anything(nn.Module):
    """Keeps its hyperparameters."""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.conv, self.values = nn.Conv2d(1, 1, 1), values


def save_with(hyper: dict[str, Any], path: Path, **more: Any) -> Path:
    content = {"state_dict": Anything().state_dict(), "hyper_parameters": hyper, **more}
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "value",
    [
        pathlib.Path("data") / "images",
        argparse.Namespace(rate=0.1),
        types.SimpleNamespace(rate=0.1),
        datetime.timedelta(seconds=3),
        torch.float64,
        torch.device("cpu"),
        {"nested": [pathlib.PurePosixPath("x"), (1, None)]},
    ],
    ids=repr,
)
def test_common_types_of_hyperparameters_are_loaded(tmp_path: Path, value: object):
    path = save_with({"value": value}, tmp_path / "a.ckpt")
    assert load_edited(Anything, path).values == {"value": value}


class Unknown:
    """A class of the user."""


def test_other_objects_are_loaded_only_from_a_file_that_is_trusted(tmp_path: Path):
    path = save_with({"value": Unknown()}, tmp_path / "a.ckpt")
    with pytest.raises(SteeringError, match=r"Unknown.*weights_only=False"):
        load_edited(Anything, path)
    assert isinstance(load_edited(Anything, path, weights_only=False).values["value"], Unknown)


class RunsCode:
    """Would run a function when it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("raise AssertionError('unpickling has run code')",)


def test_a_file_runs_no_code_by_default(tmp_path: Path):
    path = save_with({"value": RunsCode()}, tmp_path / "a.ckpt")
    with pytest.raises(SteeringError, match="could run code"):
        load_edited(Anything, path)
    with pytest.raises(AssertionError, match="has run code"):
        pickle.loads(pickle.dumps(RunsCode()))


def test_containers_of_other_packages_are_loaded_if_the_package_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class DictConfig:
        def __init__(self, content: dict[str, Any]) -> None:
            self.content = content

    package = types.ModuleType("omegaconf.dictconfig")
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    DictConfig.__module__, DictConfig.__qualname__ = package.__name__, "DictConfig"
    package.DictConfig = DictConfig
    path = save_with({"value": DictConfig({"rate": 0.1})}, tmp_path / "a.ckpt")
    assert load_edited(Anything, path).values["value"].content == {"rate": 0.1}
    monkeypatch.delitem(sys.modules, package.__name__)
    with pytest.raises(SteeringError, match="DictConfig"):
        load_edited(Anything, path)


def test_hyperparameters_that_were_saved_as_one_argument_are_passed_as_one(tmp_path: Path):
    class Configured(Anything):
        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(config=config)

    path = save_with({"rate": 0.1}, tmp_path / "a.ckpt", hparams_name="config")
    assert load_edited(Configured, path).values == {"config": {"rate": 0.1}}


def test_the_layers_of_configure_model_are_made_before_the_edits(tmp_path: Path):
    class Late(nn.Module):
        def configure_model(self) -> None:
            vars(self).update(vars(nets.build(nets.Residual, seed=8)))

        forward = nets.Residual.forward

    model, editor = edited_run()
    save(tmp_path / "run.ckpt", model, editor)
    assert torch.equal(nets.output(load_edited(Late, tmp_path / "run.ckpt")), nets.output(model))


def test_map_location_and_weights_only_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, seen = save_with({}, tmp_path / "a.ckpt"), []
    load = torch.load
    monkeypatch.setattr(
        loading.torch, "load", lambda f, **options: (seen.append(options), load(f, **options))[1]
    )
    load_edited(Anything, path, "cpu")
    load_edited(Anything, path, map_location=torch.device("cpu"), weights_only=False)
    assert seen == [
        {"map_location": "cpu", "weights_only": True},
        {"map_location": torch.device("cpu"), "weights_only": False},
    ]


def test_a_missing_file_is_reported_as_missing(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        load_edited(Anything, tmp_path / "missing.ckpt")
