"""Edits of a training in several ranks, with DistributedDataParallel and gloo on one machine.

``python -m benchmarks.distributed [--processes N] [--edits N] [--json FILE] [--check] [--quick]``

1. The same edits in several ranks and in one process (`one_process`).
2. A resume from the checkpoint of an edited run, and of a plain one (`resume`).
3. What agreement, an edit and the new wrapper cost (`measure_costs`).
4. A rank that is stopped, and one that is killed (`check_lost_rank`).
5. Random edits; all ranks are compared after each (`check_random_edits`).
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.distributed.costs import measure_costs
from benchmarks.distributed.lost_rank import check_lost_rank
from benchmarks.distributed.one_process import compare_with_one_process
from benchmarks.distributed.random_edits import check_random_edits
from benchmarks.distributed.resume import check_resume, check_resume_in_new_buckets
from benchmarks.report import Report, argument_parser
from revacnn_lightning.runtime.ranks import agreement


def main() -> int:
    parser = argument_parser(__doc__, quick="20 random edits, in about a minute")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--edits", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    columns = ["case", "edits", "different", "new wrapper, ms", "relative difference"]
    report = Report("Edits in several processes", [*columns, "agreement, ms", "step, ms"])
    report.add_note(
        f"exchanges are at least {agreement.IDLE_SECONDS_BETWEEN * 1e3:.0f} ms apart, and "
        f"{agreement.SECONDS_BETWEEN * 1e3:.0f} ms while a viewer is attached"
    )
    edits = 20 if options.quick else options.edits
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compare_with_one_process(report, options.processes, folder)
        check_resume(report, options.processes, folder / "resume")
        if not options.quick:
            check_resume_in_new_buckets(report, options.processes, folder / "buckets")
        measure_costs(report, options.processes, 40, folder)
        check_lost_rank(report, 6.0 if options.quick else 30.0, folder / "lost")
        report.save(options.json)
        check_random_edits(report, options.processes, edits, folder)
    return report.finish(options.json, options.check)


if __name__ == "__main__":
    sys.exit(main())
