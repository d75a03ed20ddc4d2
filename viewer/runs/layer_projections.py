"""Projections of the views of layers, computed in a worker process.

A view is projected again the later the less its features have changed: a layout that would hardly
move costs as much as one that does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from ..embedding.projection import Method, Projection, ProjectionJob, mean_direction_change
from ..embedding.worker import EmbeddingWorker, ProjectionFailure

__all__ = ["VIEWS", "LayerProjections"]

VIEWS = ("coefficients", "gradients", "activations", "activation_gradients")

RETRY_SECONDS = 30.0  # after a projection that failed
# Seconds between two projections of a view whose features change by 1; others wait in proportion.
SECONDS_PER_CHANGE = 2.0
COMPARED_ROWS = 128  # filters, at most, by which the change is estimated

Key = tuple[str, str, Method]  # layer, view, method


class _ProjectionState(Struct):
    """The newest projection of a view, and how to compute the next.

    Attributes:
        projection: None before the first.
        features: the features from which it was computed, float (n, d).
        ids: the ids of its filters, int64 (n,).
        revision: the revision of the layer detail that was submitted last.
        compared: revision of the layer detail that was last compared with ``features``.
        due_at: when its change is worth a projection (monotonic).
        projected_at: when the newest projection arrived (monotonic).
        retry_at: earliest time of the next attempt (monotonic).
        from_scratch: whether the next projection ignores the previous one.
        is_requested: whether the user requested it and waits for it.
        seed: the seed of the next projection.
        failure: why the newest attempt failed; "" if it did not.
    """

    projection: Projection | None = None
    features: np.ndarray = np.zeros((0, 0))
    ids: np.ndarray = np.zeros(0, np.int64)
    revision: int = -1
    compared: int = -1
    due_at: float = 0.0
    projected_at: float = 0.0
    retry_at: float = 0.0
    from_scratch: bool = False
    is_requested: bool = False
    seed: int = 0
    failure: str = ""


class LayerProjections:
    """The newest projection of each layer, view and method.

    Args:
        make_projector: creates the worker that projects, on first use or on `start`.
    """

    def __init__(self, make_projector: Callable[[], EmbeddingWorker] = EmbeddingWorker) -> None:
        self._make_projector = make_projector
        self._worker: EmbeddingWorker | None = None
        self._states: dict[Key, _ProjectionState] = {}
        self._computing: dict[Key, tuple[np.ndarray, np.ndarray]] = {}  # features, ids

    def start(self) -> None:
        """Start the worker, which takes some seconds to warm up."""
        if self._worker is None:
            self._worker = self._make_projector()

    def close(self) -> None:
        """Stop the worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def get(self, layer: str, view: str, method: Method) -> Projection | None:
        """Return the newest projection; None before the first."""
        state = self._states.get((layer, view, method))
        return None if state is None else state.projection

    def failure(self, layer: str, view: str, method: Method) -> str:
        """Return why the newest attempt failed; "" if it did not."""
        state = self._states.get((layer, view, method))
        return "" if state is None else state.failure

    def recompute(self, layer: str, method: Method) -> None:
        """Compute all views of a layer from scratch, with another seed each time."""
        for view in VIEWS:
            state = self._states.get((layer, view, method))
            if state is not None:
                state.from_scratch, state.revision, state.retry_at = True, -1, 0.0
                state.is_requested, state.seed = True, state.seed + 1

    def is_recomputing(self, layer: str, view: str, method: Method) -> bool:
        """Return whether the result of `recompute` is pending."""
        state = self._states.get((layer, view, method))
        return state is not None and state.is_requested

    def drop(self, layer: str) -> None:
        """Drop all projections of a layer."""
        for key in [key for key in self._states if key[0] == layer]:
            del self._states[key]
            if self._worker is not None:
                self._worker.cancel(key)

    def submit(
        self, key: Key, features: np.ndarray, ids: np.ndarray, revision: int, now: float
    ) -> None:
        """Submit features to the worker, if they have changed enough and it is not busy with them.

        Args:
            key: layer, view and method.
            features: the features of the filters, float (n, d).
            ids: the ids of the filters, int64 (n,).
            revision: the revision of the layer detail that the features come from.
            now: monotonic time.
        """
        state = self._states.setdefault(key, _ProjectionState())
        self.start()
        worker = self._worker
        is_current = state.revision == revision or now < state.retry_at
        if worker is None or is_current or worker.is_busy(key):
            return
        if not _is_due(state, features, ids, revision, now):
            return
        job = ProjectionJob(
            features,
            ids,
            key[2],
            last=state.projection or self._any_method(key),
            change=_change(state.ids, state.features, ids, features),
            from_scratch=state.from_scratch,
            find_duplicates=key[1] == "coefficients",
            seed=state.seed,
        )
        state.from_scratch, state.revision = False, revision
        self._computing[key] = (features, ids)
        worker.submit(key, job)

    def collect(self, now: float) -> None:
        """Collect the results of the worker. Never blocks."""
        for name, result in [] if self._worker is None else self._worker.poll():
            key: Key = name  # type: ignore[assignment]
            state, computed_from = self._states.get(key), self._computing.pop(key, None)
            if state is None or computed_from is None:
                continue
            # If requested while this one was computed, the requested one is still pending.
            state.is_requested = state.is_requested and state.from_scratch
            if isinstance(result, ProjectionFailure):
                # The last projection remains visible, but the next does not start from it.
                state.from_scratch, state.revision, state.failure = True, -1, result.reason
                state.retry_at = now + RETRY_SECONDS
            else:
                state.projection, state.failure, state.projected_at = result, "", now
                state.features, state.ids = computed_from

    def _any_method(self, key: Key) -> Projection | None:
        """Return a projection of the same view by any method, to align the new one with."""
        for other, state in self._states.items():
            if other[:2] == key[:2] and state.projection is not None:
                return state.projection
        return None


def _is_due(
    state: _ProjectionState, features: np.ndarray, ids: np.ndarray, revision: int, now: float
) -> bool:
    """Return whether features are worth a projection now. Other filters always are."""
    if state.projection is None or state.from_scratch or not np.array_equal(ids, state.ids):
        return True
    if state.compared != revision:
        state.compared = revision
        rows = slice(None, None, -(-len(ids) // COMPARED_ROWS) or 1)
        change = _change(state.ids[rows], state.features[rows], ids[rows], features[rows])
        seconds = SECONDS_PER_CHANGE / change if change > 0 else float("inf")
        state.due_at = state.projected_at + seconds
    return now >= state.due_at


def _change(
    ids_before: np.ndarray, before: np.ndarray, ids: np.ndarray, features: np.ndarray
) -> float:
    """Return the relative change of the features of the filters in both."""
    if before.ndim != 2 or before.shape[1:] != features.shape[1:]:
        return 1.0
    _, i, j = np.intersect1d(ids_before, ids, return_indices=True)
    return mean_direction_change(before[i], features[j]) if len(i) else 1.0
