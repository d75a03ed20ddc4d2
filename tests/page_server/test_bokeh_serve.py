"""Which requests the page answers under ``bokeh serve``."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from revacnn_lightning.page_server import bokeh_serve
from revacnn_lightning.page_server.bokeh_serve import bokeh_option_values, why_forbidden


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command line of the server, to be extended."""
    command = ["python", "-m", "bokeh", "serve", "viewer"]
    monkeypatch.setattr(bokeh_serve.sys, "orig_argv", command)
    for name in ("BOKEH_SSL_CERTFILE", "BOKEH_ALLOW_WS_ORIGIN"):
        monkeypatch.delenv(name, raising=False)
    bokeh_serve._allowed_hosts.cache_clear()
    yield command
    bokeh_serve._allowed_hosts.cache_clear()


def request(peer: object = ("127.0.0.1", 4711), **headers: str) -> Any:
    connection = SimpleNamespace(context=SimpleNamespace(address=peer))
    return SimpleNamespace(
        headers={"Host": "localhost:5006", **headers}, connection=connection, remote_ip="127.0.0.1"
    )


def test_options_of_the_app_are_none_of_the_server(command: list[str]):
    command += ["--port", "1", "--port=2", "--args", "--port", "3"]
    assert sorted(bokeh_option_values("--port")) == ["1", "2"]
    assert bokeh_option_values("--address") == []


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_answered(peer: str):
    assert why_forbidden(request((peer, 4711))) == ""


@pytest.mark.parametrize("peer", ["192.0.2.7", "::ffff:192.0.2.7", "fe80::1%eth0", "nonsense"])
def test_another_machine_is_answered_with_encryption_only(peer: str, command: list[str]):
    assert "revacnn view --host 0.0.0.0 --port 5007" in why_forbidden(
        request((peer, 4711))
    ).replace("5006", "5007")
    command += ["--ssl-certfile", "certificate.pem"]
    assert why_forbidden(request((peer, 4711))) == ""


def test_what_a_header_says_is_no_address(command: list[str]):
    """With --use-xheaders, Tornado takes the address of the client from a header."""
    command.append("--use-xheaders")
    far = request(("192.0.2.7", 4711))
    assert far.remote_ip == "127.0.0.1"
    assert why_forbidden(far)


def test_a_unix_socket_is_on_this_machine(command: list[str]):
    command += ["--unix-socket", "/tmp/page"]
    assert why_forbidden(request("")) == ""


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5006", "localhost.evil.example", ""]
)
def test_other_names_are_refused(host: str):
    assert "--allow-websocket-origin" in why_forbidden(request(Host=host))


def test_pages_of_other_origins_are_refused():
    assert why_forbidden(request(Origin="http://localhost:5006")) == ""
    assert why_forbidden(request(Origin="http://evil.example"))
    assert why_forbidden(request(Origin="null"))


def test_names_of_the_server_are_those_of_its_options(command: list[str]):
    command += ["--allow-websocket-origin", "viewer.example", "--allow-websocket-origin=*"]
    assert why_forbidden(request(Host="viewer.example")) == ""
    assert why_forbidden(request(Host="other.example"))
