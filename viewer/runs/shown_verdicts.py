"""The verdicts on the network of a run, computed in a thread while tabs show them."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.diagnostics.window_verdicts import Judgment

from .evidence_requests import VISIBLE_SECONDS, Send, VerdictEvidenceFetcher
from .run_state import RunState

__all__ = ["ShownVerdicts"]

log = logging.getLogger(__name__)

REFRESH_SECONDS = 2.0  # a verdict rests on 50 batches

Key = tuple[int, int]  # version of the structure, revision of what verdicts follow from


class ShownVerdicts:
    """Computes verdicts while a tab shows them. One per run, shared by all tabs.

    Those of a network of 26,560 filters take 15 ms. They are computed in a thread, from a frozen
    copy, so that the event loop handles messages meanwhile. There is one computation at a time, and
    none of what was computed before. `tick` and all other methods are called on the event loop.

    Args:
        executor: runs a computation; None: a thread that is started for the first one.

    Attributes:
        evidence: requests what verdicts follow from.
        problem: why the last computation has failed; "" if it has not.
        revision: incremented with every result and every failure.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self.evidence = VerdictEvidenceFetcher()
        self.problem = ""
        self.revision = 0
        self._executor = executor
        self._found: list[Verdict] = []
        self._found_version = -1  # of the structure
        self._key: Key | None = None  # of the newest computation
        self._work: Future[Judgment] | None = None
        self._last_visible = self._due_at = float("-inf")

    def keep_computing(self) -> None:
        """Compute verdicts for the next seconds. Tabs call this repeatedly."""
        self._last_visible = time.monotonic()
        self.evidence.keep_requesting()

    def verdicts_for_version(self, version: int) -> list[Verdict]:
        """Return the newest verdicts; [] if they are on another structure of the network."""
        return self._found if version == self._found_version else []

    def tick(self, state: RunState | None, send: Send) -> None:
        """Receive a result, and start the next computation if it is due."""
        self.evidence.tick(state, send)
        if state is None or state.structure is None:
            return
        if self._work is not None and self._work.done():
            self._receive(self._work, state)
        now = time.monotonic()
        if self._work is not None or now - self._last_visible > VISIBLE_SECONDS:
            return
        key = (state.structure.version, state.network_verdicts.revision)
        is_edited = self._key is None or key[0] != self._key[0]
        if is_edited or (key != self._key and now >= self._due_at):
            self._key, self._due_at = key, now + REFRESH_SECONDS
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "verdicts")
            self._work = self._executor.submit(state.copy_verdict_evidence().judge)

    def _receive(self, work: Future[Judgment], state: RunState) -> None:
        """Adopt the result of a computation, or note why there is none."""
        assert self._key is not None
        self._work = None
        self.revision += 1
        error = work.exception()
        if error is not None:
            log.error("The verdicts cannot be computed; those before are shown", exc_info=error)
            self.problem = f"Verdicts cannot be computed ({type(error).__name__}: {error})"
            return
        judgment = work.result()
        self.problem, self._found, self._found_version = "", judgment.verdicts, self._key[0]
        if state.structure is not None and state.structure.version == self._key[0]:
            # An edit may scale learning rates.
            state.network_verdicts.record_levels(judgment)

    def close(self) -> None:
        """Start no further computation."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
