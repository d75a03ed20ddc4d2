"""A training in two processes that split the weights, with `ModelParallelStrategy`.

``python -m tests.distributed.split_training KIND FOLDER`` compares the statistics of each batch
with obvious ones, lets rank 0 make requests, and writes what happened. FSDP2 splits all weights,
tensor parallelism those of the linear layers.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from revacnn_lightning import AddFilters, ControlRun, ReVACNN, Run, SetHyperparameter
from revacnn_lightning.protocol.requests import (
    InspectEvidence,
    InspectFilter,
    InspectGrowth,
    InspectImage,
    InspectLayer,
    InspectPrices,
    InspectRanks,
)
from revacnn_lightning.protocol.snapshot import Snapshot
from revacnn_lightning.telemetry import Recorder
from tests.distributed.scripted_training import Net, Viewer, loader, make_trainer

BATCHES = 2000  # at most: the last request stops the training
COMPARED = 12  # batches
RATE = SetHyperparameter(0, 0, "lr", 5e-3)
SCRIPT = {
    4: AddFilters("conv1", 2),
    10: RATE,
    14: ControlRun("step", batches=2),
    30: ControlRun("stop"),
}
COMPARED_NAMES = ["gradient", "weight_norm", "update_ratio"]
NAMES = [*COMPARED_NAMES, "activation", "activation_gradient"]
LAYERS = ["conv1", "conv2"]
INSPECTIONS = [
    InspectRanks("conv1"),
    InspectLayer("conv1"),
    InspectFilter("conv1", 0),
    InspectPrices(),
    InspectEvidence("conv1"),
    InspectGrowth(),
    InspectImage(),
]


# Some of what they bring. Of the others, it is enough that none ends monitoring.
INSPECTED = {"FilterInspection", "FilterPrices", "ImagePass", "LayerEvidence", "RankValues"}


class SplitNet(Net):
    """conv1 and conv2 have groups of their own; the rest is one with the root."""

    def configure_model(self) -> None:
        if isinstance(self, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        for module in (self.conv1, self.conv2, self):
            fully_shard(module, mesh=mesh)


class ParallelNet(Net):
    """The units of a hidden layer are split among the processes, and what the last one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * 16, 6)
        self.linear = nn.Linear(6, 2)

    def configure_model(self) -> None:
        if isinstance(self.hidden.weight, DTensor):
            return
        plan = {"hidden": ColwiseParallel(), "linear": RowwiseParallel()}
        parallelize_module(self, self.device_mesh["tensor_parallel"], plan)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.conv1(images)))
        features = torch.relu(self.conv2(features)).flatten(1)
        output: Tensor = self.linear(torch.relu(self.hidden(features)))
        return output

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3, foreach=False)  # or it mixes the kinds


KINDS: dict[str, tuple[type[Net], dict[str, int]]] = {
    "fsdp": (SplitNet, {"data_parallel_size": 2, "tensor_parallel_size": 1}),
    "tensor": (ParallelNet, {"data_parallel_size": 1, "tensor_parallel_size": 2}),
}


