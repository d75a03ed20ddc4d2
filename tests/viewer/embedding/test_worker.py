from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.viewer.embedding.misbehaving_worker import CRASH, HANG, OBEY, RAISE, WAIT
from viewer.embedding.projection import Projection, ProjectionJob
from viewer.embedding.worker import EmbeddingWorker, ProjectionFailure

PROCESS = [sys.executable, str(Path(__file__).with_name("misbehaving_worker.py"))]


def job(behavior: int = OBEY, n: int = 8) -> ProjectionJob:
    return ProjectionJob(
        np.random.default_rng(0).normal(size=(n, 6)), np.arange(n), "pca", seed=behavior
    )


@pytest.fixture(scope="module")
def worker() -> Iterator[EmbeddingWorker]:
    """A worker whose process all tests use that do not end it. It is idle before each of them."""
    worker = EmbeddingWorker(PROCESS, max_seconds=5.0)
    yield worker
    worker.close()


@pytest.fixture
def own_worker() -> Iterator[EmbeddingWorker]:
    worker = EmbeddingWorker(PROCESS, max_seconds=2.0)
    yield worker
    worker.close()


def wait_for(worker: EmbeddingWorker, n: int = 1, seconds: float = 240) -> dict:
    """Return the next ``n`` results by key."""
    done: list = []
    deadline = time.monotonic() + seconds
    while len(done) < n and time.monotonic() < deadline:
        done += worker.poll()
        time.sleep(0.01)
    assert len(done) == n
    return dict(done)


def wait_until_started(worker: EmbeddingWorker) -> None:
    while worker._current is None:
        assert not worker.poll()
        time.sleep(0.01)


def process_of(worker: EmbeddingWorker) -> subprocess.Popen[bytes]:
    assert worker._process is not None
    return worker._process._process


def test_worker_computes_a_job(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job(n=16))
    assert worker.is_busy("conv1")

    projection = wait_for(worker)["conv1"]

    assert isinstance(projection, Projection)
    np.testing.assert_array_equal(projection.ids, np.arange(16))
    assert projection.positions.shape == (16, 2)
    assert not worker.is_busy("conv1")


def test_poll_never_blocks(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job(WAIT, n=2048))
    wait_until_started(worker)
    n_empty = 0
    while not worker.poll():
        n_empty += 1
        time.sleep(0.005)

    assert n_empty > 3  # a blocking poll would return once, with the projection


def test_newest_job_of_a_key_replaces_waiting_one(worker: EmbeddingWorker) -> None:
    worker.submit("other", job(WAIT))
    wait_until_started(worker)
    worker.submit("conv1", job(n=8))
    worker.submit("conv2", job(n=10))
    worker.submit("conv1", job(n=12))

    done = wait_for(worker, 3)

    assert list(done) == ["other", "conv1", "conv2"]
    assert len(done["conv1"].ids) == 12


def test_cancelled_job_is_not_computed(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job())
    worker.submit("conv2", job())
    worker.cancel("conv1")

    assert list(wait_for(worker)) == ["conv2"]


def test_hanging_job_fails_and_next_is_computed(own_worker: EmbeddingWorker) -> None:
    own_worker.submit("hanging", job(HANG))
    wait_until_started(own_worker)
    hanging = process_of(own_worker)
    own_worker.submit("next", job())

    done = wait_for(own_worker, 2)

    assert done["hanging"] == ProjectionFailure("no projection within 2 s")
    assert isinstance(done["next"], Projection)
    assert hanging.poll() is not None
    assert process_of(own_worker) is not hanging


@pytest.mark.parametrize("behavior", [CRASH, RAISE])
def test_crashing_job_fails_and_next_is_computed(
    own_worker: EmbeddingWorker, behavior: int
) -> None:
    own_worker.submit("crashing", job(behavior))
    own_worker.submit("next", job())

    done = wait_for(own_worker, 2)

    assert done["crashing"] == ProjectionFailure("the projection process has died")
    assert isinstance(done["next"], Projection)


@pytest.mark.parametrize("behavior", [OBEY, HANG])
def test_close_ends_the_process(behavior: int) -> None:
    worker = EmbeddingWorker(PROCESS)
    worker.submit("conv1", job(behavior))
    wait_until_started(worker)
    process = process_of(worker)

    worker.close()

    assert process.poll() is not None
    assert worker.poll() == []


def test_process_that_does_not_start_is_not_restarted_forever(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    worker = EmbeddingWorker(
        [sys.executable, "-c", f"open({str(starts)!r}, 'a').write('x')"], max_seconds=2.0
    )
    worker.submit("conv1", job())

    done = wait_for(worker)

    assert "does not start" in done["conv1"].reason
    assert starts.read_text() == "xxx"
    worker.close()


def test_updates_wait_as_long_as_the_last_job_took_and_first_projections_do_not(
    worker: EmbeddingWorker,
) -> None:
    worker.submit("conv1", job(WAIT))
    began = time.monotonic()
    projection = wait_for(worker)["conv1"]
    assert worker._idle_until >= began + 2 * 0.5
    worker._idle_until = float("inf")

    worker.submit("conv1", ProjectionJob(job().features, np.arange(8), "pca", last=projection))
    worker.submit("conv2", job())

    assert list(wait_for(worker)) == ["conv2"]
    assert worker.is_busy("conv1")
    worker._idle_until = 0.0
    assert list(wait_for(worker)) == ["conv1"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no niceness")
def test_process_has_low_priority_and_one_thread(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job())
    wait_for(worker)
    process = process_of(worker)

    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 5
    if hasattr(os, "SCHED_BATCH"):
        assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
    environment = Path(f"/proc/{process.pid}/environ")
    if environment.exists():
        assert b"OMP_NUM_THREADS=1" in environment.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs Unix processes")
def test_process_ends_with_its_parent() -> None:
    script = (
        "import sys, time; from viewer.embedding.worker import EmbeddingWorker\n"
        f"worker = EmbeddingWorker({PROCESS!r})\n"
        "from tests.viewer.embedding.test_worker import HANG, job, wait_until_started\n"
        "worker.submit('hanging', job(HANG)); wait_until_started(worker)\n"
        "print(worker._process._process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()

    deadline = time.monotonic() + 240
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(child)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.slow
def test_real_process_computes_every_method() -> None:
    worker = EmbeddingWorker()
    for method in ("tsne", "umap", "pca"):
        worker.submit(method, ProjectionJob(job(n=32).features, np.arange(32), method))

    done = wait_for(worker, 3, seconds=120)

    worker.close()
    assert [done[method].method for method in ("tsne", "umap", "pca")] == ["tsne", "umap", "pca"]
