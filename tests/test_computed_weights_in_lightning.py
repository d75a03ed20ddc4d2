"""Trainings of networks with parametrizations, norms and masks: observed, edited, resumed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from revacnn_lightning import AddFilters, Applied, RemoveFilters, ReVACNN, load_edited
from revacnn_lightning.protocol.requests import InspectFilter, InspectLayer
from tests.small import At, TwoConvs, fit


def old_weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(module)


NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "old weight_norm": old_weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "pruned": lambda module: prune.l1_unstructured(module, "weight", 0.3),
}
EDITABLE = ("weight_norm", "old weight_norm", "pruned")


def make(norm: str) -> TwoConvs:
    model = TwoConvs()
    for name in ("conv1", "conv2", "linear"):
        setattr(model, name, NORMS[norm](getattr(model, name)))
    return model


@pytest.mark.parametrize("norm", NORMS)
def test_inspecting_a_layer_and_a_filter_leaves_the_training_bit_identical(norm: str):
    plain, inspected = make(norm), make(norm)
    fit(plain)
    revacnn = ReVACNN(max_overhead=None)
    replies = []

    def inspect(trainer: object, module: object) -> None:
        for name in ("conv1", "conv2"):
            replies.append(revacnn.steer(InspectLayer(name, updates_per_second=1000)))
            replies.append(revacnn.steer(InspectFilter(name, 1)))

    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*non-leaf.*")
        fit(inspected, [At(3, inspect), revacnn])
    assert not revacnn._is_disabled
    for name, value in plain.state_dict().items():
        assert torch.equal(inspected.state_dict()[name], value), name
    for reply in replies:
        reply.result()


@pytest.mark.parametrize("norm", EDITABLE)
def test_an_edited_run_resumes_and_loads(norm: str, tmp_path: Path):
    revacnn = ReVACNN()
    edits = []

    def edit(trainer: object, module: object) -> None:
        for request in (RemoveFilters("conv1", [1]), AddFilters("conv2", count=2)):
            edits.append(revacnn.steer(request))

    model = make(norm)
    trainer = fit(model, [At(3, edit), revacnn], default_root_dir=tmp_path)
    assert all(isinstance(each.reply, Applied) for each in edits)
    assert not revacnn._is_disabled
    assert (model.conv1.out_channels, model.conv2.in_channels) == (3, 3)
    assert (model.conv2.out_channels, model.linear.in_features) == (5, 80)
    saved = tmp_path / "edited.ckpt"
    trainer.save_checkpoint(saved)
    images = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    loaded = load_edited(lambda: make(norm), saved)
    assert torch.equal(loaded(images), model.eval()(images))
    resumed = make(norm)
    trainer = fit(resumed, [ReVACNN()], max_epochs=2, resume=saved)
    assert trainer.global_step == 24
    assert resumed.conv2.out_channels == 5
