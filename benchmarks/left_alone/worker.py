"""Judges the cases named on the command line; prints one JSON line before and after each."""

from __future__ import annotations

import json
import logging
import sys
import traceback

import torch

from benchmarks.left_alone import cases  # noqa: F401 - fills the table
from benchmarks.left_alone.judge import Verdict, judge
from benchmarks.left_alone.registry import CASES

MARK = "verdict:"  # in front of the lines that are meant for the parent


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in names:
        try:
            verdict = judge(CASES[name])
        except Exception:  # noqa: BLE001 - of the benchmark itself; reported
            verdict = Verdict(name, callback=f"benchmark: {traceback.format_exc()[-600:]}")
        print()  # a progress bar may not have ended its line
        print(MARK + json.dumps(verdict.to_dict()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
