"""Which requests reach Bokeh's server."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from revacnn_lightning.page_server.allowed_hosts import AllowedHosts
from revacnn_lightning.page_server.gate import HasForeignHostOrOrigin, IsAllowedInFrame, NeedsSignIn
from tests.viewer.processes import TOKEN, access_cookie

HOST = "localhost:5006"
COOKIE = "{name}={value}".format(**access_cookie(f"http://{HOST}/viewer"))


def request(uri: str = "/viewer", host: str = HOST, **headers: str) -> HTTPServerRequest:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    start_line = RequestStartLine("GET", uri, "HTTP/1.1")
    return HTTPServerRequest(start_line=start_line, headers=HTTPHeaders({"Host": host, **names}))


def test_requests_by_other_names_or_of_other_origins_come_from_elsewhere():
    elsewhere = HasForeignHostOrOrigin(AllowedHosts())
    assert elsewhere.match(request()) is None
    assert elsewhere.match(request(Origin=f"http://{HOST}")) is None
    assert elsewhere.match(request(host="attacker.example:5006")) is not None
    assert elsewhere.match(request(Origin="http://attacker.example")) is not None
    rebound = request(host="attacker.example:5006", Origin="http://attacker.example:5006")
    assert elsewhere.match(rebound) is not None


def test_a_request_needs_the_cookie():
    signed_out = NeedsSignIn()
    assert signed_out.match(request(Cookie=COOKIE)) is None
    assert signed_out.match(request()) is not None
    assert signed_out.match(request(Cookie=f"{COOKIE[:-1]}x")) is not None
    assert signed_out.match(request(host="localhost:5007", Cookie=COOKIE)) is not None


def test_an_address_with_a_token_gets_rid_of_it_first():
    assert NeedsSignIn().match(request(f"/viewer?{TOKEN.query}", Cookie=COOKIE)) is not None


@pytest.mark.parametrize(
    ("uri", "is_open"),
    [
        (f"/viewer?run=a&{TOKEN.query}", True),
        ("/viewer", False),
        ("/viewer?token=wrong", False),
        (f"/viewer/autoload.js?{TOKEN.query}", False),
        (f"/viewer/metadata?{TOKEN.query}", False),
        ("/static/js/bokeh.min.js", True),
        ("/viewer/static/main.js", True),
        ("/viewer/ws", True),  # Bokeh checks its signed session
    ],
)
def test_in_a_frame_the_page_needs_the_token_in_its_address(uri: str, is_open: bool):
    framed = IsAllowedInFrame("/viewer").match(request(uri, Sec_Fetch_Dest="iframe", Cookie=COOKIE))
    assert (framed is not None) == is_open


def test_outside_of_frames_the_token_is_exchanged_as_always():
    document = request(f"/viewer?{TOKEN.query}", Sec_Fetch_Dest="document")
    assert IsAllowedInFrame("/viewer").match(document) is None
