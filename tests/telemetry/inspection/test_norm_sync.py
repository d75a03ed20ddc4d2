"""Batch norms that wait for other ranks while they train, in forwards that one rank runs alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import Tensor, nn
from torch import distributed as dist

from revacnn_lightning import (
    AddFilters,
    Freeze,
    InsertLayer,
    Redo,
    Reinitialize,
    RemoveFilters,
    RemoveLayer,
    Undo,
)
from revacnn_lightning.steering import Editor
from revacnn_lightning.telemetry.inspection.norm_sync import unsupported_norm_class_name
from revacnn_lightning.telemetry.inspection.side_effects import side_effect_free
from tests.steering import nets

EDITS = [
    AddFilters("stem.0", count=2),
    RemoveFilters("a.0.0", [1, 2]),
    Reinitialize("b.0.0", [0]),
    InsertLayer("b.0.0"),
    Undo(1),
    Redo(1),
    RemoveLayer("a.1"),
    Freeze("stem.0", [1]),
    Undo(2),
]


@pytest.fixture(scope="module", autouse=True)
def several_ranks() -> Iterator[None]:
    """As far as a batch norm of torch knows: it refuses to train on a CPU then."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("size", [8, 3])  # of the images: many values per channel, or one per image
def test_a_synchronized_norm_averages_over_its_own_rank_in_forwards_of_ours(size: int):
    plain, images = net(), torch.randn(2, 3, size, size)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(net())
    with pytest.raises(ValueError, match="GPU"):  # so that no other forward passes unnoticed
        model(images)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with side_effect_free(model), side_effect_free(plain):
        assert torch.equal(model(images), plain(images))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="GPU"):
        model(images)


def test_one_value_per_channel_is_normalized_by_the_running_statistics():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(net())
    images = torch.randn(1, 3, 3, 3)
    with side_effect_free(model):
        alone = model(images)
    assert torch.equal(alone, net().eval()(images))


def test_edits_are_those_of_a_network_without_synchronized_norms():
    plain = nets.build(nets.Residual)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nets.build(nets.Residual))
    editors = [Editor(one, [torch.optim.Adam(one.parameters())]) for one in (plain, model)]
    probes = [nets.probe_of(one) for one in (plain, model)]
    for edit in EDITS:
        applied = [editor.apply(edit, probe) for editor, probe in zip(editors, probes, strict=True)]
        assert applied[0].plan == applied[1].plan
        assert applied[0].output_change == applied[1].output_change
        expected, found = plain.state_dict(), model.state_dict()
        assert list(expected) == list(found)
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
        # Norms in inserted blocks are synchronized, too.
        assert not any(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    # Lightning makes local norms of them when the training ends.
    reverted, images = TorchSyncBatchNorm().revert(model), nets.images()
    assert torch.equal(reverted.eval()(images), plain.eval()(images))


class OwnForward(nn.SyncBatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class NaiveSyncBatchNorm(nn.BatchNorm2d):
    """Of another library."""


@pytest.mark.parametrize("norm", [OwnForward, NaiveSyncBatchNorm])
def test_a_norm_that_waits_in_its_own_way_is_found(norm: type[nn.Module]):
    assert unsupported_norm_class_name(nn.Sequential(nn.Conv2d(3, 4, 3), norm(4))) == norm.__name__


@pytest.mark.parametrize("norm", [nn.SyncBatchNorm, nn.BatchNorm2d, nn.InstanceNorm2d])
def test_norms_of_torch_do_not_wait(norm: type[nn.Module]):
    assert unsupported_norm_class_name(nn.Sequential(nn.Conv2d(3, 4, 3), norm(4))) == ""
