"""A training whose batch norms average over its processes, and the same one in one process.

``python -m tests.distributed.synchronized_training WHERE FOLDER`` edits both before the same
batches, and writes by how much their weights differ. See `OPTIONS` for where it trains.

torch synchronizes batch norms on GPUs only. `forward` computes the same on CPUs, with a collective
in the forward and one in the backward, as torch's own. So on CPUs this shows that no forward of
ReVACNN calls it in one process alone, and that edits leave it as it is, but not that torch's own
works.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from benchmarks.distributed.networks import ProcessShareSampler
from revacnn_lightning import AddFilters, Freeze, InsertLayer, Redo, RemoveFilters, ReVACNN, Undo
from revacnn_lightning.runtime.ranks import agreement
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.execution.peers import checksum
from tests.distributed.scripted_training import (
    Net,
    device_of_group,
    is_same_everywhere,
    loader,
    make_trainer,
)

BATCHES = 4000  # at most
SIZE = 8  # of a batch of all processes
STEPS_AFTER = 20  # the last edit
# A node is started with NODE_RANK, MASTER_ADDR and MASTER_PORT. NCCL takes one process per GPU, so
# that the nodes on one GPU exchange by gloo.
OPTIONS: dict[str, dict[str, Any]] = {
    "two processes": {"strategy": "ddp"},
    "two nodes": {"strategy": "ddp", "devices": 1, "num_nodes": 2},
    "all GPUs": {"strategy": "ddp", "accelerator": "gpu", "devices": -1},
    "two nodes on one GPU": {
        "strategy": DDPStrategy(process_group_backend="gloo"),
        "accelerator": "gpu", "devices": 1, "num_nodes": 2,
    },
}  # fmt: skip
EDITS = [
    AddFilters("conv1", 2),
    Freeze("conv1", [0]),
    InsertLayer("conv2"),  # with a batch norm of its own
    RemoveFilters("conv1", [1, 4]),
    Undo(1),
    Redo(1),
]


def forward(norm: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    """Normalize by the mean and variance over the images of all processes, (B, C, ...)."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    if norm.training:
        dims = [dim for dim in range(x.ndim) if dim != 1]
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        sums = all_reduce(torch.cat([x.sum(dims), x.square().sum(dims)])) / count
        mean, square = sums.chunk(2)
        variance = square - mean.square()
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr, arg-type]
            norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)  # type: ignore[union-attr, arg-type]
    shape = [1, -1] + [1] * (x.ndim - 2)
    scaled = (x - mean.view(shape)) / (variance.view(shape) + norm.eps).sqrt()
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


def synchronize_on_cpus() -> None:
    nn.SyncBatchNorm.forward = forward  # type: ignore[method-assign]
    # It raises on CPUs, and does nothing else.
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None  # type: ignore[method-assign]


class DoubleNet(Net):
    def __init__(self) -> None:
        super().__init__()
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.conv1(images.double())))
        return self.linear(torch.relu(self.conv2(hidden)).flatten(1))


class Script(pl.Callback):
    """Requests the edits in the first process, and compares both after each batch."""

    def __init__(self, revacnn: ReVACNN) -> None:
        self.revacnn, self.left = revacnn, list(EDITS)
        self.pending: Any = None
        self.replies: list[Any] = []
        self.different: list[int] = []  # batches
        self.steps_after = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if self.pending is not None and self.pending.reply is not None:
            self.replies.append(self.pending.reply)
            self.pending = None
        if trainer.is_global_zero and self.left and self.pending is None:
            self.pending = self.revacnn.steer(self.left.pop(0))
        buffers = sum(float(each.double().sum()) for each in pl_module.buffers())
        if not is_same_everywhere(checksum(pl_module, trainer.optimizers)) or (
            not is_same_everywhere(hash(buffers))
        ):
            self.different.append(args[2])
        is_over = torch.tensor(int(len(self.replies) == len(EDITS)), device=device_of_group())
        distributed.broadcast(is_over, 0)
        self.steps_after += int(is_over)
        trainer.should_stop = self.steps_after == STEPS_AFTER


def train_alone(
    edits: dict[int, Any], steps: int, processes: int, device: torch.device
) -> dict[str, Tensor]:
    """Train in one process with batch norms of torch, edited before the same batches."""
    model = DoubleNet().to(device)
    optimizer = model.configure_optimizers()
    editor = Editor(model, [optimizer])
    tensors = loader(BATCHES, SIZE).dataset.tensors  # type: ignore[attr-defined]
    images, labels = (each.to(device) for each in tensors)
    for step in range(steps):
        first = step * SIZE
        at = slice(first, first + SIZE)
        if step in edits:
            samples = images[[first, first + processes]]  # the first two of the first process
            editor.apply(edits[step], ForwardProbe([lambda samples=samples: model(samples)]))  # type: ignore[misc]
        optimizer.zero_grad()
        F.cross_entropy(model(images[at]), labels[at]).backward()
        optimizer.step()
    return {name: value.cpu() for name, value in model.state_dict().items()}


def run(where: str, folder: Path) -> None:
    agreement.IDLE_SECONDS_BETWEEN = 0.02  # no viewer is attached
    if "GPU" not in where:
        synchronize_on_cpus()
    revacnn, module = ReVACNN(), DoubleNet()
    script = Script(revacnn)
    trainer = make_trainer(
        folder, callbacks=[revacnn, script], sync_batchnorm=True, use_distributed_sampler=False,
        **OPTIONS[where],
    )  # fmt: skip
    processes, device = trainer.world_size, trainer.strategy.root_device
    sampler = ProcessShareSampler(BATCHES * SIZE)  # Lightning's own would shuffle
    data = loader(BATCHES, SIZE).dataset
    trainer.fit(module, DataLoader(data, batch_size=SIZE // processes, sampler=sampler))
    report: dict[str, Any] = {"different": script.different, "step": trainer.global_step}
    if trainer.is_global_zero:
        report["outcomes"] = [
            [type(reply).__name__, getattr(reply, "reason", "")] for reply in script.replies
        ]
        steps = [reply.step for reply in script.replies if hasattr(reply, "plan")]
        edits = dict(zip(steps, EDITS, strict=False))
        alone = train_alone(edits, trainer.global_step, processes, device)
        found = module.state_dict()
        report["names"] = [sorted(found), sorted(alone)]
        report["difference"] = max(
            float((found[name].double() - value).abs().max() / value.double().abs().max())
            for name, value in alone.items()
            if value.numel() and found[name].shape == value.shape
        )
        report["shapes"] = [
            name for name, value in alone.items() if found[name].shape != value.shape
        ]
    (folder / f"process{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
