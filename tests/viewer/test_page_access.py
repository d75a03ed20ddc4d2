"""Who may open the page where the server lets everybody through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from bokeh.document import Document

from revacnn_lightning import RevacnnError
from revacnn_lightning.page_server.access_token import AccessToken, cookie_name
from tests.viewer.processes import TOKEN
from viewer import page_access
from viewer.page_access import check_auth_module, cookie_to_set, is_granted, show_sign_in

HOST = "localhost:5006"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AccessToken, "of_this_process", lambda: TOKEN)
    monkeypatch.setattr(page_access, "_has_server_decided", False)


def request(token: str | None = None, **cookies: str) -> Any:
    arguments = {} if token is None else {"token": [token.encode()]}
    return SimpleNamespace(arguments=arguments, cookies=cookies, headers={"Host": HOST})


def test_a_session_needs_the_token_or_its_cookie() -> None:
    assert is_granted(request(TOKEN.text))
    assert is_granted(request(**{cookie_name(HOST): TOKEN.cookie_value}))
    assert not is_granted(request())
    assert not is_granted(request("wrong"))
    assert not is_granted(request(**{cookie_name("localhost:1"): TOKEN.cookie_value}))
    assert not is_granted(None)


def test_the_page_sets_the_cookie_only_for_a_token() -> None:
    assert cookie_to_set(request(TOKEN.text)) == f"{cookie_name(HOST)}={TOKEN.cookie_value}"
    assert cookie_to_set(request()) == ""


def test_a_server_that_checks_requests_decides_alone() -> None:
    page_access.let_server_decide()
    assert is_granted(request())
    assert cookie_to_set(request(TOKEN.text)) == ""


@pytest.mark.parametrize("given", [None, "wrong"])
def test_a_refused_session_contains_nothing(given: str | None) -> None:
    document = Document()
    show_sign_in(document, request(given))
    page = document.template.render(document.template_variables)
    assert 'method="get"' in page
    assert ("not the token of this viewer" in page) == (given is not None)
    assert document.roots == []


def test_a_server_that_checks_nobody_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--access server`` without an authentication module opened the page to everybody."""
    command = ["python", "-m", "bokeh", "serve", "viewer", "--args", "--access", "server"]
    monkeypatch.setattr(page_access.sys, "orig_argv", command)
    monkeypatch.delenv("BOKEH_AUTH_MODULE", raising=False)
    with pytest.raises(RevacnnError, match="--auth-module FILE"):
        check_auth_module()
    monkeypatch.setenv("BOKEH_AUTH_MODULE", "auth.py")
    check_auth_module()
    monkeypatch.delenv("BOKEH_AUTH_MODULE")
    monkeypatch.setattr(page_access.sys, "orig_argv", [*command[:4], "--auth-module=auth.py"])
    check_auth_module()
