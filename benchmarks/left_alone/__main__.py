"""Small trainings that ReVACNN must leave alone, and whose edits must be exact.

``python -m benchmarks.left_alone [--only NAME ...] [--jobs N] [--accelerator gpu]
[--json FILE] [--check] [--quick]``

Each case is a pattern of PyTorch's or Lightning's documentation, and is trained four times:

- plain: without ReVACNN.
- callback: with it, and nobody attached.
- client: a client attaches, opens a layer and a filter, and receives everything.
- edits: filters are added and removed, a layer is inserted, and edits are undone, with a client.

Without edits, everything must be bit-identical to plain: weights, buffers, gradients, attributes,
optimizers, schedulers, callbacks, losses, batches, logged metrics, files and random states. Each
edit must be exact, or refused with a reason that names a layer or what holds it, and training must
go on to the end. Nothing may be left on modules, parameters and optimizers, in torch, or as ports,
files or threads.

The column "edits" shows the number of edits that were exact, and of those that were refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.left_alone import cases  # noqa: F401 - fills the table
from benchmarks.left_alone.judge import OK, CaseVerdict
from benchmarks.left_alone.processes import judge_in_processes
from benchmarks.left_alone.registry import CASES
from benchmarks.report import Report, argument_parser, progress

MIN_CASES = 60
MIN_EXACT = 0.75  # share of the cases with exact edits, so that refusals alone do not pass
SHOWN = 110  # characters of a reason


def main() -> int:
    parser = argument_parser(__doc__, quick="a dozen cases")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[*CASES], default=[])
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--seconds", type=float, default=90.0, help="time limit of a case")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    options = parser.parse_args()
    names = options.only or [n for n, c in CASES.items() if c.quick or not options.quick]
    found = judge_in_processes(names, options.jobs, options.seconds, options.accelerator)
    report = Report("Trainings with ReVACNN", ["group", "case", *COLUMNS, "s"])
    verdicts: list[CaseVerdict] = []
    for verdict in progress(found, "training", len(names)):
        verdicts.append(verdict)
        report.add_row(CASES[verdict.case].group, verdict.case, *_cells(verdict), verdict.seconds)
        report.notes += _details(verdict)
        report.save(options.json)
    report.rows.sort(key=lambda row: names.index(row["case"]))
    failed = [verdict.case for verdict in verdicts if not verdict.ok]
    report.check_at_most("cases that fail", len(failed), 0)
    if not options.only and not options.quick:
        report.check_at_least("cases", len(verdicts), MIN_CASES)
        steerable = [v for v in verdicts if CASES[v.case].observable]
        share = sum(v.exact > 0 for v in steerable) / len(steerable)
        report.check_at_least("share of cases with exact edits", share, MIN_EXACT)
    return report.finish(options.json, options.check)


COLUMNS = ("callback", "client", "edits", "left")


def _cells(verdict: CaseVerdict) -> Iterator[str]:
    for column in COLUMNS:
        text = getattr(verdict, column)
        if column == "edits" and text == OK:
            text = f"{verdict.exact} exact" if verdict.exact else "-"
            if verdict.refusals:
                text += f", {len(verdict.refusals)} refused"
        yield text if len(text) <= 30 else "fails"


def _details(verdict: CaseVerdict) -> Iterator[str]:
    for column in COLUMNS:
        if getattr(verdict, column) != OK:
            yield f"{verdict.case} · {column}: {getattr(verdict, column)}"
    if verdict.refusals:
        yield f"{verdict.case} · refused: {verdict.refusals[0][:SHOWN]}"
    if verdict.unchecked:
        yield f"{verdict.case} · output not compared: {verdict.unchecked[:SHOWN]}"


if __name__ == "__main__":
    sys.exit(main())