def whole(tensor: Tensor) -> Tensor:
    """Return all rows of a parameter. All processes call it."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().clone()


class Comparison(pl.Callback):
    """Records in each rank, and compares with a copy of the network that is not split."""

    def __init__(self, make_copy: Callable[[], Net]) -> None:
        self.make_copy = make_copy
        self.recorder: Recorder | None = None
        self.errors = dict.fromkeys(COMPARED_NAMES, 0.0)
        self.own: dict[str, list[int]] = {}  # filters with a norm in this rank
        self.lost: set[int] = set()  # batches without values of the maps

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx >= COMPARED:
            return
        if self.recorder is None:
            self.recorder = Recorder(pl_module, statistics=NAMES)
            self.recorder.attach()
        self.before = {name: whole(p) for name, p in pl_module.named_parameters()}
        copy = self.make_copy()
        copy.load_state_dict({**self.before, **dict(pl_module.named_buffers())})
        copy._trainer = trainer
        copy.training_step(batch, batch_idx).backward()
        self.gradients = {name: p.grad for name, p in copy.named_parameters()}
        self.recorder.begin_batch()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        recorder = self.recorder
        if args[2] >= COMPARED or recorder is None:
            return
        recording = recorder.end_batch()
        assert recording is not None
        after = {name: whole(p) for name, p in pl_module.named_parameters()}
        starts = np.cumsum([0, *recording.widths])
        for name in LAYERS:
            start = starts[recording.layers.index(name)]
            values = recording.values[:, start : start + len(after[f"{name}.weight"])]
            found = dict(zip(recording.names, values, strict=True))
            self.compare(name, found, after)
            maps = [found["activation"], found["activation_gradient"]]
            if not np.isfinite(maps).all():
                self.lost.add(args[2])
        if args[2] == COMPARED - 1:
            recorder.detach()

    def compare(self, layer: str, found: dict[str, np.ndarray], after: dict[str, Tensor]) -> None:
        weight, before = after[f"{layer}.weight"], self.before[f"{layer}.weight"]
        norm = weight.flatten(1).norm(dim=1)
        expected = {
            "gradient": self.gradients[f"{layer}.weight"].flatten(1).abs().mean(1),
            "weight_norm": norm,
            "update_ratio": (weight - before).flatten(1).norm(dim=1) / norm,
        }
        own = ~np.isnan(found["weight_norm"])
        self.own[layer] = np.flatnonzero(own).tolist()
        for name, value in expected.items():
            rows = slice(None) if name == "gradient" else own
            error = np.abs(found[name][rows] / value.numpy()[rows] - 1)
            self.note_error(name, error)

    def note_error(self, name: str, error: np.ndarray) -> None:
        self.errors[name] = float(np.max([self.errors[name], *error]))  # NaN stays


class Script(pl.Callback):
    """Requests what `SCRIPT` says, in rank 0."""

    def __init__(self, revacnn: ReVACNN, viewer: InspectingViewer) -> None:
        self.revacnn, self.viewer, self.left = revacnn, viewer, dict(SCRIPT)
        self.pending: list[Any] = []
        self.rates: list[float] = []
        self.resumption: threading.Timer | None = None

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        is_waiting = len(self.left) == 1 and not self.viewer.is_done and batch_idx < BATCHES - 50
        if self.resumption is not None and self.resumption.is_alive():
            return  # the next request comes after it
        if trainer.is_global_zero and self.left and min(self.left) <= batch_idx and not is_waiting:
            body = self.left.pop(min(self.left))
            self.request(body)
            if getattr(body, "action", "") == "step":
                self.resumption = threading.Timer(0.3, self.request, [ControlRun("resume")])
                self.resumption.start()

    def request(self, body: Any) -> None:
        self.pending.append((type(body).__name__, self.revacnn.steer(body)))

    def outcomes(self) -> list[list[str]]:
        replies = [(name, pending.reply) for name, pending in self.pending]
        return [[n, type(reply).__name__, getattr(reply, "reason", "")] for n, reply in replies]


class InspectingViewer(Viewer):
    """Inspects all that there is."""

    def __init__(self, revacnn: ReVACNN) -> None:
        super().__init__(revacnn)
        self.norms: list[float] = []
        self.received: set[str] = set()
        self.is_done = False

    def read(self, message: Any) -> None:
        self.received.add(type(message).__name__)
        if isinstance(message, Snapshot) and message.ranks == 1:
            return  # only the means of both ranks count
        super().read(message)
        if isinstance(message, Snapshot):
            self.norms = message.values[message.statistics.index("weight_norm")].tolist()

    def inspect(self, run: Run) -> None:
        for body in INSPECTIONS:
            run.request(body)
        self.is_done = bool(self.norms) and self.received >= INSPECTED


def run(kind: str, folder: Path) -> None:
    make_net, sizes = KINDS[kind]
    revacnn, module = ReVACNN(), make_net()
    comparison = Comparison(make_net)
    viewer = InspectingViewer(revacnn)
    script = Script(revacnn, viewer)
    strategy = ModelParallelStrategy(**sizes)  # type: ignore[arg-type]
    trainer = make_trainer(folder, strategy, [comparison, revacnn, script, viewer])
    trainer.fit(module, loader(BATCHES, 8))
    report = {
        "outcomes": script.outcomes(),
        "step": trainer.global_step,
        "rate": trainer.optimizers[0].param_groups[0]["lr"],
        "errors": comparison.errors,
        "own": comparison.own,
        "lost": sorted(comparison.lost),
        "ranks": sorted(viewer.ranks),
        "norms": viewer.norms,
        "differing": viewer.differing,
        "has_failed": revacnn._undo_after_failure is not None or revacnn._is_disabled,
    }
    (folder / f"process{trainer.global_rank}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
