"""The server of the page as a process, attacked by requests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from bokeh.util.token import get_token_payload
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from revacnn_lightning import RevacnnError
from revacnn_lightning.page_server.access_token import VARIABLE, cookie_name
from revacnn_lightning.page_server.certificate import ensure_self_signed_certificate
from revacnn_lightning.page_server.server import ServerOptions, require_tls_if_public
from tests.viewer.processes import ROOT, TOKEN, free_port

HANDLERS = {
    "the page": "/viewer",
    "the page in other sites": "/viewer/autoload.js?bokeh-autoload-element=x",
    "metadata": "/viewer/metadata",
    "the websocket": "/viewer/ws",
    "files of the page": "/viewer/static/main.js",
    "files of Bokeh": "/static/js/bokeh.min.js",
    "the root": "/",
    "the icon": "/favicon.ico",
}
OF_A_RUN = re.compile(rb"render_items|id=\"app\"")
# An app that is built faster than the viewer, behind the same server.
APP = "from bokeh.io import curdoc\nfrom bokeh.models import Div\ncurdoc().add_root(Div())\n"
SERVE_APP = """
import argparse, pathlib, sys
from revacnn_lightning.page_server.command_line import add_server_options, parse_server_options
from revacnn_lightning.page_server.server import bind_page_server
parser = argparse.ArgumentParser()
add_server_options(parser)
options = parse_server_options(parser.parse_args(sys.argv[2:]))
server = bind_page_server(pathlib.Path(sys.argv[1]), [], options)
print("Viewer:", server.address, flush=True)
server.run_until_shutdown()
"""


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """Sends requests to a server, with or without the cookie."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.address = "127.0.0.1"  # of the server
        self.host = f"127.0.0.1:{port}"
        self._context = context

    @property
    def cookie(self) -> str:
        return f"{cookie_name(self.host)}={TOKEN.cookie_value}"

    def get(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        if self._context is None:
            connection = http.client.HTTPConnection(self.address, self.port, timeout=60)
        else:
            connection = http.client.HTTPSConnection(
                self.address, self.port, timeout=60, context=self._context
            )
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body or None, names)
            answer = connection.getresponse()
            is_open_socket = answer.status == 101
            return Answer(answer.status, answer.headers, b"" if is_open_socket else answer.read())

    def open_socket(self, session: str, **headers: str) -> int:
        """Return the status of a websocket's handshake."""
        key = base64.b64encode(os.urandom(16)).decode()
        return self.get(
            "/viewer/ws", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Key=key,
            Sec_WebSocket_Version="13", Sec_WebSocket_Protocol=f"bokeh, {session}", **headers,
        ).status  # fmt: skip


@contextlib.contextmanager
def command(runtime: Path, *arguments: str, until: str, **variables: str) -> Iterator[str]:
    """Run Python; yield its output up to a line that contains a text, then terminate it."""
    running = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        env={**os.environ, "REVACNN_RUNTIME_DIR": str(runtime), VARIABLE: TOKEN.text, **variables},
    )  # fmt: skip
    output = ""
    try:
        for line in running.stdout:
            output += line
            if until in line:
                break
        assert until in output, output
        yield output
    finally:
        running.terminate()
        running.communicate(timeout=60)


def view(folder: Path, *arguments: str) -> contextlib.AbstractContextManager[str]:
    """Serve an app in a folder, as ``revacnn view`` serves the viewer."""
    return command(folder, *app_options(folder, *arguments), until="Viewer: ")


def app_options(folder: Path, *arguments: str) -> list[str]:
    """Write an app into a folder; return the options of Python that serve it."""
    (folder / "static").mkdir()
    (folder / "static" / "main.js").touch()
    (folder / "main.py").write_text(APP)
    return ["-c", SERVE_APP, str(folder), "--port", "0", *arguments]


