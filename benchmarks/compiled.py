"""Edits of networks that ``torch.compile`` has compiled.

``python -m benchmarks.compiled [--edits N] [--backend NAME] [--json FILE] [--check] [--quick]``

A network is trained in a loop, compiled with ``fullgraph=True`` and edited at random. After each
edit, the compiled network is compared with the same network run without compiled code. Compilations
are counted as the page counts them. The backend is inductor where there is a C++ compiler, else
``aot_eager``.
"""

from __future__ import annotations

import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.report import Report, argument_parser, progress
from benchmarks.steering_fuzz import Fuzzer
from revacnn_lightning import EditRefusedError, LoopRun, Redo, Undo, monitor

__all__ = ["LIMIT", "difference_to_eager"]

LIMIT = 1e-5  # relative difference of the outputs
BATCHES_PER_EDIT = 3  # one shows how training uses the network, before the next one it is edited
WAYS = ("torch.compile", "Module.compile")


def difference_to_eager(compiled: nn.Module, images: Tensor) -> float:
    """Return how much the output of a compiled network differs from that of the eager one."""
    with torch.no_grad():
        output = compiled(images)
        with torch.compiler.set_stance("force_eager"):
            expected = compiled(images)
    return float((output - expected).norm() / expected.norm())


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


class RandomEdits(Fuzzer):
    """Random requests for a network in training; about every sixth one is an undo or a redo."""

    def __init__(self, model: nn.Module) -> None:
        self.random = random.Random(0)
        self.model = model
        self.initial_widths = {name: conv.out_channels for name, conv in self._convs()}

    def next_request(self, journal: Any) -> Any:
        chance = self.random.random()
        if chance < 0.1 and journal.undoable:
            return Undo(1)
        if chance < 0.17 and journal.undone:
            return Redo(1)
        return self.random_request()


class CompiledTraining:
    """A training of a compiled network. ``seconds`` are those of each batch."""

    def __init__(self, how: str, backend: str) -> None:
        self.model = make_network()
        if how == "torch.compile":
            self.called: nn.Module = torch.compile(self.model, backend=backend, fullgraph=True)  # type: ignore[assignment]
        else:
            self.model.compile(backend=backend, fullgraph=True)
            self.called = self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.images = torch.randn(8, 3, 12, 12)
        self.labels = torch.arange(8) % 4
        self.seconds: list[float] = []

    def train(self, run: LoopRun) -> None:
        started = perf_counter()
        with run.batch((self.images, self.labels)):
            loss = nn.functional.cross_entropy(self.called(self.images), self.labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            run.log(loss=loss)
        self.seconds.append(perf_counter() - started)


def edit_randomly(report: Report, how: str, backend: str, edits: int, folder: Path) -> None:
    """Apply random edits, and compare the compiled network after each one."""
    torch._dynamo.reset()
    loop = CompiledTraining(how, backend)
    requests = RandomEdits(loop.model)
    differences, after = [], []
    applied = refused = eager = 0
    with monitor(loop.called, loop.optimizer, directory=folder) as run:
        session: Any = run._monitor.session
        loop.train(run)
        bar = progress(iter(lambda: applied < edits, False), f"{how}, {backend}", total=None)
        for _ in bar:
            before = session._compilations.count
            reply = run.steer(requests.next_request(session._editor.journal))
            for _ in range(BATCHES_PER_EDIT):
                loop.train(run)
            try:
                plan = reply.result().plan
            except EditRefusedError:
                refused += 1
                continue
            applied += 1
            has_changed = plan.parameters_before != plan.parameters_after
            eager += has_changed and session._compilations.count == before
            after.append(max(loop.seconds[-BATCHES_PER_EDIT:]))
            differences.append(difference_to_eager(loop.called, loop.images))
        compilations, seconds = session._compilations.count, session._compilations.seconds
        alerts = list(session._alerts.shown)
    report.add_row(
        how, backend, applied, refused, max(differences), compilations, seconds / compilations,
        median(after), median(loop.seconds) * 1e3,
    )  # fmt: skip
    name = f"{how}, {backend}"
    report.check_at_most(f"{name}: relative difference after an edit", max(differences), LIMIT)
    given_up = sum(alert.kind == "not_compiled" for alert in alerts)
    report.check_at_most(f"{name}: given up by the compiler", given_up, 0)
    report.check_at_most(f"{name}: edits after which nothing was compiled", eager, 0)


def default_backend(which: Callable[[str], Any] = shutil.which) -> str:
    """Return inductor where it can compile for a CPU, else aot_eager."""
    return "inductor" if any(map(which, ("g++", "clang++", "c++"))) else "aot_eager"


def main() -> int:
    parser = argument_parser(__doc__, quick="3 edits with aot_eager")
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--backend", default=default_backend())
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("revacnn_lightning").setLevel(logging.ERROR)
    report = Report(
        "Edits of compiled networks",
        ["compiled by", "backend", "edits", "refused", "relative difference", "compilations",
         "seconds each", "slowest batch after an edit, s", "batch, ms"],
    )  # fmt: skip
    edits = 3 if options.quick else options.edits
    backend = "aot_eager" if options.quick else options.backend
    with tempfile.TemporaryDirectory() as name:
        for how in WAYS:
            edit_randomly(report, how, backend, edits, Path(name))
            report.save(options.json)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
