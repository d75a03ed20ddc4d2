"""The token and its cookie."""

from __future__ import annotations

import subprocess
import sys
from http.cookies import SimpleCookie

import pytest

from revacnn_lightning.page_server.access_token import MIN_LENGTH, AccessToken, cookie_name

PRINT_TOKEN = (
    "from revacnn_lightning.page_server.access_token import AccessToken\n"
    "token = AccessToken.of_this_process()\n"
    "assert token is AccessToken.of_this_process()\n"
    "print(token.text)"
)


def token_of_process(value: str, monkeypatch: pytest.MonkeyPatch) -> subprocess.CompletedProcess:
    monkeypatch.setenv("REVACNN_TOKEN", value)
    return subprocess.run([sys.executable, "-c", PRINT_TOKEN], capture_output=True, text=True)


def test_a_token_is_random_unless_the_user_sets_it(monkeypatch: pytest.MonkeyPatch):
    first, second = (token_of_process("", monkeypatch).stdout.strip() for _ in range(2))
    assert first != second
    assert len(first) == 48
    assert token_of_process(" my own long token ", monkeypatch).stdout == "my own long token\n"


def test_a_short_token_of_the_user_is_refused(monkeypatch: pytest.MonkeyPatch):
    refused = token_of_process("x" * (MIN_LENGTH - 1), monkeypatch)
    assert refused.returncode != 0
    assert f"at least {MIN_LENGTH} are needed" in refused.stderr


def test_only_the_token_itself_opens_the_page():
    token = AccessToken("größer & länger")
    assert token.query == "token=gr%C3%B6%C3%9Fer%20%26%20l%C3%A4nger"
    for text in ("", "größer", "größer & länger ", "\ud800"):
        assert not token.is_same(text)
    assert token.is_in_arguments({"token": ["größer & länger".encode()]})
    assert not token.is_in_arguments({"token": [b"\xff"], "other": ["größer & länger".encode()]})
    assert not token.is_in_arguments({})


def test_the_cookie_does_not_contain_the_token():
    token = AccessToken("a secret of the user")
    assert token.text not in token.cookie_value
    cookies = {cookie_name("localhost:5006"): token.cookie_value}
    assert token.is_in_cookies(cookies, "localhost:5006")
    assert token.is_in_cookies(SimpleCookie({cookie_name("gpu7"): token.cookie_value}), "gpu7")
    assert not token.is_in_cookies({cookie_name("localhost:5006"): token.text}, "localhost:5006")
    assert not token.is_in_cookies({}, "localhost:5006")


def test_viewers_at_two_ports_of_a_host_do_not_replace_each_others_cookies():
    names = {cookie_name(host) for host in ("localhost:5006", "localhost:5007", "[::1]", "[::1]:1")}
    assert len(names) == 4
