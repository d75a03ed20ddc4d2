"""What a training in several processes refuses, and why."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pytorch_lightning import strategies
from torch import nn

from revacnn_lightning.runtime.ranks.training_refusals import (
    SHARDING,
    edit_refusal,
    extra_backward_refusal,
    extra_forward_refusal,
)
from revacnn_lightning.runtime.trainer_adapter import loads_checkpoint_after_start


def trainer(
    strategy: str,
    count: int = 2,
    optimizer: type | None = None,
    base: type = object,
    **attributes: object,
) -> SimpleNamespace:
    return SimpleNamespace(
        strategy=type(strategy, (base,), attributes)(),
        world_size=count,
        optimizers=[] if optimizer is None else [optimizer()],
    )


FSDP = type("FSDPStrategy", (), {})


class SyncNorm(nn.BatchNorm2d):
    """A norm of another library."""


class Sharded:
    """An optimizer of ``torch.distributed``."""

    __module__ = "torch.distributed.optim.zero_redundancy_optimizer"


@pytest.mark.parametrize(
    ("training", "norm", "reason"),
    [
        (trainer("SingleDeviceStrategy", 1), nn.BatchNorm2d, ""),
        (trainer("DDPStrategy"), nn.BatchNorm2d, ""),
        (trainer("DDPStrategy", _ddp_comm_state=None), nn.BatchNorm2d, ""),
        (trainer("DDPStrategy"), nn.SyncBatchNorm, ""),
        (trainer("DDPStrategy"), SyncNorm, "a forward of a SyncNorm waits"),
        (trainer("DDPStrategy", _ddp_comm_state=object()), nn.BatchNorm2d, "ddp_comm_state"),
        (trainer("DDPStrategy", 2, Sharded), nn.BatchNorm2d, "Sharded splits its state"),
        (trainer("FSDPStrategy"), nn.BatchNorm2d, "FSDPStrategy splits the parameters"),
        (trainer("FSDPStrategy", 1), nn.BatchNorm2d, "FSDPStrategy splits the parameters"),
        (trainer("DeepSpeedStrategy"), nn.BatchNorm2d, "DeepSpeedStrategy splits"),
        (trainer("ModelParallelStrategy"), nn.BatchNorm2d, "ModelParallelStrategy splits"),
        (trainer("Own", base=FSDP), nn.BatchNorm2d, "Own splits the parameters"),
        (trainer("XLAStrategy"), nn.BatchNorm2d, "not with XLAStrategy"),
    ],
)
def test_an_edit_that_cannot_be_made_in_all_processes_is_refused(
    training: SimpleNamespace, norm: type[nn.Module], reason: str
):
    refusal = edit_refusal(training, nn.Sequential(norm(3)))
    assert reason in refusal
    assert bool(refusal) == bool(reason)


@pytest.mark.parametrize("name", SHARDING)
def test_strategies_are_known_by_the_names_that_lightning_gives_them(name: str):
    # DeepSpeedStrategy cannot be created without deepspeed.
    kind = getattr(strategies, name)
    strategy = kind.__new__(kind)
    training = SimpleNamespace(strategy=strategy, world_size=2, optimizers=[])
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert f"{name} splits the parameters" in edit_refusal(training, network)
    assert extra_forward_refusal(training, network)
    assert loads_checkpoint_after_start(training)  # so that a resumed run has its edits


def test_a_backward_of_one_process_is_refused():
    network = nn.Linear(2, 2)
    assert extra_backward_refusal(SimpleNamespace(world_size=1), network) == ""
    assert "2 processes" in extra_backward_refusal(SimpleNamespace(world_size=2), network)


@pytest.mark.parametrize(
    ("strategy", "count", "norm", "is_refused"),
    [
        ("DDPStrategy", 2, nn.BatchNorm2d, False),
        ("DDPStrategy", 2, nn.SyncBatchNorm, False),
        ("DDPStrategy", 2, SyncNorm, True),
        ("FSDPStrategy", 2, nn.BatchNorm2d, True),
        ("DeepSpeedStrategy", 1, nn.BatchNorm2d, False),
    ],
)
def test_no_forward_waits_for_other_processes(
    strategy: str, count: int, norm: type[nn.Module], is_refused: bool
):
    assert (
        bool(extra_forward_refusal(trainer(strategy, count), nn.Sequential(norm(3)))) == is_refused
    )