def port_of(output: str) -> int:
    return int(re.search(r"Viewer: https?://[^/]*:(\d+)/", output)[1])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of the server."""
    with view(tmp_path_factory.mktemp("runtime")) as output:
        yield Client(port_of(output))


def session_of(answer: Answer) -> str:
    return re.search(rb'"token":"([^"]+)"', answer.body)[1].decode()


# ---------------------------------------------------------------------- requests


@pytest.mark.parametrize("path", HANDLERS.values(), ids=HANDLERS)
@pytest.mark.parametrize("problem", ["no token", "wrong token", "foreign origin", "rebinding"])
def test_nothing_is_served_without_the_token(client: Client, path: str, problem: str):
    headers = {"Cookie": client.cookie}
    if problem in ("no token", "wrong token"):
        headers = {}
    if problem == "wrong token":
        path = f"{path}{'&' if '?' in path else '?'}token={'x' * 48}"
    if problem == "foreign origin":
        headers["Origin"] = "http://attacker.example"
    if problem == "rebinding":
        name = f"attacker.example:{client.port}"
        headers = {"Host": name, "Cookie": client.cookie, "Origin": f"http://{name}"}
    answer = client.get(path, **headers)
    assert answer.status == 403
    assert not OF_A_RUN.search(answer.body)
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", HANDLERS.values(), ids=HANDLERS)
def test_everything_is_served_with_the_cookie(client: Client, path: str):
    expected = {"/": 302, "/viewer/ws": 400}  # to the page; a handshake is needed
    answer = client.get(path, Cookie=client.cookie)
    assert answer.status == expected.get(path, 200)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_the_token_is_exchanged_for_a_cookie_and_leaves_the_address(client: Client):
    answer = client.get(f"/viewer?run=a%26b&{TOKEN.query}&layer=conv2")
    assert answer.status == 303
    assert answer.headers["Location"] == "/viewer?run=a%26b&layer=conv2"
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{client.cookie};")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN.text not in cookie


def test_the_page_for_signing_in_takes_the_token(client: Client):
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    page = client.get("/viewer")
    assert b"Open the complete address" in page.body
    refused = client.get("/viewer?run=a", "POST", "token=wrong", **form)
    assert refused.status == 403
    assert b"not the token of this viewer" in refused.body
    answer = client.get("/viewer?run=a", "POST", TOKEN.query, **form)
    assert answer.status == 303
    assert answer.headers["Location"] == "/viewer?run=a"
    assert client.cookie in answer.headers["Set-Cookie"]


def test_an_old_token_in_a_bookmark_is_ignored_by_a_browser_with_the_cookie(client: Client):
    answer = client.get("/viewer?token=old&run=a", Cookie=client.cookie)
    assert (answer.status, answer.headers["Location"]) == (303, "/viewer?run=a")


def test_the_token_leads_to_no_other_server(client: Client):
    answer = client.get(f"//attacker.example/?{TOKEN.query}")
    assert answer.headers["Location"] == "/attacker.example/"
    for path in ("%2F%5C", "%2F%09%2F", "%09%2F%2F", "%2F%0A%2F", "%20%2F%2F"):
        answer = client.get(f"/viewer?next={path}attacker.example&{TOKEN.query}")
        assert answer.headers["Location"] == "/attacker.example"


def test_websockets_open_only_for_the_page_itself(client: Client):
    session = session_of(client.get("/viewer", Cookie=client.cookie))
    own = {"Cookie": client.cookie, "Origin": f"http://{client.host}"}
    assert client.open_socket(session, **own) == 101
    assert client.open_socket(session, Origin=own["Origin"]) == 403
    for origin in ("http://attacker.example", "null", f"http://127.0.0.1:{client.port + 1}"):
        assert client.open_socket(session, **{**own, "Origin": origin}) == 403


def test_the_page_can_be_opened_by_both_names_of_loopback(client: Client):
    """The printed address stayed empty: websockets were open to "localhost" only."""
    for name in ("localhost", "127.0.0.1", "[::1]"):
        host = f"{name}:{client.port}"
        session = session_of(client.get("/viewer", Cookie=client.cookie, Host=host))
        headers = {"Cookie": client.cookie, "Host": host, "Origin": f"http://{host}"}
        assert client.open_socket(session, **headers) == 101


def test_the_page_does_not_contain_the_cookie(client: Client):
    """Bokeh writes what it received into the page, where its script could read it."""
    page = client.get("/viewer", Cookie=client.cookie)
    payload = session_of(page).split(".")[0]
    assert page.status == 200
    assert TOKEN.cookie_value.encode() not in page.body
    decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    assert TOKEN.cookie_value.encode() not in decoded


def test_a_server_whose_output_was_closed_did_not_end(tmp_path: Path):
    """It printed that it ends, which failed."""
    server = subprocess.Popen(
        [sys.executable, *app_options(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        port = port_of(server.stdout.readline())
        server.stdout.close()
        assert Client(port).get("/viewer").status == 403  # it serves
        server.terminate()
        assert server.wait(timeout=120) == 0
    finally:
        server.kill()
        server.wait()


def test_a_large_body_is_not_read(client: Client):
    with contextlib.suppress(ConnectionError):  # the server may close while the body is sent
        assert client.get("/viewer", "POST", "x" * 2**20).status == 400


# ---------------------------------------------------------------------- frames, TLS, open binds


def test_a_notebook_may_embed_the_page_if_it_has_the_token(tmp_path: Path):
    with view(tmp_path, "--allow-frame") as output:
        client = Client(port_of(output))
        framed = client.get(f"/viewer?{TOKEN.query}", Sec_Fetch_Dest="iframe")
        assert framed.status == 200
        assert "X-Frame-Options" not in framed.headers
        assert client.get("/viewer", Sec_Fetch_Dest="iframe").status == 403
        assert client.get("/viewer/autoload.js?bokeh-autoload-element=x").status == 403
        origin = f"http://{client.host}"
        assert client.open_socket(session_of(framed), Origin=origin) == 101
        assert client.open_socket(session_of(framed), Origin="http://attacker.example") == 403


def test_a_self_signed_certificate_encrypts_the_page(tmp_path: Path):
    with view(tmp_path, "--host", "0.0.0.0", "--self-signed") as output:
        context = ssl.create_default_context(cafile=str(tmp_path / "viewer-certificate.pem"))
        client = Client(port_of(output), context)  # checks the name, too
        assert "https://" in output
        assert client.get("/viewer").status == 403
        answer = client.get(f"/viewer?{TOKEN.query}")
        assert "Secure" in answer.headers["Set-Cookie"]
        assert client.get("/viewer", Cookie=client.cookie).status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1"])
def test_other_machines_do_not_reach_the_page_without_encryption(host: str):
    with pytest.raises(RevacnnError, match="--self-signed") as refused:
        require_tls_if_public(ServerOptions(host=host, port=5007))
    assert f"--host {host or '0.0.0.0'} --port 5007 --self-signed" in str(refused.value)
    assert "ssh -N -L 5007:127.0.0.1:5007" in str(refused.value)
    require_tls_if_public(ServerOptions(host=host, is_self_signed=True))
    require_tls_if_public(ServerOptions(host="127.0.0.1"))


def test_contradictory_certificates_are_refused(tmp_path: Path):
    pem = ensure_self_signed_certificate(["localhost"])
    with pytest.raises(RevacnnError, match="requires --certfile"):
        require_tls_if_public(ServerOptions(key=pem))
    with pytest.raises(RevacnnError, match="use either"):
        require_tls_if_public(ServerOptions(certificate=pem, is_self_signed=True))


# ---------------------------------------------------------------------- bokeh serve


def serve(runtime: Path, port: int, *arguments: str) -> contextlib.AbstractContextManager[str]:
    options = ["serve", "viewer", "--port", str(port), *arguments]
    return command(runtime, "-m", "bokeh", *options, until="revacnn view", BOKEH_RESOURCES="server")


ADMITS_EVERYBODY = """
login_url = "/login"
def get_user(handler):
    return "anybody"
