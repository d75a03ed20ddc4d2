"""The process that computes projections, one job at a time, over standard input and output.

A frame is its length (8 bytes, little-endian) and a struct in MessagePack. `embedding.worker`
starts this module as a program instead of using `multiprocessing`, because the modules of a Bokeh
application have names that another process cannot import. It ends when its input is closed.
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

__all__ = ["MethodReady", "ProjectionResult", "WorkerMessage", "read_frame", "serve", "write_frame"]

LENGTH = struct.Struct("<Q")
NICENESS = 5  # lower priority than the training and the page; at 10, it starves on a busy machine
SCHEDULER = getattr(os, "SCHED_BATCH", None)  # Linux: do not preempt processes that wake up


class MethodReady(Struct, frozen=True, tag=True):
    """Says that the worker has warmed up a method, which it can use without a delay."""

    method: Method


class ProjectionResult(Struct, frozen=True, tag=True):
    """The projection that a finished job has computed."""

    projection: Projection


WorkerMessage = ProjectionJob | MethodReady | ProjectionResult


class _EncodedArray(Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def _encode_array(value: Any) -> _EncodedArray:
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value)
        return _EncodedArray(value.dtype.str, value.shape, value.tobytes())
    raise NotImplementedError(f"frames cannot contain {type(value).__name__}")


def _decode_array(kind: type, value: Any) -> Any:
    if kind is not np.ndarray:
        raise NotImplementedError(f"frames cannot contain {kind.__name__}")
    array = msgspec.convert(value, _EncodedArray)
    return np.frombuffer(array.data, np.dtype(array.dtype)).reshape(array.shape)


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
_decoder = msgspec.msgpack.Decoder(WorkerMessage, dec_hook=_decode_array)


def write_frame(stream: IO[bytes], message: WorkerMessage) -> None:
    """Write one message.

    Raises:
        OSError, ValueError: the other process has ended, or the stream is closed.
    """
    body = _encoder.encode(message)
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> WorkerMessage:
    """Wait for one message.

    Raises:
        EOFError: the other process has ended.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    body = stream.read(LENGTH.unpack(head)[0])
    if len(body) < LENGTH.unpack(head)[0]:
        raise EOFError
    return _decoder.decode(body)


def serve(compute: Callable[[ProjectionJob], Projection], *, warm_up: bool = False) -> None:
    """Compute jobs until the input ends, then end the process.

    Args:
        compute: computes one job.
        warm_up: first import and compile what the methods need. UMAP takes some ten seconds and
            is warmed up in parallel with the first jobs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends us
    _lower_priority()
    # Redirect what libraries print away from the frames.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[ProjectionJob] = queue.SimpleQueue()
    threading.Thread(target=_receive_jobs, args=(jobs,), daemon=True).start()
    write_lock = threading.Lock()

    def prepare(method: Method) -> None:
        if warm_up:
            project(_warm_up_job(method))
        with write_lock:
            write_frame(out, MethodReady(method))

    prepare("tsne")
    umap = threading.Thread(target=prepare, args=("umap",), daemon=True)
    umap.start()
    while True:
        job = jobs.get()
        if job.method == "umap":
            umap.join()
        result = ProjectionResult(compute(job))
        with write_lock:
            write_frame(out, result)


def _lower_priority() -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    if SCHEDULER is not None:
        with contextlib.suppress(OSError):  # forbidden in some containers
            os.sched_setscheduler(0, SCHEDULER, os.sched_param(0))


def _receive_jobs(jobs: queue.SimpleQueue[ProjectionJob]) -> None:
    while True:
        try:
            message = read_frame(sys.stdin.buffer)
        except EOFError:
            os._exit(0)  # even during a job, whose result is not needed any more
        if isinstance(message, ProjectionJob):
            jobs.put(message)


def _warm_up_job(method: Method) -> ProjectionJob:
    features = np.random.default_rng(0).normal(size=(64, 16))
    return ProjectionJob(features, np.arange(64), method)


if __name__ == "__main__":
    serve(project, warm_up=True)
