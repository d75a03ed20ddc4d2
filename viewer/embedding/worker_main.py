"""The process that computes layouts: frames on its standard input and output, one job at a time.

A frame is its length (8 bytes, little endian) and a struct in msgpack. `embedding_worker` starts
it as a program of its own rather than through `multiprocessing`, because a Bokeh application's
modules bear names that another process cannot import. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

import msgspec
import numpy as np
from msgspec import Struct

from .projection import Method, Projection, ProjectionJob, project

__all__ = ["Message", "Ready", "Result", "read_frame", "serve", "write_frame"]

LENGTH = struct.Struct("<Q")
NICENESS = 5  # the training and the page come first; at 10, a busy machine gave it next to nothing
BATCH = getattr(os, "SCHED_BATCH", None)  # of Linux: whoever wakes up need not wait for us


class Ready(Struct, frozen=True, tag=True):
    """This method can be used without further preparation."""

    method: Method


class Result(Struct, frozen=True, tag=True):
    """A job is done."""

    layout: Projection


Message = ProjectionJob | Ready | Result


class _Array(Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def _extract(value: Any) -> _Array:
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value)
        return _Array(value.dtype.str, value.shape, value.tobytes())
    raise NotImplementedError(f"frames hold no {type(value).__name__}")


def _insert(kind: type, value: Any) -> Any:
    if kind is not np.ndarray:
        raise NotImplementedError(f"frames hold no {kind.__name__}")
    array = msgspec.convert(value, _Array)
    return np.frombuffer(array.data, np.dtype(array.dtype)).reshape(array.shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_extract)
_decoder = msgspec.msgpack.Decoder(Message, dec_hook=_insert)


def write_frame(stream: IO[bytes], message: Message) -> None:
    """Write one message.

    Raises:
        OSError, ValueError: the other side is gone, or the stream closed.
    """
    body = _encoder.encode(message)
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Message:
    """Wait for one message.

    Raises:
        EOFError: the other side is gone.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    body = stream.read(LENGTH.unpack(head)[0])
    if len(body) < LENGTH.unpack(head)[0]:
        raise EOFError
    return _decoder.decode(body)


def serve(compute: Callable[[ProjectionJob], Projection], *, warm_up: bool = False) -> None:
    """Compute what is asked for until the input ends, and end the process with it.

    With ``warm_up``, first imports and compiles what the methods need; for UMAP (some ten
    seconds) beside the first jobs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends us
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    if BATCH is not None:
        with contextlib.suppress(OSError):  # a container may forbid it
            os.sched_setscheduler(0, BATCH, os.sched_param(0))
    # What a library may print must not get between the frames.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[ProjectionJob] = queue.SimpleQueue()
    threading.Thread(target=_take_jobs, args=(jobs,), daemon=True).start()
    writing = threading.Lock()

    def prepare(method: Method) -> None:
        if warm_up:
            project(_small_job(method))
        with writing:
            write_frame(out, Ready(method))

    prepare("tsne")
    umap = threading.Thread(target=prepare, args=("umap",), daemon=True)
    umap.start()
    while True:
        job = jobs.get()
        if job.method == "umap":
            umap.join()
        result = Result(compute(job))
        with writing:
            write_frame(out, result)


def _take_jobs(jobs: queue.SimpleQueue[ProjectionJob]) -> None:
    while True:
        try:
            message = read_frame(sys.stdin.buffer)
        except EOFError:
            os._exit(0)  # also in the middle of a job: nobody waits for it any more
        if isinstance(message, ProjectionJob):
            jobs.put(message)


def _small_job(method: Method) -> ProjectionJob:
    features = np.random.default_rng(0).normal(size=(64, 16))
    return ProjectionJob(features, np.arange(64), method)


if __name__ == "__main__":
    serve(project, warm_up=True)
