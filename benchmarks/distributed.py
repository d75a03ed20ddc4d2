"""Edits of a training in several processes, with DistributedDataParallel and gloo on one machine.

``python -m benchmarks.distributed [--processes N] [--edits N] [--json FILE] [--check] [--quick]``

1. Random edits of all kinds during training, undo and redo included. After each one, all processes
   must have the same weights, buffers and optimizer state, bit for bit.
2. Edits in several processes and in one process with the same global batch: the weights at least
   50 steps after the last edit, relative to the largest weight of each tensor.
3. A resume from the checkpoint of an edited run, in as many processes and in one: the weights.
4. What agreement costs per batch without a request, and how long an edit and the new wrapper take.
"""

from __future__ import annotations

import json
import logging
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from benchmarks.report import Report, argument_parser
from benchmarks.steering_fuzz import Fuzzer
from benchmarks.training_loops import resnet18
from revacnn_lightning import (
    AddFilters,
    ControlRun,
    Freeze,
    InsertLayer,
    Redo,
    RemoveFilters,
    ReVACNN,
    Undo,
)
from revacnn_lightning.runtime.ranks import agreement
from revacnn_lightning.runtime.ranks.processes import Processes
from revacnn_lightning.runtime.ranks.replicated_model import ReplicatedModel

STEPS = 50
EDITED = 100  # batches before, during which the edits are made
PIXELS = 12
# Requests by batch, for the comparison with one process and for the resume.
SCRIPT: dict[int, Any] = {
    4: AddFilters("net.0", 2),
    10: RemoveFilters("net.2", [1, 4]),
    16: Freeze("net.2", [0]),
    20: InsertLayer("net.2", "dirac"),  # a residual block has batch norms
    26: AddFilters("net.2", 1, split_from=2),
    32: Undo(1),
    38: Redo(1),
}


def plain_net() -> nn.Module:
    """Return a network without batch norms, which would see other batches in one process."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def normalized_net() -> nn.Module:
    """Return a small network with batch norms."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(48, 10),
    )  # fmt: skip


