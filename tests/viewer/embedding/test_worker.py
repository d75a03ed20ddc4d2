from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.viewer.embedding.obstinate_process import CRASH, HANG, OBEY, RAISE, WAIT
from viewer.embedding.projection import Projection, ProjectionJob
from viewer.embedding.worker import EmbeddingWorker, Failure

PROCESS = [sys.executable, str(Path(__file__).with_name("obstinate_process.py"))]


def job(does: int = OBEY, n: int = 8) -> ProjectionJob:
    return ProjectionJob(
        np.random.default_rng(0).normal(size=(n, 6)), np.arange(n), "pca", seed=does
    )


@pytest.fixture
def worker() -> Iterator[EmbeddingWorker]:
    worker = EmbeddingWorker(PROCESS, limit=5.0)
    yield worker
    worker.close()


def wait_for(worker: EmbeddingWorker, n: int = 1, seconds: float = 60) -> dict:
    """The next ``n`` results."""
    done: list = []
    deadline = time.monotonic() + seconds
    while len(done) < n and time.monotonic() < deadline:
        done += worker.poll()
        time.sleep(0.01)
    assert len(done) == n
    return dict(done)


def wait_until_begun(worker: EmbeddingWorker) -> None:
    while worker._current is None:
        assert not worker.poll()
        time.sleep(0.01)


def process_of(worker: EmbeddingWorker) -> subprocess.Popen[bytes]:
    assert worker._child is not None
    return worker._child._process


def test_a_job_is_done(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job(n=16))
    assert worker.is_busy("conv1")

    layout = wait_for(worker)["conv1"]

    assert isinstance(layout, Projection)
    np.testing.assert_array_equal(layout.ids, np.arange(16))
    assert layout.positions.shape == (16, 2)
    assert not worker.is_busy("conv1")


def test_polling_never_waits(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job(WAIT, n=2048))
    wait_until_begun(worker)
    without = 0
    while not worker.poll():
        without += 1
        time.sleep(0.005)

    assert without > 3  # one that waited would come back once, with the layout


def test_the_newest_job_of_a_key_wins(worker: EmbeddingWorker) -> None:
    worker.submit("other", job(WAIT))
    wait_until_begun(worker)
    worker.submit("conv1", job(n=8))
    worker.submit("conv2", job(n=10))
    worker.submit("conv1", job(n=12))

    done = wait_for(worker, 3)

    assert list(done) == ["other", "conv1", "conv2"]
    assert len(done["conv1"].ids) == 12


def test_a_forgotten_job_is_not_done(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job())
    worker.submit("conv2", job())
    worker.cancel("conv1")

    assert list(wait_for(worker)) == ["conv2"]


def test_a_hanging_job_is_ended_and_the_next_is_done(worker: EmbeddingWorker) -> None:
    worker.submit("hanging", job(HANG))
    wait_until_begun(worker)
    hanging = process_of(worker)
    worker.submit("next", job())

    done = wait_for(worker, 2)

    assert done["hanging"] == Failure("no layout within 5 s")
    assert isinstance(done["next"], Projection)
    assert hanging.poll() is not None
    assert process_of(worker) is not hanging


@pytest.mark.parametrize("does", [CRASH, RAISE])
def test_a_crashing_job_is_reported_and_the_next_is_done(
    worker: EmbeddingWorker, does: int
) -> None:
    worker.submit("crashing", job(does))
    worker.submit("next", job())

    done = wait_for(worker, 2)

    assert done["crashing"] == Failure("the process that computes layouts has died")
    assert isinstance(done["next"], Projection)


@pytest.mark.parametrize("does", [OBEY, HANG])
def test_no_process_is_left_after_close(does: int) -> None:
    worker = EmbeddingWorker(PROCESS)
    worker.submit("conv1", job(does))
    wait_until_begun(worker)
    process = process_of(worker)

    worker.close()

    assert process.poll() is not None
    assert worker.poll() == []


def test_a_process_that_does_not_start_is_given_up(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    worker = EmbeddingWorker(
        [sys.executable, "-c", f"open({str(starts)!r}, 'a').write('x')"], limit=2.0
    )
    worker.submit("conv1", job())

    done = wait_for(worker)

    assert "does not start" in done["conv1"].reason
    assert starts.read_text() == "xxx"
    worker.close()


def test_layouts_that_are_brought_up_to_date_leave_the_processor_to_others_for_as_long_as_they_took(
    worker: EmbeddingWorker,
) -> None:
    worker.submit("conv1", job(WAIT))
    began = time.monotonic()
    layout = wait_for(worker)["conv1"]
    assert worker._rested >= began + 2 * 0.5
    worker._rested = float("inf")

    worker.submit("conv1", ProjectionJob(job().features, np.arange(8), "pca", last=layout))
    worker.submit("conv2", job())

    assert list(wait_for(worker)) == ["conv2"]  # a first one is waited for
    assert worker.is_busy("conv1")
    worker._rested = 0.0
    assert list(wait_for(worker)) == ["conv1"]


@pytest.mark.skipif(sys.platform == "win32", reason="niceness is of Unix")
def test_the_process_is_niced_and_of_one_thread(worker: EmbeddingWorker) -> None:
    worker.submit("conv1", job())
    wait_for(worker)
    process = process_of(worker)

    assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 5
    if hasattr(os, "SCHED_BATCH"):
        assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
    environment = Path(f"/proc/{process.pid}/environ")
    if environment.exists():
        assert b"OMP_NUM_THREADS=1" in environment.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="kills a parent as Unix does")
def test_the_process_ends_with_its_parent() -> None:
    script = (
        "import sys, time; from viewer.embedding.worker import EmbeddingWorker\n"
        f"worker = EmbeddingWorker({PROCESS!r})\n"
        "from tests.viewer.embedding.test_worker import HANG, job, wait_until_begun\n"
        "worker.submit('hanging', job(HANG)); wait_until_begun(worker)\n"
        "print(worker._child._process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()

    deadline = time.monotonic() + 10
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.slow
def test_the_real_process_does_every_method() -> None:
    worker = EmbeddingWorker()
    for method in ("tsne", "umap", "pca"):
        worker.submit(method, ProjectionJob(job(n=32).features, np.arange(32), method))

    done = wait_for(worker, 3, seconds=120)

    worker.close()
    assert [done[method].method for method in ("tsne", "umap", "pca")] == ["tsne", "umap", "pca"]
