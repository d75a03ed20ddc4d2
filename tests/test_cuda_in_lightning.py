"""Trainings of Lightning on a GPU: each precision, compiled networks, and split parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset

from revacnn_lightning import AddFilters, Freeze, InsertLayer, RemoveFilters, ReVACNN, Undo
from tests.small import fit

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # hints of torch and Lightning on speed
]

EDITS = [
    AddFilters("net.0", 2),
    RemoveFilters("net.3", [1]),
    InsertLayer("net.0"),
    Undo(1),
    Freeze("net.0", [0]),
]
BATCHES = 60

OPTIMIZERS: dict[str, Any] = {
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "capturable Adam": lambda p: torch.optim.Adam(p, lr=1e-3, capturable=True),
    "foreach SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, foreach=True),
}


class Images(pl.LightningModule):
    """Two convolutions with batch norms, on 3x12x12 images."""

    def __init__(self, optimizer: str = "fused AdamW") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.optimizer = optimizer
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 4),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.net(images)
        return output

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """Lightning expects one where there is validation data."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = OPTIMIZERS[self.optimizer](self.parameters())
        return optimizer


class Split(Images):
    """Its parameters are split among the GPUs by FSDP2."""

    def configure_model(self) -> None:
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])  # type: ignore[index]


class Script(pl.Callback):
    """Makes one request after the other, and keeps the losses and the recorded statistics."""

    def __init__(self, revacnn: ReVACNN, edits: list[Any]) -> None:
        self.revacnn, self.left = revacnn, list(edits)
        self.pending: Any = None
        self.replies: list[Any] = []
        self.losses: list[Tensor] = []
        self.devices: set[str] = set()
        self.recordings: list[Any] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        recorder: Any = self.revacnn._session.recorder  # type: ignore[union-attr]
        end_batch = recorder.end_batch

        def keep_recordings(*args: Any, **options: Any) -> Any:
            recording = end_batch(*args, **options)
            self.recordings += [] if recording is None else [recording]
            return recording

        recorder.end_batch = keep_recordings

    def on_train_batch_start(self, *args: Any) -> None:
        if self.pending is not None and self.pending.reply is not None:
            self.replies.append(self.pending.reply)
            self.pending = None
        if self.left and self.pending is None:
            self.pending = self.revacnn.steer(self.left.pop(0))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.losses.append(outputs["loss"].detach())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        tensors = [*pl_module.parameters(), *pl_module.buffers()]
        for optimizer in trainer.optimizers:
            for state in optimizer.state.values():
                tensors += [value for value in state.values() if getattr(value, "ndim", 0)]
        self.devices = {tensor.device.type for tensor in tensors}


def batches() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8 * BATCHES, 3, 12, 12, generator=generator)
    labels = torch.randint(4, (len(images),), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=8)


def train(module: pl.LightningModule, edits: list[Any], **options: Any) -> Script:
    """Train on a GPU, and edit the network as soon as the edit before is answered."""
    revacnn = ReVACNN()
    script = Script(revacnn, edits)
    fit(
        module, [revacnn, script], data=batches(), accelerator="gpu", limit_val_batches=0, **options
    )
    assert len(script.replies) == len(edits)
    assert all(bool(loss.isfinite()) for loss in script.losses)
    return script


@pytest.fixture(autouse=True)
def _no_process_group() -> Iterator[None]:
    """End what a strategy has started."""
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()
    torch._dynamo.reset()


def reasons(script: Script) -> list[str]:
    """Return why each request was refused, "" if it was applied."""
    return [getattr(reply, "reason", "") for reply in script.replies]


def assert_recorded(script: Script) -> None:
    """Check that batches were recorded until the end, with finite statistics of both layers."""
    assert len(script.recordings) > BATCHES // 2
    newest = script.recordings[-1]
    for name in ("gradient", "activation", "weight_norm"):
        assert np.isfinite(newest.values[newest.names.index(name)]).all(), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "bf16-true"])
def test_edits_in_each_precision(precision: Any, optimizer: str) -> None:
    module = Images(optimizer)
    script = train(module, EDITS, precision=precision)
    assert reasons(script) == [""] * len(EDITS)
    assert script.devices == {"cuda"}
    assert module.net[0].out_channels == 10
    assert_recorded(script)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_as_bucket_view": True, "find_unused_parameters": True},
        {"static_graph": True},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_edits_with_a_process_group_of_nccl(options: dict[str, Any]) -> None:
    module = Images()
    script = train(module, EDITS, strategy=DDPStrategy(**options), devices=1)
    assert reasons(script) == [""] * len(EDITS)
    assert script.devices == {"cuda"}
    assert module.net[0].out_channels == 10


def test_fsdp_is_observed_and_its_edits_are_refused() -> None:
    script = train(Images(), [AddFilters("net.0", 2)], strategy=FSDPStrategy(), devices=1)
    assert reasons(script) != [""]
    assert "FSDP" in reasons(script)[0]


def test_fsdp2_is_observed_and_its_filters_are_frozen() -> None:
    script = train(
        Split(), [AddFilters("net.0", 2), Freeze("net.0", [0])],
        strategy=ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1), devices=1,
    )  # fmt: skip
    refused, frozen = reasons(script)
    assert "ModelParallelStrategy splits the parameters" in refused
    assert frozen == ""
    assert_recorded(script)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_networks_are_edited(mode: str) -> None:
    module = Images()
    module.net.compile(mode=mode)
    script = train(module, EDITS)
    assert reasons(script) == [""] * len(EDITS)
    assert module.net[0].out_channels == 10
    with torch.no_grad():
        images = torch.randn(8, 3, 12, 12, device="cuda")
        module.cuda().eval()
        compiled = module.net(images).clone()
        with torch.compiler.set_stance("force_eager"):
            expected = module.net(images)
    torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=1e-4)
