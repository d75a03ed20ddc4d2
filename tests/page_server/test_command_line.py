"""The options of the page's server on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from revacnn_lightning.page_server.command_line import (
    add_server_options,
    parse_server_options,
    server_arguments,
)
from revacnn_lightning.page_server.server import ServerOptions


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
    parsed = parser.parse_args(server_arguments(namespace))
    assert parse_server_options(parsed) == options