"""


def test_a_module_that_admits_everybody_shows_nothing_without_the_token(tmp_path: Path):
    client, module = Client(free_port()), tmp_path / "module.py"
    module.write_text(ADMITS_EVERYBODY)
    with serve(tmp_path, client.port, "--auth-module", str(module)) as output:
        assert TOKEN.query in output
        assert "--address 127.0.0.1" in output
        for path in ("/viewer", "/viewer?token=wrong"):
            refused = client.get(path)
            assert b"Open the complete address" in refused.body
            assert not OF_A_RUN.search(refused.body)
        script = client.get("/viewer/autoload.js?bokeh-autoload-element=x")
        assert not re.search(rb'"roots":\{"', script.body)  # a session without anything in it
        rebound = client.get(f"/viewer?{TOKEN.query}", Host="evil.example:5006")
        assert not OF_A_RUN.search(rebound.body)
        page = client.get(f"/viewer?{TOKEN.query}")
        assert b'id="app"' in page.body
        assert re.search(rb'"roots":\{"', page.body)
        assert client.cookie.encode() in page.body  # the page sets it
        assert b'id="app"' in client.get("/viewer", Cookie=client.cookie).body


def first_message(port: int, session: str, headers: dict[str, str]) -> str:
    """Return what Bokeh sends first through a websocket."""

    async def receive() -> str:
        request = HTTPRequest(f"ws://127.0.0.1:{port}/viewer/ws", headers=headers)
        socket = await websocket_connect(request, subprotocols=["bokeh", session])
        message = await asyncio.wait_for(socket.read_message(), 60)
        socket.close()
        while await asyncio.wait_for(socket.read_message(), 60) is not None:
            pass  # until the server has closed it, too
        return str(message)

    return asyncio.run(receive())


@pytest.mark.parametrize("arguments", [[], ["--auth-module", "viewer/auth.py"]])
def test_bokeh_serve_protected_nothing_without_an_option(tmp_path: Path, arguments: list[str]):
    """No headers, a cookie that scripts read, and any name of the server without --auth-module."""
    client = Client(free_port())
    with serve(tmp_path, client.port, *arguments):
        for path in ("/viewer", "/viewer/metadata", "/"):
            refused = client.get(path)
            assert refused.status == 302
            assert refused.headers["Location"].startswith("/login?next=")
        assert client.get("/login").status == 403
        assert "frame-ancestors" in client.get("/login").headers["Content-Security-Policy"]
        assert not OF_A_RUN.search(client.get("/viewer/autoload.js?bokeh-autoload-element=x").body)
        page = client.get(f"/viewer?{TOKEN.query}")
        assert b'id="app"' in page.body
        assert "HttpOnly" in page.headers["Set-Cookie"]
        assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
        assert b'id="app"' in client.get("/viewer", Cookie=client.cookie).body
        host = f"localhost:{client.port}"
        headers = {"Host": host, "Origin": f"http://{host}", "Cookie": client.cookie}
        # The page never came to life: the module set a header of the open websocket, which failed.
        assert "ACK" in first_message(client.port, session_of(page), headers)
        assert client.open_socket(session_of(page), Host=host, Origin=f"http://{host}") == 403
        page = client.get("/viewer", Cookie=f"{client.cookie}; revacnn-theme=light")
        payload = get_token_payload(session_of(page))
        assert payload["cookies"] == {"revacnn-theme": "light"}
        assert TOKEN.cookie_value not in str(payload)
        for headers in (
            {"Host": "evil.example"},
            {"Host": host, "Origin": "http://evil.example"},
        ):
            for path in ("/viewer", "/viewer/metadata", "/", "/login"):
                refused = client.get(f"{path}?{TOKEN.query}", **headers, Cookie=client.cookie)
                assert refused.status == 403
                assert b"--allow-websocket-origin" in refused.body
                assert "frame-ancestors" in refused.headers["Content-Security-Policy"]
                assert refused.headers["Set-Cookie"] is None
            assert client.open_socket(session_of(page), **headers, Cookie=client.cookie) == 403


@pytest.fixture
def own_address() -> str:
    """An address of this machine that is not the loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # which sends nothing
        except OSError:
            pytest.skip("this machine has no other address")
        return str(probe.getsockname()[0])


