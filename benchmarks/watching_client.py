"""A client process that receives everything from a run, and prints when it has begun.

``python -m benchmarks.watching_client FILE``; it needs no torch, as a viewer on another machine.
"""

from __future__ import annotations

import sys
import time

from revacnn_lightning import attach

POLL_SECONDS = 0.02


def main(file: str) -> None:
    has_begun = False
    with attach(file, timeout=60) as run:
        while not run.has_ended():
            run.poll()
            if run.snapshot is not None and not has_begun:
                has_begun = True
                print("receives", flush=True)
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
