"""What the callback costs a training step, beside what others cost.

``python -m benchmarks.overhead [--models ...] [--threads ...] [--json FILE] [--check] [--quick]``

In one process, every way of watching trains a copy of the same network. A round takes two blocks
after each other, one of plain steps and one of watched steps, the first step of a block not
timed; the ratio of their times is one observation, and the table has the medians. Ours is the real
callback (all its hooks, called as Lightning calls them), publishing to a client in a process of its
own that reads everything. The peers do per batch what their users do.

The clock: ``wall`` is what a user feels. On a machine that other programs use at the same time,
``cpu`` (processor time of this process) is steadier; it counts what our own helper threads do.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import logging
import os
import resource
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.report import Report, progress_bar
from revacnn_lightning import ReVACNN
from revacnn_lightning.errors import RequestTimeout
from revacnn_lightning.telemetry import STATISTICS

BATCH = 64
LIMITS = {"always": {"mobilenet_v2": 1.03}, "everything": {"mobilenet_v2": 1.15}}
LIMIT = {"always": 1.02, "everything": 1.08}
ROUNDS = {"convnet": 30, "mobilenet_v2": 12, "vgg11_bn": 9, "resnet18": 6}
TIMED = 2  # steps of a block
PARTS = ("steps", "viewers", "memory")
ATTACH_SECONDS = 120

# A client that reads everything, 30 times a second, until the run has ended.
READER = """
import sys, time
from revacnn_lightning import attach
with attach(sys.argv[1], timeout=120) as run:
    print("reading", flush=True)
    while not run.is_gone():
        run.poll()
        time.sleep(1 / 30)
"""


# ---------------------------------------------------------------------- what is trained


def convnet() -> nn.Module:
    """The CIFAR-10 network of the original system: three convolutions of 5×5."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 20, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 20, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(320, 10),
    )


def resnet18() -> nn.Module:
    """With the stem that is usual for 32×32 images."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def vgg11_bn() -> nn.Module:
    """With the head that is usual for 32×32 images: its own has 90 % of the parameters."""
    model = torchvision.models.vgg11_bn(num_classes=10)
    model.avgpool = nn.Identity()
    model.classifier = nn.Linear(512, 10)
    return model


def mobilenet_v2() -> nn.Module:
    return torchvision.models.mobilenet_v2(num_classes=10)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "convnet": convnet,
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "vgg11_bn": vgg11_bn,
}


class Network(pl.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)


class Plain:
    """A training without anything that watches it."""

    name = "plain"

    def __init__(self, net: nn.Module) -> None:
        self.module = Network(net)
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-3, momentum=0.9)
        self.images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.labels = torch.arange(BATCH) % 10

    def begin(self) -> None:
        """Before a block of steps."""

    def end(self) -> None:
        """After it."""

    def close(self) -> None:
        """After the last block."""

    def before(self) -> None:
        """The first thing in a step."""

    def after(self, loss: Tensor) -> None:
        """The last thing in a step."""

    def step(self) -> None:
        self.before()
        self.optimizer.zero_grad()
        loss = self.module.training_step((self.images, self.labels), 0)
        loss.backward()
        self.optimizer.step()
        self.after(loss)


# ---------------------------------------------------------------------- ours


class Ours(Plain):
    """The callback, its hooks called as Lightning calls them."""

    def __init__(self, net: nn.Module, readers: int = 1, **options: Any) -> None:
        super().__init__(net)
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "connection.json"
        # Without a budget, or a busy machine would have statistics thinned out.
        self.callback = ReVACNN(connection_file=self.file, max_overhead=None, **options)
        self.trainer: Any = SimpleNamespace(
            accumulate_grad_batches=1,
            callback_metrics={},
            current_epoch=0,
            is_global_zero=True,
            max_epochs=1,
            num_training_batches=100_000,
            optimizers=[self.optimizer],
            precision_plugin=SimpleNamespace(train_step_context=contextlib.nullcontext),
            world_size=1,
        )
        self.index = 0
        self.callback.on_fit_start(self.trainer, self.module)
        self.begin()
        self.step()  # the structure is published after the first batch
        self.readers = [
            subprocess.Popen([sys.executable, "-c", READER, str(self.file)], stdout=subprocess.PIPE)
            for _ in range(readers)
        ]
        self._wait_for_readers()
        self.end()

    def _wait_for_readers(self) -> None:
        waited_for = {reader.stdout for reader in self.readers}
        deadline = time.monotonic() + ATTACH_SECONDS
        while waited_for:
            self.step()  # answers who asks
            waited_for -= set(select.select(waited_for, [], [], 0)[0])  # it has said something
            if time.monotonic() > deadline:
                raise RequestTimeout(f"no client has attached within {ATTACH_SECONDS} s")

    @property
    def session(self) -> Any:
        return self.callback._session

    def begin(self) -> None:
        self.session.recorder.attach()

    def end(self) -> None:
        self.session.recorder.detach()

    def before(self) -> None:
        batch = (self.images, self.labels)
        self.callback.on_train_batch_start(self.trainer, self.module, batch, self.index)

    def after(self, loss: Tensor) -> None:
        batch = (self.images, self.labels)
        self.callback.on_train_batch_end(
            self.trainer, self.module, {"loss": loss}, batch, self.index
        )
        self.index += 1
        if self.session is None:
            raise RuntimeError("the callback met an error of its own; see the log above")

    def close(self) -> None:
        self.callback.on_train_end(self.trainer, self.module)
        for reader in self.readers:
            with contextlib.suppress(ProcessLookupError):
                reader.send_signal(signal.SIGCONT)
            reader.kill()
            reader.wait()
        self.folder.cleanup()


# ---------------------------------------------------------------------- the peers


class TensorBoard(Plain):
    """`add_histogram` of the weights and the gradients of every parameter."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        from torch.utils.tensorboard import SummaryWriter

        self.folder = tempfile.TemporaryDirectory()
        self.writer = SummaryWriter(self.folder.name)
        self.index = 0

    def after(self, loss: Tensor) -> None:
        for name, parameter in self.module.named_parameters():
            self.writer.add_histogram(name, parameter, self.index)
            self.writer.add_histogram(f"{name}.grad", parameter.grad, self.index)
        self.index += 1

    def close(self) -> None:
        self.writer.close()
        self.folder.cleanup()


