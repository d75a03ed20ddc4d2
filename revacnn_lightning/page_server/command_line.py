"""The options of the page's server on the command line."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from revacnn_lightning.page_server.server import DEFAULT_PORT, ServerOptions

__all__ = ["add_server_options", "format_server_options", "parse_server_options"]

MAX_PORT = 65_535


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the page's server to a command."""
    parser.add_argument("--port", type=_parse_port, help=f"default: {DEFAULT_PORT}, or a free one")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve on; one that other machines reach requires a certificate",
    )
    parser.add_argument(
        "--self-signed", action="store_true", help="make a certificate, and serve by https"
    )
    parser.add_argument("--certfile", type=Path, metavar="PEM", help="certificate for https")
    parser.add_argument("--keyfile", type=Path, metavar="PEM", help="private key of --certfile")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="another name of this server, as behind a proxy; may be repeated",
    )
    parser.add_argument(
        "--allow-frame", action="store_true", help="let notebooks embed the page with its token"
    )


def _parse_port(text: str) -> int:
    """Return a port. The system would take 99999 for 34463."""
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port: choose one up to {MAX_PORT}, or 0 for a free one"
        )
    return int(text)


def parse_server_options(options: argparse.Namespace) -> ServerOptions:
    """Return the options of the page's server from parsed arguments."""
    return ServerOptions(
        host=options.host,
        port=options.port,
        allowed_origins=options.allow_origin,
        may_be_framed=options.allow_frame,
        certificate=options.certfile,
        key=options.keyfile,
        is_self_signed=options.self_signed,
    )


def format_server_options(options: argparse.Namespace) -> list[str]:
    """Return the command-line arguments that give another command the same options."""
    arguments = ["--host", options.host]
    for name in ("port", "certfile", "keyfile"):
        value = getattr(options, name)
        arguments += [] if value is None else [f"--{name}", str(value)]
    for origin in options.allow_origin:
        arguments += ["--allow-origin", origin]
    arguments += ["--self-signed"] if options.self_signed else []
    return arguments + (["--allow-frame"] if options.allow_frame else [])
