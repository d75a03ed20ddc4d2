"""Alerts reach the target of the user, and its failures reach nothing."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from revacnn_lightning import ReVACNN
from revacnn_lightning.protocol.alerts import Alert
from revacnn_lightning.runtime.alert_delivery import AlertDelivery

ALERT = Alert("nonfinite_loss", 5, "The loss is nan at batch 5.", "", 1000.0)
ABOUT = {"model": "Net", "name": "wide stem"}


def deliver(target: object) -> None:
    delivery = AlertDelivery(target, ABOUT)  # type: ignore[arg-type]
    delivery.send(ALERT)
    delivery.close()


def test_a_function_receives_the_alert():
    received: list[Alert] = []
    deliver(received.append)
    assert received == [ALERT]


@pytest.mark.parametrize("as_text", [True, False])
def test_a_command_reads_the_alert_from_its_input(tmp_path: Path, as_text: bool):
    file = tmp_path / "alert.json"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    command = [sys.executable, "-c", code, str(file)]
    deliver(f'{sys.executable} -c "{code}" {file}' if as_text else command)
    content = json.loads(file.read_text())
    assert content["text"] == "wide stem: The loss is nan at batch 5."
    assert (content["kind"], content["step"], content["model"]) == ("nonfinite_loss", 5, "Net")


def test_a_webhook_receives_json():
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    deliver(f"http://127.0.0.1:{server.server_port}/hook")
    thread.join(60)
    server.server_close()
    [(path, kind, content)] = received
    assert (path, kind) == ("/hook", "application/json")
    assert content["text"] == "wide stem: The loss is nan at batch 5."


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/secret", ["false"], ["/no/such/command"], lambda _: 1 / 0]
)
def test_a_target_that_fails_is_logged_without_its_address(
    target: object, caplog: pytest.LogCaptureFixture
):
    deliver(target)
    assert "was not delivered" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("target", ["ftp://host/x", "file:///etc/passwd", "", [], 7, [1]])
def test_other_targets_are_refused_before_the_training(target: object):
    with pytest.raises(ValueError, match="address of a webhook"):
        ReVACNN(alert=target)  # type: ignore[arg-type]
