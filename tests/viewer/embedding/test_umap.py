"""UMAP's machine code is kept between processes."""

from __future__ import annotations

import logging

import pytest

from viewer.embedding.umap import enable_numba_disk_cache


class Compiled:
    """A function of Numba."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.is_kept = False

    def enable_caching(self) -> None:
        if self.error:
            raise RuntimeError(self.error)
        self.is_kept = True


def test_umap_was_compiled_in_every_process() -> None:
    numba = pytest.importorskip("numba")
    function = numba.njit(scale)
    enable_numba_disk_cache([1, "a", print, function])
    assert function(2.0) == 20.0
    assert function.stats.cache_path is not None
    assert sum(function.stats.cache_hits.values()) + sum(function.stats.cache_misses.values()) == 1


def scale(value: float) -> float:
    return 10.0 * value


def test_umap_works_where_no_folder_is_writable(caplog: pytest.LogCaptureFixture) -> None:
    functions = [Compiled(), Compiled("no locator available"), Compiled()]
    with caplog.at_level(logging.INFO):
        enable_numba_disk_cache(functions)
    assert [function.is_kept for function in functions] == [True, False, False]
    assert "no locator available" in caplog.text
