"""``revacnn share``: hand out keys of a run, list them, and take them back."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from revacnn_lightning.protocol.key_requests import MAX_SECONDS

if TYPE_CHECKING:
    from revacnn_lightning.client.run import Run
    from revacnn_lightning.protocol.access_messages import KeyInfo

__all__ = ["add_share_command", "parse_duration"]

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def add_share_command(commands: Any) -> None:
    """Add the command to the subparsers of ``revacnn``."""
    parser = commands.add_parser("share", help="hand out keys of a run, or take them back")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--observer", action="store_true", help="write a file with which one can only observe"
    )
    what.add_argument(
        "--operator", action="store_true", help="write a file with which one can edit and control"
    )
    what.add_argument("--list", action="store_true", help="list the keys of the run")
    what.add_argument("--revoke", metavar="NAME", help="take a key back; training continues")
    parser.add_argument("--name", help="of the key, such as that of the person who gets it")
    parser.add_argument(
        "--expires",
        metavar="TIME",
        type=parse_duration,
        help="how long the key is valid, such as 12h or 2d (default: until the run ends)",
    )
    parser.add_argument("--connect", metavar="FILE", help="connection file (default: newest run)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="default: revacnn-NAME.json")
    parser.set_defaults(run=_execute)


def parse_duration(text: str) -> float:
    """Return the seconds of "90s", "30m", "12h", "2d" or "1w"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time such as 30m, 12h, 2d or 1w, of at most ten years"
        )
    return seconds


def _execute(options: argparse.Namespace) -> int:
    """Execute the command and return its exit status."""
    from revacnn_lightning.client.attach import attach

    with attach(options.connect) as run:
        if options.list:
            for key in run.list_keys():
                print(_line(key))
        elif options.revoke is not None:
            print(f"{run.revoke(options.revoke)}. Training continues.")
        else:
            _share(run, options)
    return 0


def _share(run: Run, options: argparse.Namespace) -> None:
    from revacnn_lightning.client import key_files
    from revacnn_lightning.protocol.plain_text import escape_control_characters

    role: Literal["operator", "observer"] = "operator" if options.operator else "observer"
    connection = run.share(role, name=options.name, seconds=options.expires)
    name = connection.key_name
    path = options.output or Path(f"revacnn-{name.replace(' ', '-')}.json")
    try:
        key_files.write_new_connection_file(connection, path)
    except Exception:
        run.revoke(name)  # nobody has it
        raise
    may = "edit and control" if role == "operator" else "observe, not change,"
    until = _until(connection.key_expires)
    title = escape_control_characters(connection.title)
    print(f"{path}: the key {name!r} may {may} {title} {until}.")
    print("Hand it over in private: whoever has the file has the key.")
    print(f"Use it:       revacnn view --connect {path}")
    print(f"Take it back: revacnn share --revoke '{name}'")
    if connection.telemetry_endpoint.startswith("ipc://"):
        print(
            "This run listens on Unix sockets, which only your own account reaches, also through "
            "ssh. For other accounts, start the training with ReVACNN(host='127.0.0.1') or another "
            "address."
        )


def _line(key: KeyInfo) -> str:
    from revacnn_lightning.protocol.plain_text import escape_control_characters

    state = _until(key.expires) if key.state == "valid" else key.state
    return escape_control_characters(f"{key.role:8}  {key.name}  {state}")


def _until(expires: float | None) -> str:
    if expires is None:
        return "until the run ends"
    return time.strftime("until %Y-%m-%d %H:%M", time.localtime(expires))
