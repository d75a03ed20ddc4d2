"""Who may open the page where the server lets everybody through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from bokeh.document import Document
from bokeh.settings import settings

from revacnn_lightning import RevacnnError
from revacnn_lightning.page_server import bokeh_serve
from revacnn_lightning.page_server.access_token import AccessToken, cookie_name
from tests.viewer.processes import TOKEN
from viewer import page_access
from viewer.page_access import (
    cookie_for_page_to_set,
    is_access_granted,
    require_auth_module,
    show_sign_in,
)

HOST = "localhost:5006"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AccessToken, "of_this_process", lambda: TOKEN)
    monkeypatch.setattr(page_access, "_has_server_decided", False)
    monkeypatch.setattr(page_access, "_does_server_set_cookie", False)


def request(token: str | None = None, peer: str = "127.0.0.1", **cookies: str) -> Any:
    arguments = {} if token is None else {"token": [token.encode()]}
    connection = SimpleNamespace(context=SimpleNamespace(address=(peer, 4711)))
    return SimpleNamespace(
        arguments=arguments, cookies=cookies, headers={"Host": HOST}, connection=connection
    )


def test_a_session_from_another_machine_needs_encryption() -> None:
    """Where another authentication module has let the request through."""
    assert not is_access_granted(request(TOKEN.text, peer="192.0.2.7"))
    document = Document()
    show_sign_in(document, request(TOKEN.text, peer="192.0.2.7"))
    page = document.template.render(document.template_variables)
    assert "revacnn view --host 0.0.0.0 --port 5006 --self-signed" in page


def test_a_session_needs_the_token_or_its_cookie() -> None:
    assert is_access_granted(request(TOKEN.text))
    assert is_access_granted(request(**{cookie_name(HOST): TOKEN.cookie_value}))
    assert not is_access_granted(request())
    assert not is_access_granted(request("wrong"))
    assert not is_access_granted(request(**{cookie_name("localhost:1"): TOKEN.cookie_value}))
    assert not is_access_granted(None)


def test_the_page_sets_the_cookie_only_for_a_token() -> None:
    assert (
        cookie_for_page_to_set(request(TOKEN.text)) == f"{cookie_name(HOST)}={TOKEN.cookie_value}"
    )
    assert cookie_for_page_to_set(request()) == ""


@pytest.mark.parametrize(("given", "is_ours"), [(None, True), ("mine.py", False)])
def test_bokeh_serve_gets_our_module_unless_the_user_has_another(
    monkeypatch: pytest.MonkeyPatch, given: str | None, is_ours: bool
) -> None:
    monkeypatch.delenv("BOKEH_AUTH_MODULE", raising=False)
    if given is not None:
        monkeypatch.setenv("BOKEH_AUTH_MODULE", given)
    try:
        page_access.set_default_auth_module()
        chosen = settings.auth_module()
    finally:
        del settings.auth_module
    assert chosen == (given or str(page_access.AUTH_MODULE))
    assert (
        cookie_for_page_to_set(request(TOKEN.text)) == ""
    ) == is_ours  # ours sets one for http alone


def test_a_server_that_checks_requests_decides_alone() -> None:
    page_access.let_server_check_access()
    assert is_access_granted(request())
    assert cookie_for_page_to_set(request(TOKEN.text)) == ""


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
    monkeypatch.setattr(bokeh_serve.sys, "orig_argv", command)
    monkeypatch.delenv("BOKEH_AUTH_MODULE", raising=False)
    with pytest.raises(RevacnnError, match="--auth-module FILE"):
        require_auth_module()
    monkeypatch.setenv("BOKEH_AUTH_MODULE", "auth.py")
    require_auth_module()
    monkeypatch.delenv("BOKEH_AUTH_MODULE")
    monkeypatch.setattr(bokeh_serve.sys, "orig_argv", [*command[:4], "--auth-module=auth.py"])
    require_auth_module()
