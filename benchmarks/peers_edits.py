"""ReVACNN and other tools: a filter removed from and added to eight small networks in training.

``python -m benchmarks.peers_edits [--tools ...] [--json FILE] [--check] [--quick]``

Each network trains for 30 batches of scikit-learn's digits in double precision, with Adam and with
SGD with momentum. Then a tool edits it as its documentation says. The filter that is removed is
dead by construction: all its weights, its bias, the entries of its norm, and the weights that read
it are zero, so the exact result is the same network. A filter is added to a network without a dead
filter; the exact result is the same function.

- output: largest relative change of the output at the edit, in evaluation mode.
- state: share of the optimizer's entries of surviving weights that are the same, bit for bit.
- loss: largest relative difference of the losses of the next 20 batches from those of the unedited
  network. For a removal, it must be zero up to rounding. A filter that was added learns, so the
  losses differ: this is for information.
- undo: whether weights, buffers and optimizer state are as before the edit, bit for bit.
- resume: whether a training that is saved after these batches and continues in new objects has the
  same next 5 losses, bit for bit.
- ms: duration of the edit, with all that the tool needs for it.

Each value is the worse one of both optimizers, the duration their mean. "not offered" means that
the documentation of the tool has no function for it. Tools that are not installed are named:
``pip install torch-pruning fasterai weightslab`` installs them.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.newborn import load_digit_images
from benchmarks.peers import TOOLS, ReVACNN, Tool
from benchmarks.peers.networks import NETWORKS, EditSubject, FilterHolder, silence_filters
from benchmarks.peers.tool import Batch
from benchmarks.report import Report, argument_parser, progress
from benchmarks.steering_models import eval_output, make_seeded, train_step

BEFORE, AFTER, RESUMED = 30, 20, 5  # batches before and after the edit, and after a resume
BATCH = 16
EXACT = 1e-9  # of values in double precision
QUICK = ["plain + linear", "residual"]
NOT_OFFERED = "not offered"

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "Adam": partial(torch.optim.Adam, lr=2e-3),
    "momentum": partial(torch.optim.SGD, lr=0.02, momentum=0.9),
}
COLUMNS = [
    "tool", "version", "edit", "network", "outcome", "output", "state", "loss", "undo", "resume",
    "ms",
]  # fmt: skip


def first_batches(count: int) -> list[Batch]:
    """Return the first batches of a training."""
    generator = torch.Generator().manual_seed(0)
    images, labels = load_digit_images()
    chosen = [torch.randint(len(images), (BATCH,), generator=generator) for _ in range(count)]
    return [(images[at].double(), labels[at]) for at in chosen]


def train_subject(
    subject: EditSubject, make: Callable[..., Optimizer], edit: str
) -> tuple[nn.Module, Any]:
    """Return the network and its optimizer after the first batches."""
    network = make_seeded(subject.make, 1).double()
    if edit == "remove":
        silence_filters(network, subject)
    optimizer = make(network.parameters())
    for batch in first_batches(BEFORE):
        train_step(network, optimizer, *batch)
    return network, optimizer


def start_tool(
    tool: type[Tool], subject: EditSubject, make: Callable[..., Optimizer], edit: str
) -> tuple[Tool, list[Batch]]:
    """Return the tool for a trained network, and the batches that come next."""
    batches = first_batches(BEFORE + AFTER + RESUMED)[BEFORE:]
    return tool(*train_subject(subject, make, edit), make, subject, batches), batches


class TrainingSnapshot:
    """A network in training, before its edit."""

    def __init__(self, tool: Tool) -> None:
        self.unseen = load_digit_images()[0][:64].double()
        self.output = eval_output(tool.network, self.unseen)
        self.values = copy.deepcopy(named_values(tool))
        self.weights = {name: p.detach().clone() for name, p in tool.network.named_parameters()}

    def output_change(self, tool: Tool) -> float:
        """Return the largest change of the output, relative to its largest value."""
        change = (eval_output(tool.network, self.unseen) - self.output).abs().max()
        return float(change / self.output.abs().max())

    def kept_state(self, tool: Tool, edit: str) -> float:
        """Return the share of the optimizer's entries of surviving weights that are unchanged."""
        holders = {holder.parameter: holder for holder in tool.subject.holders}
        filters = tool.subject.filters if edit == "remove" else self.new_filters(tool)
        now = named_values(tool)
        kept = total = 0
        for (name, key), old in self.values.items():
            if not key:
                continue
            new = now.get((name, key))
            if name in holders and edit == "remove":
                old = without_filters(old, holders[name], filters)
            elif name in holders and new is not None:
                new = without_filters(new, holders[name], filters)
            total += old.numel()
            if new is not None and new.shape == old.shape:
                kept += int((new == old).sum())
        return kept / total

    def new_filters(self, tool: Tool) -> list[int]:
        """Return the filters of the edited layer that are none of the old ones, by their values."""
        name = f"{tool.subject.layer}.weight"
        old = list(self.weights[name])
        new = []
        for index, result_row in enumerate(tool.network.get_parameter(name).detach()):
            if old and torch.equal(result_row, old[0]):
                old.pop(0)
            else:
                new.append(index)
        return new

    def is_restored(self, tool: Tool) -> bool:
        """Return whether the weights, buffers and optimizer state are those of the snapshot."""
        now = named_values(tool)
        return now.keys() == self.values.keys() and all(
            torch.equal(value, now[name]) for name, value in self.values.items()
        )


