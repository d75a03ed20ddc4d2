"""The names by which browsers may use the page."""

from __future__ import annotations

import socket

import pytest

from revacnn_lightning import RevacnnError
from revacnn_lightning.page_server.allowed_hosts import AllowedHosts, host_names_for, is_loopback


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:5006", "[::1]:5006"])
def test_the_names_of_loopback_are_allowed_at_any_forwarded_port(host: str):
    assert AllowedHosts().is_allowed_host(host)


@pytest.mark.parametrize(
    "host",
    ["attacker.example:5006", "attacker.example", "", "localhost.attacker.example", "127.0.0.2",
     "localhost:", "localhost:5006:1", "localhost@attacker.example", "localhost,attacker.example"],
)  # fmt: skip
def test_a_name_that_points_to_this_machine_is_not_enough(host: str):
    """DNS rebinding: a page of the web had its own name point to 127.0.0.1."""
    assert not AllowedHosts().is_allowed_host(host)


def test_only_pages_of_the_same_host_and_port_may_use_the_server():
    hosts = AllowedHosts()
    assert hosts.is_allowed_origin("http://localhost:8000", "localhost:8000")
    assert hosts.is_allowed_origin("http://LOCALHOST:8000", "localhost:8000")
    for origin in (
        "http://localhost:8001", "http://127.0.0.1:8000", "http://attacker.example", "null", "",
        "http://localhost:8000.attacker.example", "http://[", "https://localhost",
    ):  # fmt: skip
        assert not hosts.is_allowed_origin(origin, "localhost:8000"), origin


def test_a_proxy_has_the_names_of_the_user():
    hosts = AllowedHosts(origins=["Viewer.Example", "https://gpu7:8443/"])
    assert hosts.is_allowed_host("viewer.example")
    assert hosts.is_allowed_host("gpu7:8443")
    assert hosts.is_allowed_origin("https://viewer.example", "127.0.0.1:5006")
    assert hosts.is_allowed_origin("https://gpu7:8443", "127.0.0.1:5006")
    assert not hosts.is_allowed_origin("https://gpu7", "127.0.0.1:5006")
    assert {"viewer.example", "gpu7", "localhost"} <= hosts.names


@pytest.mark.parametrize("origin", ["", "*", "http://", "a b", "gpu7:port"])
def test_an_origin_that_is_no_host_is_refused(origin: str):
    with pytest.raises(RevacnnError, match=r"expected HOST or HOST:PORT"):
        AllowedHosts(origins=[origin])


def test_loopback_is_recognized():
    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.5", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "192.0.2.1")))
    with pytest.raises(RevacnnError, match="choose another --host"):
        is_loopback("no-such-host.invalid")


def test_the_printed_name_comes_first():
    assert host_names_for("127.0.0.1") == ("127.0.0.1", "localhost", "[::1]")
    assert host_names_for("::1")[0] == "[::1]"
    assert host_names_for("192.0.2.1")[0] == "192.0.2.1"
    assert host_names_for("0.0.0.0")[0] == socket.gethostname().lower()
    assert "0.0.0.0" not in host_names_for("0.0.0.0")
