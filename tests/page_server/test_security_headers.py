"""What browsers let the page do."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from revacnn_lightning.page_server.security_headers import (
    NONCE,
    add_nonce_to_scripts,
    content_security_policy,
    security_headers_transform,
)


def test_the_page_loads_nothing_from_other_servers():
    policy = content_security_policy("localhost:5006")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self' ws://localhost:5006 wss://localhost:5006;" in policy
    assert "https:" not in policy
    assert "*" not in policy
    assert "script-src 'self' 'nonce-" in policy
    assert "unsafe-eval" not in policy


def test_a_host_header_cannot_extend_the_policy():
    assert "evil" not in content_security_policy("evil; script-src *")


def test_notebooks_may_frame_the_page_only_if_asked_for():
    assert "frame-ancestors" not in content_security_policy("localhost", may_be_framed=True)


def test_only_an_address_with_a_token_may_be_framed():
    """With the cookie alone, a page of another port of the machine could embed the page."""
    transform = security_headers_transform(may_be_framed=True)
    for uri, is_framable in (("/viewer", False), ("/viewer?token=any", True)):
        start_line = RequestStartLine("GET", uri, "HTTP/1.1")
        request = HTTPServerRequest(start_line=start_line, headers=HTTPHeaders({"Host": "a"}))
        _, headers, _ = transform(request).transform_first_chunk(200, HTTPHeaders(), b"", True)
        assert ("X-Frame-Options" not in headers) == is_framable
        assert ("frame-ancestors" not in headers["Content-Security-Policy"]) == is_framable


def test_only_script_elements_at_the_start_of_a_line_are_marked():
    scripts = '<script src="a.js"></script>\n  <script>\nconst a = "x<script>"\n</script><scripts>'
    marked = add_nonce_to_scripts(scripts)
    assert marked.count(NONCE) == 2
    assert f'<script nonce="{NONCE}" src="a.js">' in marked
    assert 'const a = "x<script>"' in marked