def named_values(tool: Tool) -> dict[tuple[str, str], Tensor]:
    """Return (name, "") -> weight or buffer, and (name, key) -> state of its optimizer."""
    values = {(name, ""): value for name, value in tool.network.state_dict().items()}
    for name, parameter in tool.network.named_parameters():
        for key, value in tool.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name, key] = value
    return values


def without_filters(tensor: Tensor, holder: FilterHolder, filters: list[int]) -> Tensor:
    """Return the tensor without the entries of these filters."""
    removed = set(holder.indices(filters))
    kept = [index for index in range(tensor.shape[holder.dim]) if index not in removed]
    return tensor.index_select(holder.dim, torch.tensor(kept))


def relative_loss_difference(losses: list[float], expected: list[float]) -> float:
    """Return the largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(losses, expected, strict=True))


def measure_edit(
    kind: type[Tool], subject: EditSubject, make: Callable[..., Optimizer], edit: str
) -> dict[str, Any]:
    """Edit one network and return what is in its row."""
    network, optimizer = train_subject(subject, make, edit)
    tool, batches = start_tool(kind, subject, make, edit)
    expected = [train_step(network, optimizer, *batch) for batch in batches[:AFTER]]
    result: dict[str, Any] = {"outcome": "done"}
    result |= {"undo": kind.undo_offered, "resume": kind.resume_offered}

    @contextmanager
    def observed() -> Iterator[None]:
        before = TrainingSnapshot(tool)
        yield
        result["output"] = before.output_change(tool)
        result["state"] = before.kept_state(tool, edit)

    losses = tool.edit(edit, observed)
    result["ms"] = 1000 * tool.seconds
    losses += tool.train(batches[len(losses) : AFTER])
    if len(losses) < AFTER:
        return result | {"outcome": f"{AFTER - len(losses)} of the next {AFTER} batches failed"}
    result["loss"] = relative_loss_difference(losses, expected)
    if kind.resumes:
        result["resume"] = is_resume_exact(tool, batches[AFTER:])
    if kind.measures_undo:
        result["undo"] = is_undo_exact(kind, subject, make, edit)
    return result


def is_resume_exact(tool: Tool, batches: list[Batch]) -> str:
    """Save and continue the training, and return whether the losses are the same."""
    with tempfile.TemporaryDirectory() as folder:
        other = tool.resume(Path(folder))
        is_exact = other.train(batches) == tool.train(batches)
    return f"exact, {tool.resumes}" if is_exact else "differs"


def is_undo_exact(
    kind: type[Tool], subject: EditSubject, make: Callable[..., Optimizer], edit: str
) -> str:
    """Edit and undo the edit, and return whether all is as before."""
    tool, _ = start_tool(kind, subject, make, edit)
    snapshot = TrainingSnapshot(tool)
    tool.edit(edit, nullcontext)
    tool.undo()
    return "bit-identical" if snapshot.is_restored(tool) else "differs"


def result_row(
    kind: type[Tool], name: str, edit: str, optimizers: dict[str, Callable[..., Optimizer]]
) -> dict[str, Any]:
    """Return the row of a tool, an edit and a network: the worse results of the optimizers."""
    values: dict[str, Any] = {"tool": kind.name, "version": kind.version(), "edit": edit}
    values["network"] = name
    results = []
    for make in optimizers.values():
        try:
            results.append(measure_edit(kind, NETWORKS[name], make, edit))
        except Exception as error:  # noqa: BLE001 - other tools may raise anything; it is reported
            return values | {"outcome": f"failed: {type(error).__name__}: {str(error)[:160]}"}
    values |= {
        "outcome": worst_word([r["outcome"] for r in results]),
        "output": max(r["output"] for r in results),
        "state": min(r["state"] for r in results),
        "undo": worst_word([r["undo"] for r in results]),
        "resume": worst_word([r["resume"] for r in results]),
        "ms": fmean(r["ms"] for r in results),
    }
    if all("loss" in r for r in results):
        values["loss"] = max(r["loss"] for r in results)
    return values


def worst_word(words: list[str]) -> str:
    """Return the word that says that something is different or has failed, if there is one."""
    return max(words, key=lambda text: text == "differs" or "failed" in text)


def result_rows(tools: list[type[Tool]], quick: bool) -> Iterator[dict[str, Any]]:
    """Measure all tools. One that is not installed has one row, and so has an edit it lacks."""
    names = QUICK if quick else list(NETWORKS)
    optimizers = {"Adam": OPTIMIZERS["Adam"]} if quick else OPTIMIZERS
    for kind in tools:
        if kind.version() is None:
            yield {"tool": kind.name, "outcome": "not installed"}
            continue
        for edit in ("remove", "add"):
            if edit in kind.edits:
                yield from (result_row(kind, name, edit, optimizers) for name in names)
            else:
                named = {"tool": kind.name, "version": kind.version(), "edit": edit}
                yield named | {"outcome": NOT_OFFERED}


def add_checks(report: Report, values: dict[str, Any]) -> None:
    """Add the checks of a row of ReVACNN. What other tools do is reported, never judged."""
    case = f"{values['edit']}, {values['network']}"
    done = values["outcome"] == "done"
    report.add_check(f"{case}: outcome", values["outcome"], "done", done)
    if not done:
        return
    report.check_at_most(f"{case}: output", values["output"], EXACT)
    report.check_at_least(f"{case}: state", values["state"], 1.0)
    if values["edit"] == "remove":
        report.check_at_most(f"{case}: loss", values["loss"], EXACT)
    for key, expected in (("undo", "bit-identical"), ("resume", f"exact, {ReVACNN.resumes}")):
        report.add_check(f"{case}: {key}", values[key], expected, values[key] == expected)


def main() -> int:
    parser = argument_parser(__doc__, quick="two networks, with Adam only")
    names = [tool.name for tool in TOOLS]
    parser.add_argument("--tools", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report("Edits of networks in training", COLUMNS)
    tools = [tool for tool in TOOLS if tool.name in options.tools]
    for values in progress(result_rows(tools, options.quick), "edits"):
        report.add_row(**values)
        if values["tool"] == ReVACNN.name:
            add_checks(report, values)
        report.save(options.json)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