def test_bokeh_serve_showed_the_page_to_other_machines_without_encryption(
    tmp_path: Path, own_address: str
):
    client = Client(free_port())
    near = {"Host": client.host, "Cookie": client.cookie}
    with serve(tmp_path, client.port):
        page = client.get("/viewer", **near)
        assert b'id="app"' in page.body
        client.address = own_address
        for path in ("/viewer", f"/viewer?{TOKEN.query}", "/viewer/metadata", "/", "/login"):
            refused = client.get(path, **near)
            assert refused.status == 403
            command = f"revacnn view --host 0.0.0.0 --port {client.port} --self-signed"
            assert command in refused.body.decode()
        assert client.open_socket(session_of(page), **near) == 403


def test_bokeh_serve_shows_the_page_to_other_machines_with_encryption(
    tmp_path: Path, own_address: str
):
    pem = ensure_self_signed_certificate(["localhost"])
    context = ssl.create_default_context(cafile=str(pem))
    context.check_hostname = False
    client = Client(free_port(), context)
    client.address = own_address
    with serve(tmp_path, client.port, "--ssl-certfile", str(pem)):
        host = f"localhost:{client.port}"
        page = client.get(f"/viewer?{TOKEN.query}", Host=host)
        assert b'id="app"' in page.body
        assert "Secure" in page.headers["Set-Cookie"]
