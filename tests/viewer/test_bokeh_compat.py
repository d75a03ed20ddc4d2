"""The patch of Bokeh's server, and what it relies on."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from bokeh.server.views.ws import WSHandler

from tests.viewer.loops import run
from viewer import bokeh_compat


@pytest.fixture(autouse=True)
def unpatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bokeh as it is, and as it is again after the test."""
    monkeypatch.setattr(WSHandler, "_async_open", WSHandler._async_open)
    monkeypatch.setattr(WSHandler, bokeh_compat.MARKER, False, raising=False)


def test_nagle_is_disabled_once() -> None:
    original = WSHandler._async_open
    assert inspect.iscoroutinefunction(original)
    assert bokeh_compat.disable_nagle() is True
    wrapped = WSHandler._async_open
    assert bokeh_compat.disable_nagle() is True
    assert WSHandler._async_open is wrapped is not original


@pytest.mark.parametrize("is_open", [True, False])
def test_nodelay_is_set_before_bokeh_opens_an_open_websocket(
    monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    calls: list[Any] = []

    async def _async_open(self: Any, token: str) -> None:
        calls.append(token)

    monkeypatch.setattr(WSHandler, "_async_open", _async_open)
    assert bokeh_compat.disable_nagle() is True
    handler = SimpleNamespace(ws_connection=object() if is_open else None, set_nodelay=calls.append)
    run(WSHandler._async_open(handler, "token"))  # type: ignore[arg-type]
    assert calls == ([True] if is_open else []) + ["token"]


def test_a_bokeh_with_another_interface_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def _async_open(self: Any) -> None: ...

    monkeypatch.setattr(WSHandler, "_async_open", _async_open)
    assert bokeh_compat.disable_nagle() is False
    assert WSHandler._async_open is _async_open


def test_a_bokeh_without_the_interface_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(WSHandler, "_async_open")
    assert bokeh_compat.disable_nagle() is False
    assert not hasattr(WSHandler, "_async_open")
