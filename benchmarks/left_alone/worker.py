"""Judges cases on an accelerator, both from the command line; prints a JSON line after each."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback

import torch

from benchmarks.left_alone import cases, training  # noqa: F401 - fills the table
from benchmarks.left_alone.judge import CaseVerdict, judge_case
from benchmarks.left_alone.registry import CASES

MARK = "verdict:"  # in front of the lines that are meant for the parent


def main(accelerator: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    training.QUIET["accelerator"] = accelerator
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in names:
        if accelerator == "gpu":
            _make_cuda_deterministic()  # for each: a case may have changed it
        try:
            verdict = judge_case(CASES[name])
        except Exception:  # noqa: BLE001 - of the benchmark itself; reported
            verdict = CaseVerdict(name, callback=f"benchmark: {traceback.format_exc()[-600:]}")
        print()  # a progress bar may not have ended its line
        print(MARK + json.dumps(verdict.to_dict()), flush=True)


def _make_cuda_deterministic() -> None:
    """Choose kernels whose results are bit-identical each time, where there are any."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False  # the outputs are compared in full precision


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
