"""Judges cases in processes, so that none can hang or crash the benchmark."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from benchmarks.left_alone.judge import CaseVerdict
from benchmarks.left_alone.worker import MARK

__all__ = ["judge_in_processes"]

START_SECONDS = 120.0  # a process imports torch first
CASES_PER_PROCESS = 12  # keep the consequences of a case from those that follow


def judge_in_processes(
    names: list[str], jobs: int, seconds: float, accelerator: str
) -> Iterator[CaseVerdict]:
    """Yield the verdict of each case as it arrives.

    Args:
        names: Names of cases.
        jobs: The number of processes at a time.
        seconds: The time limit of a case. A case that exceeds it fails.
        accelerator: As Lightning's ``Trainer(accelerator=...)`` names it.
    """
    todo: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    for i in range(0, len(names), CASES_PER_PROCESS):
        todo.put(names[i : i + CASES_PER_PROCESS])
    found: queue.SimpleQueue[CaseVerdict] = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                chunk = todo.get_nowait()
            except queue.Empty:
                return
            while chunk:
                chunk = _judge_chunk(chunk, seconds, accelerator, found)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for _ in names:
        yield found.get()
    for thread in threads:
        thread.join()


def _judge_chunk(
    names: list[str], seconds: float, accelerator: str, found: queue.SimpleQueue[CaseVerdict]
) -> list[str]:
    """Judge cases in one process; return those that it did not reach."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.left_alone.worker", accelerator, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    left = list(names)
    reason = "the process ended"
    limit = START_SECONDS + seconds
    while left:
        try:
            line = lines.get(timeout=limit)
        except queue.Empty:
            reason = f"not done after {limit:g} s"
            break
        if line is None:
            break
        if line.startswith(MARK):
            found.put(CaseVerdict(**json.loads(line.removeprefix(MARK))))
            left.pop(0)
            limit = seconds
    if left:
        found.put(CaseVerdict(left.pop(0), callback=reason))
    _kill(process)
    reader.join()
    return left


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process with the loader workers that it may have started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
