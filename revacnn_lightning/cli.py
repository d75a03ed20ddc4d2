"""The ``revacnn`` command: view a run, start a training with its viewer beside it, list runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from revacnn_lightning.errors import RevacnnError

__all__ = ["main"]

DEFAULT_PORT = 5006
START_SECONDS = 60.0  # how long a viewer may take to listen, first start on a slow machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``revacnn``; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except RevacnnError as error:
        print(f"revacnn: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="revacnn", description="Watch and steer a CNN while PyTorch Lightning trains it."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    view = commands.add_parser("view", help="serve the page on which a run is watched")
    view.add_argument("--connect", metavar="FILE", help="connection file (default: newest run)")
    _add_server_options(view)
    view.set_defaults(run=_view)

    launch = commands.add_parser("launch", help="run a training script with the viewer beside it")
    _add_server_options(launch)
    launch.add_argument("script", help="the Python script that trains with the ReVACNN callback")
    launch.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    launch.set_defaults(run=_launch)

    runs = commands.add_parser("runs", help="list the runs on this machine")
    runs.set_defaults(run=_runs)

    journal = commands.add_parser("journal", help="print the edits that a checkpoint holds")
    journal.add_argument("checkpoint", type=Path)
    journal.add_argument(
        "--script", action="store_true", help="as a Python script that repeats them on a new model"
    )
    journal.set_defaults(run=_journal)
    return parser


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, help=f"default: {DEFAULT_PORT}, or a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")


# ---------------------------------------------------------------------- revacnn view


def viewer_dir() -> Path:
    """The Bokeh application: inside an installed package, or beside it in a clone."""
    here = Path(__file__).parent
    for place in (here / "_viewer", here.parent / "viewer"):
        if (place / "main.py").is_file():
            return place
    raise RevacnnError(f"the viewer is missing from the installation in {here}; reinstall it")


def _view(options: argparse.Namespace) -> int:
    server = _serve(options)
    address = f"http://{options.host}:{server.port}/"
    print(f"Viewer: {address}", flush=True)
    print("Ctrl-C ends the viewer; a training goes on without it.", flush=True)
    if not options.no_open:
        _open_browser(address)
    server.run_until_shutdown()
    return 0


def _serve(options: argparse.Namespace) -> Any:
    """A Bokeh server of the viewer, listening. Any free port if the usual one is taken."""
    try:
        from bokeh.application import Application
        from bokeh.application.handlers import DirectoryHandler
        from bokeh.server.server import Server
    except ImportError as error:
        raise RevacnnError(
            "viewing needs Bokeh: pip install 'revacnn-lightning[viewer]'"
        ) from error
    arguments = ["--connect", options.connect] if options.connect else []
    application = Application(DirectoryHandler(filename=str(viewer_dir()), argv=arguments))
    wanted = [options.port] if options.port is not None else [DEFAULT_PORT, 0]
    for port in wanted:
        try:
            server = Server({"/viewer": application}, port=port, address=options.host)
        except OSError as error:
            if port == wanted[-1]:
                raise RevacnnError(f"cannot serve on {options.host}:{port}: {error}") from error
            continue
        server.start()
        return server
    raise AssertionError("unreachable: the last port either serves or raises")


def _open_browser(address: str) -> None:
    """Open the page where there is a screen; elsewhere the printed address has to do."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return
    webbrowser.open(address)


# ---------------------------------------------------------------------- revacnn launch


def _launch(options: argparse.Namespace) -> int:
    """Viewer in the background, script in the foreground; Ctrl-C or its end stops both.

    In a terminal, the page of a training that has ended by itself stays, to be read.
    """
    viewer, address = _start_viewer(options)
    print(f"\n  Open this page:  {address}\n", flush=True)
    if not options.no_open:
        _open_browser(address)
    try:
        command = [sys.executable, options.script, *options.arguments]
        status, interrupted = _run_in_foreground(command)
        if not interrupted and sys.stdin.isatty():
            print(
                f"\n  The training has ended; the page stays until Ctrl-C:  {address}\n", flush=True
            )
            _wait_for_interrupt(viewer)
        return 0 if interrupted else status
    finally:
        _stop(viewer)


def _wait_for_interrupt(viewer: subprocess.Popen[str]) -> None:
    """Wait for Ctrl-C, for a polite request to end, or until the viewer has ended by itself."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the last: the terminal is closed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        viewer.wait()


def _run_in_foreground(command: list[str]) -> tuple[int, bool]:
    """Run a command that shares our terminal: Ctrl-C is for it, and we wait until it has ended.

    Returns its status, and whether it was ended by Ctrl-C, which is how a training is meant to be.
    """
    interrupted = False

    def note_interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True

    def end_politely(*_: object) -> None:
        note_interrupt()
        script.send_signal(signal.SIGINT)

    # Where Ctrl-C is ignored (a job in the background), a child would ignore it for ever.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    script = subprocess.Popen(command)
    signal.signal(signal.SIGINT, note_interrupt)
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, end_politely)
    try:
        status = script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, interrupted


def _start_viewer(options: argparse.Namespace) -> tuple[subprocess.Popen[str], str]:
    """Start ``revacnn view`` in a session of its own (Ctrl-C is not for it) and learn its address.

    Raises:
        RevacnnError: it did not start.
    """
    command = [sys.executable, "-m", "revacnn_lightning", "view", "--no-open"]
    command += ["--host", options.host]
    command += ["--port", str(options.port)] if options.port is not None else []
    viewer = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
    )
    assert viewer.stdout is not None
    deadline = time.monotonic() + START_SECONDS
    for line in viewer.stdout:
        if line.startswith("Viewer: "):
            return viewer, line.removeprefix("Viewer: ").strip()
        if time.monotonic() > deadline:
            break
    _stop(viewer)
    raise RevacnnError("the viewer did not start; what it said stands above")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# ---------------------------------------------------------------------- revacnn runs


def _runs(options: argparse.Namespace) -> int:
    from revacnn_lightning.protocol.connection import list_runs, runtime_dir

    runs = list_runs()
    if not runs:
        print(f"No training is running (looked in {runtime_dir()}).")
    for run in runs:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.start_time))
        print(f"{run.run}  {run.model}  since {started}  pid {run.pid} on {run.hostname}")
    return 0


# ---------------------------------------------------------------------- revacnn journal


def _journal(options: argparse.Namespace) -> int:
    try:
        import torch

        from revacnn_lightning.steering import Journal
        from revacnn_lightning.steering.checkpoint import find_state
        from revacnn_lightning.steering.journal_text import format_journal, format_script
    except ImportError as error:
        raise RevacnnError(
            "reading checkpoints needs torch: pip install 'revacnn-lightning[train]'"
        ) from error
    try:
        checkpoint = torch.load(options.checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is no checkpoint makes torch raise
        raise RevacnnError(f"{options.checkpoint} is not a readable checkpoint: {error}") from error
    state = find_state(checkpoint) if isinstance(checkpoint, dict) else None
    if state is None:
        print(f"{options.checkpoint} holds no edits.")
        return 0
    edits = Journal.from_data(state["journal"])
    print(format_script(edits) if options.script else format_journal(edits))
    return 0
