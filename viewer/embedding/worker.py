"""Has layouts computed in a process of its own, without ever waiting for it.

The newest job of a key replaces one that has not begun. A job that takes too long, or that
crashes, ends the process; it is reported as a `Failure`, and a new process does the next job.
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
from .worker_main import Message, Ready, Result, read_frame, write_frame

__all__ = ["EmbeddingWorker", "Failure"]

VIEWER = Path(__file__).parents[1]  # its name differs between a clone and an installation

log = logging.getLogger(__name__)

LIMIT_SECONDS = 10.0  # for a job
START_LIMIT_SECONDS = 120.0  # for imports and UMAP's compilation, on a busy machine
PATIENCE = 6  # times the limit, for a process that computes but is hardly let to
MOST_FAILED_STARTS = 3
CLOSE_SECONDS = 5.0
REST = 1.0  # after a layout that was only brought up to date, times as long as that took


class Failure(Struct, frozen=True):
    """Why there is no layout, in a sentence."""

    reason: str


class EmbeddingWorker:
    """One process that lays filters out. Not thread-safe: submit and poll from one thread.

    Args:
        command: starts the process (tests put another in its place).
        limit: seconds a job may take.
    """

    def __init__(
        self, command: Sequence[str] | None = None, *, limit: float = LIMIT_SECONDS
    ) -> None:
        module = f"{VIEWER.name}.embedding.worker_main"
        self._command = list(command or [sys.executable, "-m", module])
        self._limit = limit
        self._waiting: dict[Hashable, ProjectionJob] = {}  # in the order in which they are done
        self._current: tuple[Hashable, ProjectionJob] | None = None
        self._since = 0.0  # monotonic time since when we wait for the process
        self._rested = 0.0  # monotonic time from which it may go on with what can wait
        self._ready: set[Method] = set()
        self._failed_starts = 0
        self._child: _Child | None = None
        self._start()

    def submit(self, key: Hashable, job: ProjectionJob) -> None:
        """Have a layout computed. One of the same key that has not begun is forgotten."""
        self._waiting[key] = job

    def is_busy(self, key: Hashable) -> bool:
        """Whether a layout for this key is awaited or being computed."""
        return key in self._waiting or (self._current is not None and self._current[0] == key)

    def cancel(self, key: Hashable) -> None:
        """Do not compute what has not begun for this key."""
        self._waiting.pop(key, None)

    def poll(self) -> list[tuple[Hashable, Projection | Failure]]:
        """What has been done since the last call. Never waits."""
        done: list[tuple[Hashable, Projection | Failure]] = []
        for message in self._child.receive() if self._child is not None else []:
            if message is None:
                self._end_child("the process that computes layouts has died", done)
                break
            if isinstance(message, Ready):
                self._ready.add(message.method)
                self._failed_starts = 0
                self._since = time.monotonic()
            elif isinstance(message, Result) and self._current is not None:
                done.append((self._current[0], message.layout))
                now = time.monotonic()
                self._rested = now + REST * (now - self._since)
                self._current = None
        self._check_time(done)
        self._dispatch(done)
        return done

    def close(self) -> None:
        """End the process. Nothing is computed any more."""
        self._waiting.clear()
        self._current = None
        if self._child is not None:
            self._child.end()
            self._child = None

    def _start(self) -> None:
        self._ready.clear()
        self._since = time.monotonic()
        self._child = _Child(self._command)

    def _check_time(self, done: list[tuple[Hashable, Projection | Failure]]) -> None:
        """End a process that takes too long, to start or for a job."""
        if self._child is None or (self._current is None and self._ready):
            return
        # Until UMAP is compiled, that goes on beside the first jobs and holds them up.
        prepared = self._current is not None and "umap" in self._ready
        limit = self._limit if prepared else START_LIMIT_SECONDS
        waited = time.monotonic() - self._since
        if waited > limit and (waited > PATIENCE * limit or not self._child.is_starved(limit)):
            self._end_child(f"no layout within {limit:g} s", done)

    def _end_child(self, reason: str, done: list[tuple[Hashable, Projection | Failure]]) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None
        if not self._ready:
            self._failed_starts += 1
        log.warning("Layouts: %s; the process is started anew", reason)
        if self._current is not None:
            done.append((self._current[0], Failure(reason)))
            self._current = None
        if self._failed_starts < MOST_FAILED_STARTS:
            self._start()

    def _dispatch(self, done: list[tuple[Hashable, Projection | Failure]]) -> None:
        """Begin the next job if there is one and nothing else is being done."""
        if self._child is None:
            reason = "the process that computes layouts does not start; see the server's log"
            done += [(key, Failure(reason)) for key in self._waiting]
            self._waiting.clear()
        elif self._current is None and self._ready and (key := self._next()) is not None:
            self._current = (key, self._waiting.pop(key))
            self._since = time.monotonic()
            self._child.send(self._current[1])

    def _next(self) -> Hashable | None:
        """The key whose turn it is: first layouts are waited for, all others leave the processor
        to the training and to the page for as long as they have taken."""
        for key, job in self._waiting.items():
            if job.last is None or time.monotonic() >= self._rested:
                return key
        return None


class _Child:
    """The process, and the thread that waits for it in our place."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        self._usage = _Usage(self._process.pid)
        self._cpu = 0.0  # s that it had used when the last job was sent
        self._outbox: queue.SimpleQueue[ProjectionJob | None] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._converse, daemon=True)
        self._thread.start()

    def send(self, job: ProjectionJob) -> None:
        self._cpu = self._usage.read()[1]
        self._outbox.put(job)

    def is_starved(self, seconds: float) -> bool:
        """Whether it still computes, and a busy machine gave it less than this for the job."""
        running, cpu = self._usage.read()
        return running and cpu - self._cpu < seconds

    def receive(self) -> list[Message | None]:
        """What it has said since the last call; None at last if it has died."""
        messages = []
        while not self._inbox.empty():
            messages.append(self._inbox.get_nowait())
        return messages

    def end(self) -> None:
        self._outbox.put(None)
        self._process.kill()
        self._process.wait(CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        self._usage.close()

    def _converse(self) -> None:
        """Send jobs and take answers, one for one, until one side has had enough."""
        ears, mouth = self._process.stdout, self._process.stdin
        assert ears is not None
        assert mouth is not None
        try:
            with ears, mouth:
                self._inbox.put(read_frame(ears))
                while (job := self._outbox.get()) is not None:
                    write_frame(mouth, job)
                    answer: Message | None = None
                    while not isinstance(answer, Result):
                        answer = read_frame(ears)
                        self._inbox.put(answer)
        except (EOFError, OSError):
            self._inbox.put(None)


class _Usage:
    """Processor time of a process; Linux only. The file stays open: it is read with every job."""

    def __init__(self, pid: int) -> None:
        try:
            self._file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
        except OSError:
            self._file = -1

    def read(self) -> tuple[bool, float]:
        """Whether the process wants to run, and the processor time (s) it has used."""
        if self._file < 0:
            return False, 0.0
        try:
            fields = os.pread(self._file, 4096, 0).rsplit(b")", 1)[1].split()
        except OSError:  # the process is no more
            return False, 0.0
        return fields[0] == b"R", (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _environment() -> dict[str, str]:
    """Ours, with one thread for all numerics, and with the places where our modules lie."""
    threads = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "NUMEXPR")
    library = Path(revacnn_lightning.__file__).parents[1]
    path = [str(library), *(place for place in sys.path if place), str(VIEWER.parent)]
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": "1" for name in threads},
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",
    }
