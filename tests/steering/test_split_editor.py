"""Freezing filters whose parameters FSDP2 has split, here in a group of one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from revacnn_lightning.errors import EditRefusedError, SteeringError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal, checkpoint, edited_models
from revacnn_lightning.steering.split_editor import ShardedFreezeAndRateEditor
from revacnn_lightning.telemetry.inspection.following_norms import SingleLayerBatchNorms
from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.split_tensors import class_before_fsdp, is_distributed

PROBE = ForwardProbe((), norms=SingleLayerBatchNorms({"0": {"1"}}))
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

# In torch 2.6, the forward of a model that FSDP2 has split fails on the CPU.
trains_split = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 of this torch needs a GPU"
)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.fixture
def model(mesh: Any) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3)
    )
    fully_shard(model, mesh=mesh)
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(IMAGES).square().mean().backward()
    optimizer.step()


def local(tensor: Any) -> torch.Tensor:
    found: torch.Tensor = tensor.to_local() if is_distributed(tensor) else tensor
    return found.detach().clone()


@trains_split
def test_frozen_filters_stay_as_they_are_until_the_undo(model: Any):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    step(model, optimizer)
    editor = ShardedFreezeAndRateEditor(model, [optimizer])
    tensors = [model[0].weight, model[0].bias, model[1].weight, model[1].bias]
    tensors += [optimizer.state[each]["exp_avg"] for each in tensors]
    tensors += [model[1].running_mean, model[1].running_var]
    before = [local(each) for each in tensors]
    editor.apply(requests.Freeze("0", [1, 3]), PROBE)
    with torch.no_grad():
        model(IMAGES)  # of a validation: the whole parameters stay in the modules
    assert not is_distributed(model[0].weight)
    assert editor.apply(requests.Freeze("3", [2]), PROBE).plan.norms == {}
    column = local(model[3].weight)[:, 2]
    step(model, optimizer)
    for old, new in zip(before, map(local, tensors), strict=True):
        assert torch.equal(new[[1, 3]], old[[1, 3]])
        assert not torch.equal(new[[0, 2]], old[[0, 2]])
    assert torch.equal(local(model[3].weight)[:, 2], column)
    editor.apply(requests.Undo(2), PROBE)
    assert editor.frozen_filters("0") == []
    editor.apply(requests.Redo(1), PROBE)
    assert editor.frozen_filters("0") == [1, 3]
    editor.apply(requests.Unfreeze("0"), PROBE)
    step(model, optimizer)
    assert not torch.equal(local(model[0].weight)[1], before[0][1])


@trains_split
def test_a_split_layer_trains_at_its_scaled_rate_until_the_undo(model: Any):
    before, norm = local(model[0].weight), local(model[1].bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    editor = ShardedFreezeAndRateEditor(model, [optimizer])
    editor.apply(requests.ScaleLearningRate("0", 0.1), PROBE)
    with torch.no_grad():
        model(IMAGES)  # of a validation: the whole parameters stay in the modules
    step(model, optimizer)
    gradients = [local(each.grad) for each in (model[0].weight, model[1].bias)]
    torch.testing.assert_close(local(model[0].weight), before - 0.01 * gradients[0])
    torch.testing.assert_close(local(model[1].bias), norm - 0.01 * gradients[1])
    editor.apply(requests.Undo(), PROBE)
    before = local(model[0].weight)
    step(model, optimizer)
    torch.testing.assert_close(local(model[0].weight), before - 0.1 * local(model[0].weight.grad))


@trains_split
def test_filters_are_frozen_that_the_loaded_checkpoint_has_frozen(model: Any, mesh: Any):
    editor = ShardedFreezeAndRateEditor(model)
    editor.apply(requests.Freeze("0", [1, 3]), PROBE)
    saved: dict[str, Any] = {}
    checkpoint.add_edits(saved, model)
    fresh: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    fully_shard(fresh, mesh=mesh)
    checkpoint.adopt_journal_of_loaded_weights(fresh, saved)
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
    resumed = ShardedFreezeAndRateEditor(
        fresh, [optimizer], journal=edited_models.find_journal(fresh)
    )
    assert resumed.frozen_filters("0") == [1, 3]
    before, norm = local(fresh[0].weight), local(fresh[1].bias)
    step(fresh, optimizer)
    after = local(fresh[0].weight)
    assert torch.equal(after[[1, 3]], before[[1, 3]])
    assert not torch.equal(after[[0, 2]], before[[0, 2]])
    assert torch.equal(local(fresh[1].bias)[[1, 3]], norm[[1, 3]])
    resumed.apply(requests.Undo(1), PROBE)
    assert resumed.frozen_filters("0") == []
    # A checkpoint of the unedited run, which the callback has saved, freezes nothing.
    checkpoint.adopt_journal_of_loaded_weights(fresh, {"callbacks": {"ReVACNN": {}}})
    assert edited_models.find_journal(fresh) == Journal()


def test_edits_of_the_structure_are_not_adopted_after_the_weights(model: nn.Module):
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    editor = Editor(whole)
    editor.apply(requests.AddFilters("0", 1), ForwardProbe([lambda: whole(IMAGES)]))
    saved: dict[str, Any] = {}
    checkpoint.add_edits(saved, whole)
    with pytest.raises(SteeringError, match="have changed the structure"):
        checkpoint.adopt_journal_of_loaded_weights(model, saved)
    assert edited_models.find_journal(model) is None


@pytest.mark.parametrize(
    ("edit", "probe", "reason"),
    [
        (requests.RemoveFilters("0", [1]), PROBE, "split among the processes"),
        (requests.Reinitialize("0", [1]), PROBE, "split among the processes"),
        (requests.Freeze("0", [9]), PROBE, "9"),
        (requests.Unfreeze("0", [1]), PROBE, "not frozen"),
        (requests.ScaleLearningRate("0", 0.0), PROBE, "freeze it instead"),
        (requests.ScaleLearningRate("0", 0.1), ForwardProbe(()), "after the next batch"),
        (requests.Undo(1), PROBE, "cannot be undone"),
        (requests.Freeze("0", [1]), ForwardProbe(()), "after the next batch"),
        (
            requests.Freeze("0", [1]),
            ForwardProbe((), norms=SingleLayerBatchNorms(failure="a bug")),
            "a bug",
        ),
    ],
    ids=lambda each: type(each).__name__ if not isinstance(each, str) else each[:12],
)
def test_everything_else_is_refused(model: nn.Module, edit: Any, probe: ForwardProbe, reason: str):
    editor = ShardedFreezeAndRateEditor(model)
    with pytest.raises(EditRefusedError, match=reason):
        editor.apply(edit, probe)
    assert editor.version == 0


def test_a_class_of_fsdp_has_the_name_of_the_users_class(model: Any):
    assert type(model).__name__ == "FSDPSequential"
    assert class_before_fsdp(type(model)) is nn.Sequential
    assert class_before_fsdp(nn.Conv2d) is nn.Conv2d


def test_layers_that_tensor_parallelism_splits_are_left_out(mesh: Any):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 2))
    fully_shard(model[0], mesh=mesh)
    parallelize_module(model, mesh, {"1": ColwiseParallel(), "2": RowwiseParallel()})
    selection = LayerSelection("all")
    assert [name for name, _ in selection.select(model)] == ["0"]  # FSDP2 puts its weight together
    assert selection.left_out(model) == ["1", "2"]