class Module(pl.LightningModule):
    def __init__(self, make_net: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = make_net()

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.net(images)
        return output

    def training_step(self, batch: Sequence[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def run_module(module: Any, batch: Any) -> Any:
    """Run the network on a batch: with this argument of the callback, no step is recorded."""
    return module(batch[0])


class PartOfProcess(Sampler[int]):
    """Gives item i to process i modulo their number; Lightning's own sampler would shuffle them."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        rank, processes = _rank_and_processes()
        return iter(range(rank, self.size, processes))

    def __len__(self) -> int:
        return self.size // _rank_and_processes()[1]


def _rank_and_processes() -> tuple[int, int]:
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def loader(count: int, size: int, dtype: torch.dtype, processes: int = 1) -> DataLoader[Any]:
    """Return ``count`` global batches, sorted such that each process gets its part of each."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, processes, size // processes, 3, PIXELS, PIXELS)
    images = torch.randn(shape, generator=generator, dtype=dtype)
    labels = torch.randint(10, shape[:3], generator=generator)
    if processes > 1:  # as `PartOfProcess` divides them
        images, labels = images.transpose(1, 2), labels.transpose(1, 2)
    data = TensorDataset(images.reshape(-1, 3, PIXELS, PIXELS), labels.reshape(-1))
    return DataLoader(data, batch_size=size // processes, sampler=PartOfProcess(len(data)))


class Driver(pl.Callback):
    """Requests edits in the first process, and writes what a run shows when it ends.

    Args:
        revacnn: the callback.
        folder: of the results.
        next_request: returns the request before a batch, or None; it is called when no other one
            is pending.
        compare: whether to compare all processes after each edit.
    """

    def __init__(
        self,
        revacnn: ReVACNN,
        folder: Path,
        next_request: Callable[[int, Any], Any] = lambda *_: None,
        *,
        compare: bool = False,
    ) -> None:
        self.revacnn, self.folder = revacnn, folder
        self.next_request, self.compare = next_request, compare
        self.pending: Any = None
        self.applied: list[tuple[int, str, float]] = []  # batch, kind, seconds
        self.refused: list[str] = []
        self.compared = self.different = 0
        self.version = 0
        self.times: list[float] = []  # of the steps
        self.costs: list[float] = []  # of agreement
        self.wraps: list[float] = []
        self.last = time.perf_counter()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        for kind, name in ((Processes, "begin_batch"), (Processes, "end_stop")):
            timed(kind, name, self.costs)
        timed(ReplicatedModel, "update", self.wraps)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        editor = self.revacnn._editor
        assert editor is not None
        if self.compare and editor.version != self.version:
            self.version = editor.version
            self.compared += 1
            self.different += not is_same_everywhere(pl_module, trainer.optimizers)
        if self.pending is not None and self.pending[1].reply is not None:
            self.note_reply(*self.pending)
            self.pending = None
        if trainer.is_global_zero and self.pending is None:
            body = self.next_request(args[1], pl_module)
            if body is not None:
                self.pending = (type(body).__name__, self.revacnn.steer(body))

    def note_reply(self, kind: str, pending: Any) -> None:
        reply = pending.reply
        if hasattr(reply, "plan"):
            self.applied.append((reply.step, kind, reply.seconds))
        elif hasattr(reply, "reason"):
            self.refused.append(f"{kind}: {reply.reason}")

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        now = time.perf_counter()
        self.times.append(now - self.last)
        self.last = now

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        result = {
            "applied": self.applied, "refused": self.refused, "compared": self.compared,
            "different": self.different, "times": self.times, "costs": self.costs,
            "wraps": [seconds for seconds in self.wraps if seconds > 1e-3],
        }  # fmt: skip
        path = self.folder / f"process{trainer.global_rank}.json"
        path.write_text(json.dumps(result))
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), self.folder / "weights.pt")


def timed(kind: type, name: str, seconds: list[float]) -> None:
    """Let a method of a class append how long each call takes."""
    method = getattr(kind, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    setattr(kind, name, measured)


def is_same_everywhere(module: nn.Module, optimizers: Sequence[Any]) -> bool:
    """Return whether all processes have the same tensors, bit for bit: they are compared whole."""
    tensors = [*module.parameters(), *module.buffers()]
    for optimizer in optimizers:
        for parameter in module.parameters():
            state = optimizer.state.get(parameter, {})
            tensors += [v for _, v in sorted(state.items()) if isinstance(v, Tensor)]
    own = torch.cat([t.detach().contiguous().reshape(-1).view(torch.uint8) for t in tensors])
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, torch.tensor([len(own)]))
    if len({int(size) for size in sizes}) > 1:
        return False
    first = own.clone()
    distributed.broadcast(first, 0)
    outcome = torch.tensor([int(torch.equal(first, own))])
    distributed.all_reduce(outcome, distributed.ReduceOp.MIN)
    return bool(outcome)


def train(
    module: pl.LightningModule,
    data: DataLoader[Any],
    folder: Path,
    processes: int,
    driver: Driver,
    callbacks: Sequence[pl.Callback] = (),
    **options: Any,
) -> list[dict[str, Any]]:
    """Train in new processes; return what the driver of each has written."""
    folder.mkdir(parents=True, exist_ok=True)
    driver.folder = folder
    driver.revacnn.prepare(module)
    options = {"max_epochs": 1, **options}
    resume = options.pop("resume", None)
    # Processes are compared right after an edit: afterwards, each one's batch changes its buffers.
    both = [driver.revacnn, driver] if driver.compare else [driver, driver.revacnn]
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes, strategy="ddp_fork", logger=False,
        enable_checkpointing=bool(callbacks), enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
        callbacks=[*both, *callbacks], use_distributed_sampler=False, **options,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume)
    files = [folder / f"process{rank}.json" for rank in range(processes)]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def new_driver(folder: Path, *args: Any, **options: Any) -> Driver:
    return Driver(ReVACNN(forward=run_module), folder, *args, **options)


class Scripted:
    """The requests of a script, one after the other, each at its batch or as soon as possible."""

    def __init__(self, script: dict[int, Any]) -> None:
        self.left = list(script.items())

    def __call__(self, batch: int, module: Any) -> Any:
        if self.left and batch >= self.left[0][0] and module.current_epoch == 0:
            return self.left.pop(0)[1]
        return None


# ---------------------------------------------------------------------- cases


class RandomRequests(Fuzzer):
    """Random requests for a module; about every sixth one is an undo or a redo."""

    def __init__(self, seed: int, edits: int) -> None:
        self.random = random.Random(seed)
        self.edits = edits
        self.driver: Driver | None = None

    def __call__(self, batch: int, module: Any) -> Any:
        assert self.driver is not None
        if len(self.driver.applied) >= self.edits:
            return ControlRun("stop")  # all processes, before the same batch
        editor, self.model = self.driver.revacnn._editor, module
        assert editor is not None
        if not hasattr(self, "initial_widths"):
            self.initial_widths = {n: m.out_channels for n, m in self._convs()}
        chance = self.random.random()
        if chance < 0.1 and editor.journal.undoable:
            return Undo(1)
        if chance < 0.17 and editor.journal.undone:
            return Redo(1)
        return self.random_request()


def random_edits(report: Report, processes: int, edits: int, folder: Path) -> None:
    requests = RandomRequests(0, edits)
    driver = requests.driver = new_driver(folder, requests, compare=True)
    module = Module(normalized_net)
    results = train(
        module, loader(64, 8, torch.float32), folder / "random", processes, driver,
        max_epochs=edits,
    )  # fmt: skip
    first = results[0]
    kinds = Counter(kind for _, kind, _ in first["applied"])
    name = f"random edits, {processes} processes"
    wraps = first["wraps"]
    report.add_row(name, len(first["applied"]), first["different"], _ms(wraps), "")
    listed = ", ".join(f"{k} {n}" for k, n in sorted(kinds.items()))
    report.add_note(f"{name}: {listed}; {len(first['refused'])} refused")
    report.check_at_least(f"{name}: applied", len(first["applied"]), edits)
    report.check_at_least(f"{name}: compared", first["compared"], edits)
    report.check_at_most(f"{name}: different", max(each["different"] for each in results), 0)


def against_one_process(report: Report, processes: int, folder: Path) -> None:
    """Compare the weights with those of one process, with the edits before the same batches."""
    several, one = Module(plain_net).double(), Module(plain_net).double()
    size = 4 * processes
    data = loader(EDITED + STEPS, size, torch.float64, processes)
    [first, *_] = train(
        several, data, folder / "several", processes, new_driver(folder, Scripted(SCRIPT))
    )
    bodies = iter(SCRIPT.values())
    steps = {step: next(bodies) for step, _, _ in first["applied"]}
    driver = new_driver(folder, lambda batch, _: steps.get(batch))
    [single] = train(one, loader(EDITED + STEPS, size, torch.float64), folder / "one", 1, driver)
    is_before_last = bool(steps) and max(steps) <= EDITED
    same_steps = is_before_last and [step for step, _, _ in single["applied"]] == list(steps)
    weights, expected = several.state_dict(), one.state_dict()
    difference = max(
        float((weights[name] - value).abs().max() / value.abs().max())
        if name in weights and weights[name].shape == value.shape
        else float("inf")
        for name, value in expected.items()
        if value.numel()
    )
    name = f"{processes} processes against one"
    report.add_row(name, len(first["applied"]), "", "", difference)
    report.check_at_least(f"{name}: edits", len(first["applied"]) * same_steps, len(SCRIPT))
    report.check_at_most(f"{name}: relative difference", difference, 1e-6)


def resumed(report: Report, processes: int, folder: Path) -> None:
    """Edit in the first epoch, resume from its end."""
    saving = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    whole = Module(normalized_net)
    requests = {
        4: AddFilters("net.0", 2), 12: RemoveFilters("net.6", [1, 4]), 18: Freeze("net.6", [0]),
        24: InsertLayer("net.6"),
    }  # fmt: skip
    data = loader(EDITED * processes, 4, torch.float32)
    [first, *_] = train(
        whole,
        data,
        folder / "whole",
        processes,
        new_driver(folder, Scripted(requests)),
        [saving],
        max_epochs=2,
    )
    checkpoint = folder / "epoch=0.ckpt"
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    for count in (processes, 1):
        again = Module(normalized_net)
        train(  # in one process, the batches would be others: the weights are only loaded
            again, data, folder / f"resumed{count}", count, new_driver(folder),
            max_epochs=2 if count == processes else 1, resume=checkpoint,
        )  # fmt: skip
        expected = whole.state_dict() if count == processes else saved
        weights = again.state_dict()
        different = sum(
            not torch.equal(weights[name], value) if name in weights else 1
            for name, value in expected.items()
            if value.numel()
        )
        name = f"resumed in {count} of {processes} processes"
        report.add_row(name, len(first["applied"]), different, "", "")
        report.check_at_least(f"{name}: edits", len(first["applied"]), len(requests))
        report.check_at_most(f"{name}: different tensors", different, 0)


def costs(report: Report, processes: int, steps: int, folder: Path) -> None:
    """Measure agreement in batches without a request, then an edit of a ResNet-18."""
    for label, make_net, count in (
        ("small network", normalized_net, 10 * steps), ("resnet18", resnet18, steps),
    ):  # fmt: skip
        module = Module(make_net)
        edits = {count - 12: AddFilters("net.layer1.0.conv1", 1)} if label == "resnet18" else {}
        driver = new_driver(folder, lambda batch, _, edits=edits: edits.get(batch))
        data = loader(count, 4 * processes, torch.float32, processes)
        results = train(module, data, folder / label, processes, driver)
        first = results[0]
        idle = 2 * (count - 20)  # two calls per batch, before the edit
        cost = max(sum(each["costs"][:idle]) / (count - 20) for each in results)
        step = statistics.median(first["times"][1 : count - 20])
        name = f"{label}, {processes} processes"
        wraps = _ms(first["wraps"])
        report.add_row(name, len(first["applied"]), "", wraps, "", cost * 1e3, step * 1e3)
        report.check_at_most(f"{name}: agreement per batch, ms", cost * 1e3, 0.2)
        report.check_at_most(f"{name}: agreement, share of a step", cost / step, 0.005)
        if edits:
            for reason in first["refused"]:
                report.add_note(f"{name}: refused: {reason}")
            seconds = [each for _, _, each in first["applied"]] or [float("inf")]
            report.add_note(f"{name}: the edit took {seconds[0] * 1e3:.0f} ms")
            report.check_at_most(f"{name}: new wrapper, s", max(first["wraps"] or seconds), 0.6)
            report.check_at_most(f"{name}: edit, in steps", seconds[0] / step, 1.0)


def _ms(seconds: Sequence[float]) -> float | str:
    return statistics.median(seconds) * 1e3 if seconds else ""


def main() -> int:
    parser = argument_parser(__doc__, quick="20 random edits, in about a minute")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--edits", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    columns = ["case", "edits", "different", "new wrapper, ms", "relative difference"]
    report = Report("Edits in several processes", [*columns, "agreement, ms", "step, ms"])
    report.add_note(f"exchanges are at least {agreement.SECONDS_BETWEEN * 1e3:.0f} ms apart")
    edits = 20 if options.quick else options.edits
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        against_one_process(report, options.processes, folder)
        resumed(report, options.processes, folder / "resume")
        costs(report, options.processes, 40, folder)
        report.save(options.json)
        random_edits(report, options.processes, edits, folder)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
