"""The options of the page's server on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from revacnn_lightning.page_server.command_line import (
    add_server_options,
    format_server_options,
    parse_server_options,
)
from revacnn_lightning.page_server.server import ServerOptions


@pytest.mark.parametrize("port", ["65536", "99999", "-1", "x", "5006.0", "٥٠٠٦"])
def test_a_port_that_does_not_exist_was_replaced_by_another_one(
    port: str, capsys: pytest.CaptureFixture[str]
):
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    assert parser.parse_args(["--port", "65535"]).port == 65535
    with pytest.raises(SystemExit):
        parser.parse_args([f"--port={port}"])
    assert "is not a port: choose one up to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ServerOptions(allowed_origins=[]),
        ServerOptions(
            host="0.0.0.0", port=0, allowed_origins=[], is_self_signed=True, may_be_framed=True
        ),
        ServerOptions(certificate=Path("a.pem"), key=Path("b.pem"), allowed_origins=["a", "b:1"]),
    ],
)
def test_launch_passes_all_options_on_to_view(options: ServerOptions):
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    namespace = argparse.Namespace(
        host=options.host,
        port=options.port,
        certfile=options.certificate,
        keyfile=options.key,
        allow_origin=options.allowed_origins,
        self_signed=options.is_self_signed,
        allow_frame=options.may_be_framed,
    )
    parsed = parser.parse_args(format_server_options(namespace))
    assert parse_server_options(parsed) == options