class Wandb(Plain):
    """`wandb.watch(log_freq=1)`, offline."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        import wandb

        os.environ["WANDB_SILENT"] = "true"
        self.folder = tempfile.TemporaryDirectory()
        self.wandb = wandb
        self.run = wandb.init(mode="offline", dir=self.folder.name, project="overhead")
        self.run.watch(self.module, log_freq=1)

    def after(self, loss: Tensor) -> None:
        self.run.log({})

    def close(self) -> None:
        self.run.unwatch(self.module)
        self.run.finish()
        self.folder.cleanup()


class PlainHooks(Plain):
    """What one writes in ten lines: a forward and a full backward hook on every conv."""

    def begin(self) -> None:
        self.values: dict[str, Any] = {}
        self.handles = []
        for name, conv in self.module.named_modules():
            if isinstance(conv, nn.Conv2d):
                self.handles += [
                    conv.register_forward_hook(self._forward(name)),
                    conv.register_full_backward_hook(self._backward(name)),
                ]

    def _forward(self, name: str) -> Callable[..., None]:
        def hook(conv: nn.Module, given: Any, output: Tensor) -> None:
            self.values[name, "activation"] = (
                output.detach().abs().sum((2, 3)).mean(0).cpu().numpy()
            )

        return hook

    def _backward(self, name: str) -> Callable[..., None]:
        def hook(conv: nn.Module, to_input: Any, to_output: Any) -> None:
            self.values[name, "activation_gradient"] = (
                to_output[0].abs().mean((0, 2, 3)).cpu().numpy()
            )

        return hook

    def after(self, loss: Tensor) -> None:
        for name, conv in self.module.named_modules():
            if isinstance(conv, nn.Conv2d):
                assert conv.weight.grad is not None
                self.values[name, "gradient"] = conv.weight.grad.abs().mean((1, 2, 3)).numpy()
                self.values[name, "weight_norm"] = (
                    conv.weight.detach().flatten(1).norm(dim=1).numpy()
                )

    def end(self) -> None:
        for handle in self.handles:
            handle.remove()


PEERS: dict[str, type[Plain]] = {
    "TensorBoard": TensorBoard,
    "wandb.watch": Wandb,
    "plain hooks": PlainHooks,
}


# ---------------------------------------------------------------------- measuring


def block(variant: Plain, clock: Callable[[], float]) -> float:
    """Seconds of a step, the first one not counted."""
    variant.begin()
    variant.step()
    begin = clock()
    for _ in range(TIMED):
        variant.step()
    elapsed = clock() - begin
    variant.end()
    return elapsed / TIMED


def ratio_of(
    plain: Plain, variant: Plain, rounds: int, clock: Callable[[], float], tick: Callable[..., None]
) -> tuple[float, list[float]]:
    """(median of watched / plain, plain seconds of each round)."""
    ratios, seconds = [], []
    for index in range(rounds):
        pair = [plain, variant] if index % 2 else [variant, plain]
        times = {id(each): block(each, clock) for each in pair}
        ratios.append(times[id(variant)] / times[id(plain)])
        seconds.append(times[id(plain)])
        tick(1)
    return statistics.median(ratios), seconds


@contextlib.contextmanager
def opened(make: Callable[[], Plain]) -> Iterator[Plain]:
    variant = make()
    try:
        yield variant
    finally:
        variant.close()


def measure_model(
    report: Report, name: str, threads: int, rounds: int, peers: list[str], options: Any
) -> None:
    """One row of the table, and its checks."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = MODELS[name]()
    variants: dict[str, Callable[[], Plain]] = {
        "always": lambda: Ours(copy.deepcopy(net)),
        "everything": lambda: Ours(copy.deepcopy(net), statistics=STATISTICS),
    }
    for peer in peers:
        variants[peer] = lambda kind=PEERS[peer]: kind(copy.deepcopy(net))  # type: ignore[misc]
    plain = Plain(copy.deepcopy(net))
    for _ in range(3):
        plain.step()
    ratios: dict[str, float] = {}
    seconds: list[float] = []
    total = sum(rounds if v in LIMIT else max(3, rounds // 3) for v in variants)
    with progress_bar(total, f"{name}, {threads} thread(s)") as tick:
        for key, make in variants.items():
            count = rounds if key in LIMIT else max(3, rounds // 3)
            with opened(make) as variant:
                ratios[key], each = ratio_of(plain, variant, count, options.clock, tick)
            seconds += each
            del variant
            gc.collect()
    milliseconds = 1000 * statistics.median(seconds)
    report.row(name, threads, milliseconds, *(f"{r:.3f}" for r in ratios.values()))
    for key in LIMIT:
        limit = LIMITS[key].get(name, LIMIT[key])
        report.check(
            f"{key}, {name}, {threads} thread(s)", ratios[key], f"≤ {limit}", ratios[key] <= limit
        )
    for peer in peers:
        extra, theirs = ratios["always"] - 1, ratios[peer] - 1
        report.check(
            f"extra cost of always / {peer}, {name}, {threads} thread(s)",
            f"{max(extra, 0):.4f} / {theirs:.4f}",
            "≤ 1/5",
            extra <= theirs / 5,
        )


# ---------------------------------------------------------------------- the viewer's state


def measure_viewers(report: Report, rounds: int, options: Any) -> None:
    """Does it matter to the training what the viewers do? And how long does publishing take?"""
    torch.set_num_threads(1)
    net = convnet()
    plain = Plain(copy.deepcopy(net))
    states = {"absent": 0, "reading": 1, "frozen": 1, "killed": 1, "8 reading": 8}
    reference = None
    with progress_bar(rounds * len(states), "viewers") as tick:
        for state, readers in states.items():
            with opened(lambda n=readers: Ours(copy.deepcopy(net), readers=n)) as ours:  # type: ignore[misc]
                assert isinstance(ours, Ours)
                for reader in ours.readers:
                    if state in ("frozen", "killed"):
                        reader.send_signal(signal.SIGSTOP if state == "frozen" else signal.SIGKILL)
                times = _time_publishing(ours)
                ratio, _ = ratio_of(plain, ours, rounds, options.clock, tick)
            p99 = 1000 * float(np.quantile(times, 0.99))
            report.row(f"convnet, viewer {state}", 1, "", f"{ratio:.3f}")
            report.check(f"publish p99, viewer {state} (ms)", p99, "≤ 1", p99 <= 1)
            if reference is None:
                reference = ratio
            elif state != "8 reading" or options.cores > 8:  # eight readers need processors too
                change = ratio - reference
                report.check(
                    f"change of the ratio, viewer {state}", change, "≤ 0.02", change <= 0.02
                )


def _time_publishing(ours: Ours) -> list[float]:
    """Have every publish timed, in seconds."""
    publisher = ours.session._publisher
    publish, times = publisher.publish, []

    def timed(message: Any) -> None:
        begin = time.perf_counter()
        publish(message)
        times.append(time.perf_counter() - begin)

    publisher.publish = timed
    return times


# ---------------------------------------------------------------------- memory


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def current_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def train_for_memory(name: str, watched: bool) -> None:
    """In a process of its own: print the peak after some steps."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = MODELS[name]()
    variant = Ours(net, readers=0) if watched else Plain(net)
    variant.begin()
    for _ in range(5):
        variant.step()
    print(peak_megabytes())
    variant.close()


def train_for_growth(batches: int) -> None:
    """In a process of its own: print the memory after a fifth of the batches, and after all."""
    torch.set_num_threads(1)
    convs = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 3)]
    ours = Ours(nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten()), readers=0)
    ours.images, ours.labels = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)
    ours.begin()
    for index in range(batches):
        ours.step()
        if index + 1 in (batches // 5, batches):
            print(current_megabytes())
    ours.close()


def measure_memory(report: Report, models: list[str], batches: int) -> None:
    """Peak with and without us, and growth."""
    for name in models:
        peaks = {
            watched: statistics.median(
                float(_elsewhere("--memory", name, *(["--watched"] if watched else [])))
                for _ in range(3)
            )
            for watched in (False, True)
        }
        share = peaks[True] / peaks[False] - 1
        report.check(
            f"memory, {name}: share of the peak of {peaks[False]:.0f} MB", share, "≤ 0.01",
            share <= 0.01,
        )  # fmt: skip
    early, late = map(float, _elsewhere("--growth", str(batches)).split())
    report.check(
        f"memory: growth over the last 4/5 of {batches} batches (MB)",
        late - early,
        "≤ 0.5",
        late - early <= 0.5,
    )


def _elsewhere(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


# ---------------------------------------------------------------------- the command


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is missed")
    parser.add_argument("--quick", action="store_true", help="under a minute: one small model")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for hidden in ("--memory", "--growth"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--watched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.clock_name = options.clock
    options.clock = time.perf_counter if options.clock == "wall" else time.process_time
    options.cores = os.cpu_count() or 1
    return options


def available(peers: list[str], report: Report) -> list[str]:
    """The peers that are installed."""
    found = []
    for peer in peers:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if peer == "TensorBoard":
                    import torch.utils.tensorboard  # noqa: F401
                elif peer == "wandb.watch":
                    import wandb  # noqa: F401
        except ImportError as error:
            report.note(f"{peer} is not measured: {error}")
        else:
            found.append(peer)
    return found


def main() -> int:
    options = parsed()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    if options.memory:
        train_for_memory(options.memory, options.watched)
        return 0
    if options.growth:
        train_for_growth(int(options.growth))
        return 0
    models = ["convnet"] if options.quick else options.models
    threads = options.threads[:1] if options.quick else options.threads
    report = Report("Step with / step without", [])
    peers = available(options.peers, report)
    report.columns = ["model", "threads", "plain (ms)", "always", "everything", *peers]
    for count in threads if "steps" in options.parts else []:
        for name in models:
            rounds = ROUNDS[name] // 2 if options.quick else ROUNDS[name]
            measure_model(report, name, count, rounds, peers, options)
    if "viewers" in options.parts:
        measure_viewers(report, 6 if options.quick else 25, options)
    if "memory" in options.parts and not options.quick:
        measure_memory(report, options.models, 10_000)
    report.note(
        f"median of interleaved pairs, {options.clock_name} clock, batch {BATCH}, "
        f"load average {os.getloadavg()[0]:.1f} on {options.cores} processors"
    )
    exit_code: int = report.finish(options.json, options.check)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
