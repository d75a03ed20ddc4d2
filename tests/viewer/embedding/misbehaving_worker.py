"""Stands in for the projection process. The seed of a job selects its behavior."""

from __future__ import annotations

import os
import time

import sklearn.decomposition  # noqa: F401  # so that no job waits for the import

from viewer.embedding.projection import Projection, ProjectionJob, project
from viewer.embedding.worker_main import serve

OBEY, HANG, CRASH, RAISE, WAIT = range(5)


def compute(job: ProjectionJob) -> Projection:
    if job.seed == HANG:
        time.sleep(600)
    if job.seed == CRASH:
        os._exit(3)
    if job.seed == RAISE:
        raise ValueError("requested by the test")
    if job.seed == WAIT:
        time.sleep(0.5)
    return project(job)


if __name__ == "__main__":
    serve(compute)
