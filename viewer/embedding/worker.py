"""Computes projections in a separate process without blocking the server.

A newer job of the same key replaces one that has not started. If a job crashes or takes too long,
its process is ended, the job is reported as a `ProjectionFailure`, and a new process is started.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

from msgspec import Struct

import revacnn_lightning

from .projection import Method, Projection, ProjectionJob
from .worker_main import MethodReady, ProjectionResult, WorkerMessage, read_frame, write_frame

__all__ = ["EmbeddingWorker", "ProjectionFailure"]

VIEWER = Path(__file__).parents[1]  # its name differs between a clone and an installation

log = logging.getLogger(__name__)

JOB_SECONDS = 10.0
START_SECONDS = 120.0  # for imports and UMAP's compilation, on a busy machine
# A process that gets little CPU time on a busy machine may take this many times longer.
STARVED_FACTOR = 6
MAX_FAILED_STARTS = 3
CLOSE_SECONDS = 5.0
IDLE_FACTOR = 1.0  # idle time after an updated projection, relative to its computing time


class ProjectionFailure(Struct, frozen=True):
    """Reason why a projection could not be computed."""

    reason: str


Results = list[tuple[Hashable, Projection | ProjectionFailure]]


class EmbeddingWorker:
    """A process that computes projections. Not thread-safe: use it from one thread.

    Args:
        command: the command that starts the process; replaced in tests.
        max_seconds: seconds a job may take.
    """

    def __init__(
        self, command: Sequence[str] | None = None, *, max_seconds: float = JOB_SECONDS
    ) -> None:
        module = f"{VIEWER.name}.embedding.worker_main"
        self._command = list(command or [sys.executable, "-m", module])
        self._limit = max_seconds
        self._waiting: dict[Hashable, ProjectionJob] = {}  # in order of execution
        self._current: tuple[Hashable, ProjectionJob] | None = None
        self._waiting_since = 0.0  # monotonic start of waiting for the process
        self._idle_until = 0.0  # monotonic
        self._ready: set[Method] = set()
        self._failed_starts = 0
        self._process: _WorkerProcess | None = None
        self._start()

    def submit(self, key: Hashable, job: ProjectionJob) -> None:
        """Submit a job. It replaces a job of the same key that has not started."""
        self._waiting[key] = job

    def is_busy(self, key: Hashable) -> bool:
        """Return whether a job of this key is waiting or running."""
        return key in self._waiting or (self._current is not None and self._current[0] == key)

    def cancel(self, key: Hashable) -> None:
        """Cancel the job of this key if it has not started."""
        self._waiting.pop(key, None)

    def poll(self) -> Results:
        """Return the results since the last call, and start the next job. Never blocks."""
        results: Results = []
        for message in self._process.receive() if self._process is not None else []:
            if message is None:
                self._end_process("the projection process has died", results)
                break
            if isinstance(message, MethodReady):
                self._ready.add(message.method)
                self._failed_starts = 0
                self._waiting_since = time.monotonic()
            elif isinstance(message, ProjectionResult) and self._current is not None:
                results.append((self._current[0], message.projection))
                now = time.monotonic()
                self._idle_until = now + IDLE_FACTOR * (now - self._waiting_since)
                self._current = None
        self._check_timeout(results)
        self._start_next(results)
        return results

    def close(self) -> None:
        """End the process and drop all jobs."""
        self._waiting.clear()
        self._current = None
        if self._process is not None:
            self._process.end()
            self._process = None

    def _start(self) -> None:
        self._ready.clear()
        self._waiting_since = time.monotonic()
        self._process = _WorkerProcess(self._command)

    def _check_timeout(self, results: Results) -> None:
        """End a process that takes too long to start or to finish a job."""
        if self._process is None or (self._current is None and self._ready):
            return
        # UMAP is compiled in parallel with the first jobs and slows them down.
        is_warm = self._current is not None and "umap" in self._ready
        limit = self._limit if is_warm else START_SECONDS
        waited = time.monotonic() - self._waiting_since
        may_wait = waited <= STARVED_FACTOR * limit and self._process.is_starved(limit)
        if waited > limit and not may_wait:
            self._end_process(f"no projection within {limit:g} s", results)

    def _end_process(self, reason: str, results: Results) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None
        if not self._ready:
            self._failed_starts += 1
        log.warning("Projections: %s; restarting the process", reason)
        if self._current is not None:
            results.append((self._current[0], ProjectionFailure(reason)))
            self._current = None
        if self._failed_starts < MAX_FAILED_STARTS:
            self._start()

    def _start_next(self, results: Results) -> None:
        """Start the next job if the process is free."""
        if self._process is None:
            reason = "the projection process does not start; see the server's log"
            results += [(key, ProjectionFailure(reason)) for key in self._waiting]
            self._waiting.clear()
        elif self._current is None and self._ready and (key := self._next_key()) is not None:
            self._current = (key, self._waiting.pop(key))
            self._waiting_since = time.monotonic()
            self._process.send(self._current[1])

    def _next_key(self) -> Hashable | None:
        """Return the key of the next job, or None.

        The user waits for first projections. Updates leave the processor to the training and the
        page for as long as the last job took.
        """
        for key, job in self._waiting.items():
            if job.last is None or time.monotonic() >= self._idle_until:
                return key
        return None


class _WorkerProcess:
    """The process, and the thread that exchanges messages with it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        self._cpu_clock = _CpuClock(self._process.pid)
        self._cpu_at_send = 0.0  # seconds
        self._outbox: queue.SimpleQueue[ProjectionJob | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[WorkerMessage | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._exchange, daemon=True)
        self._thread.start()

    def send(self, job: ProjectionJob) -> None:
        self._cpu_at_send = self._cpu_clock.read()[1]
        self._outbox.put(job)

    def is_starved(self, seconds: float) -> bool:
        """Return whether it is running but has had less CPU time than this for the job."""
        is_running, cpu = self._cpu_clock.read()
        return is_running and cpu - self._cpu_at_send < seconds

    def receive(self) -> list[WorkerMessage | None]:
        """Return the messages since the last call; None is the last if the process has died."""
        messages = []
        while not self._inbox.empty():
            messages.append(self._inbox.get_nowait())
        return messages

    def end(self) -> None:
        self._outbox.put(None)
        self._process.kill()
        self._process.wait(CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        self._cpu_clock.close()

    def _exchange(self) -> None:
        """Send one job at a time and receive its messages until its result, in a thread."""
        stdout, stdin = self._process.stdout, self._process.stdin
        assert stdout is not None
        assert stdin is not None
        try:
            with stdout, stdin:
                self._inbox.put(read_frame(stdout))
                while (job := self._outbox.get()) is not None:
                    write_frame(stdin, job)
                    message: WorkerMessage | None = None
                    while not isinstance(message, ProjectionResult):
                        message = read_frame(stdout)
                        self._inbox.put(message)
        except (EOFError, OSError):
            self._inbox.put(None)


class _CpuClock:
    """CPU time of a process; Linux only. Keeps the file open, because every job reads it."""

    def __init__(self, pid: int) -> None:
        try:
            self._file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        except OSError:
            self._file = -1

    def read(self) -> tuple[bool, float]:
        """Return whether the process is runnable, and its CPU time in seconds."""
        if self._file < 0:
            return False, 0.0
        try:
            fields = os.pread(self._file, 4096, 0).rsplit(b")", 1)[1].split()
        except OSError:  # the process has ended
            return False, 0.0
        return fields[0] == b"R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _environment() -> dict[str, str]:
    """Return this process's environment, single-threaded and with our import paths."""
    threads = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "NUMEXPR")
    library = Path(revacnn_lightning.__file__).parents[1]
    path = [str(library), *(place for place in sys.path if place), str(VIEWER.parent)]
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": "1" for name in threads},
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",
    }
