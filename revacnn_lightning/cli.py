"""The ``revacnn`` command: view, launch, list and share runs, and list edits."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from revacnn_lightning import __version__
from revacnn_lightning.client.share_command import add_share_command
from revacnn_lightning.client.viewer_process import ViewerProcess
from revacnn_lightning.errors import MissingPackageError, RevacnnError
from revacnn_lightning.page_server.browser import open_in_browser
from revacnn_lightning.page_server.certificate import certificate_fingerprint
from revacnn_lightning.page_server.command_line import (
    add_server_options,
    format_server_options,
    parse_server_options,
)
from revacnn_lightning.page_server.server import bind_page_server, require_tls_if_public
from revacnn_lightning.recording.commands import (
    add_export_command,
    add_replay_options,
    format_replay_options,
)

__all__ = ["main"]

SHELLS = ("bash", "zsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the ``revacnn`` command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed at the exit
        return 1
    except RevacnnError as error:
        from revacnn_lightning.protocol.plain_text import escape_control_characters

        # An error may contain what a connection file says.
        lines = "\n".join(map(escape_control_characters, str(error).split("\n")))
        print(f"revacnn: {lines}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="revacnn", description="Monitor and steer a CNN while PyTorch Lightning trains it."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    view = commands.add_parser("view", help="serve the viewer of a run")
    view.add_argument("--connect", metavar="FILE", help="connection file (default: newest run)")
    add_replay_options(view)
    _add_view_options(view)
    view.set_defaults(run=_view)

    launch = commands.add_parser("launch", help="run a training script and its viewer")
    _add_view_options(launch)
    launch.add_argument("script", help="the Python script that trains with the ReVACNN callback")
    launch.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the script")
    launch.set_defaults(run=_launch)

    runs = commands.add_parser("runs", help="list the runs on this machine")
    runs.set_defaults(run=_runs)

    doctor = commands.add_parser("doctor", help="check what viewing a run needs")
    doctor.add_argument("--connect", metavar="FILE", type=Path, help="only the run of this file")
    doctor.add_argument("--page", metavar="URL", help="the address that `revacnn view` has printed")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)

    add_share_command(commands)
    add_export_command(commands)

    mcp = commands.add_parser(
        "mcp", help="serve a run to agents, by the Model Context Protocol on standard input/output"
    )
    mcp.add_argument("--connect", metavar="FILE", help="connection file (default: newest run)")
    mcp.add_argument(
        "--operator",
        action="store_true",
        help="let agents edit and control the run; without it, they only observe it",
    )
    mcp.set_defaults(run=_mcp)

    journal = commands.add_parser("journal", help="print the edits in a checkpoint")
    journal.add_argument("checkpoint", type=Path)
    journal.add_argument(
        "--script",
        action="store_true",
        help="print a Python script that applies the edits to a new model",
    )
    journal.set_defaults(run=_journal)

    completion = commands.add_parser("completion", help="print the completion of a shell")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=_completion)
    return parser


def _add_view_options(parser: argparse.ArgumentParser) -> None:
    add_server_options(parser)
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")


# ---------------------------------------------------------------------- revacnn view


def viewer_dir() -> Path:
    """Return the folder of the Bokeh application, in an installed package or in a clone."""
    here = Path(__file__).parent
    for folder in (here / "_viewer", here.parent / "viewer"):
        if (folder / "main.py").is_file():
            return folder
    raise RevacnnError(
        f"the viewer is missing from the installation in {here}; reinstall revacnn-lightning"
    )


def _view(options: argparse.Namespace) -> int:
    arguments = ["--connect", options.connect] if options.connect else []
    arguments += format_replay_options(options)
    server = bind_page_server(viewer_dir(), arguments, parse_server_options(options))
    if options.self_signed and server.certificate is not None:
        shown = certificate_fingerprint(server.certificate)
        print(f"SHA-256 fingerprint of the certificate: {shown}", file=sys.stderr)
    print(f"Viewer: {server.address}", flush=True)
    print("Press Ctrl-C to stop the viewer. Training continues without it.", flush=True)
    if not options.no_open:
        open_in_browser(server.address)
    server.run_until_shutdown()
    return 0


# ---------------------------------------------------------------------- revacnn launch


def _launch(options: argparse.Namespace) -> int:
    """Run the viewer in the background and the script in the foreground; Ctrl-C stops both.

    In a terminal, the page stays available after the training has finished, until Ctrl-C.
    """
    if not Path(options.script).exists():
        raise RevacnnError(f"there is no script {options.script}")
    require_tls_if_public(parse_server_options(options))  # a clear message before the start
    viewer = ViewerProcess.start(format_server_options(options))
    address = viewer.address
    print(f"\n  Open this page:  {address}\n", flush=True)
    if not options.no_open:
        open_in_browser(address)
    try:
        command = [sys.executable, options.script, *options.arguments]
        status, interrupted = _run_in_foreground(command)
        if not interrupted and sys.stdin.isatty():
            print(
                f"\n  Training has finished. The page stays available until Ctrl-C:  {address}\n",
                flush=True,
            )
            _wait_for_interrupt(viewer)
        return 0 if interrupted else status
    finally:
        viewer.stop()


def _wait_for_interrupt(viewer: ViewerProcess) -> None:
    """Wait for Ctrl-C, SIGTERM or SIGHUP, or until the viewer exits."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # SIGHUP: the terminal was closed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        viewer.wait()


def _run_in_foreground(command: list[str]) -> tuple[int, bool]:
    """Run a command in this terminal, and wait until it has exited.

    Ctrl-C interrupts the command only, which is a regular way to end a training.

    Returns:
        The exit status of the command, and whether it was interrupted.
    """
    interrupted = False

    def record_interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True

    def forward_as_interrupt(*_: object) -> None:
        record_interrupt()
        script.send_signal(signal.SIGINT)

    # A child inherits an ignored Ctrl-C (in a background job), so restore the default first.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    script = subprocess.Popen(command)
    signal.signal(signal.SIGINT, record_interrupt)
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, forward_as_interrupt)
    try:
        status = script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, interrupted


# ---------------------------------------------------------------------- revacnn runs


def _runs(options: argparse.Namespace) -> int:
    from revacnn_lightning.protocol import run_discovery
    from revacnn_lightning.protocol.connection_file import runtime_dir
    from revacnn_lightning.protocol.plain_text import escape_control_characters

    runs, unusable = run_discovery.list_runs(), run_discovery.find_unusable_connection_files()
    for reason in unusable.values():
        print(escape_control_characters(f"Not usable: {reason}"))
    if not runs and not unusable:
        print(f"No training is running (no live connection file in {runtime_dir()}).")
    for run in runs:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.start_time))
        names = f"{run.name}  {run.model}" if run.name else run.model
        line = f"{run.run}  {names}  since {started}  pid {run.pid} on {run.hostname}"
        if not run_discovery.is_reachable(run):
            line += "  (nobody listens at its sockets)"
        print(escape_control_characters(line))
    return 0


# ---------------------------------------------------------------------- revacnn doctor


def _doctor(options: argparse.Namespace) -> int:
    from revacnn_lightning.client.doctor.diagnosis import diagnose
    from revacnn_lightning.client.doctor.finding import format_findings, has_problem, to_json

    findings = list(diagnose(options.connect, viewer_dir, options.page))
    print(to_json(findings) if options.json else format_findings(findings))
    return int(has_problem(findings))


# ---------------------------------------------------------------------- revacnn journal


def _journal(options: argparse.Namespace) -> int:
    try:
        from revacnn_lightning.steering import Journal
        from revacnn_lightning.steering.checkpoint import find_edit_state
        from revacnn_lightning.steering.journal_text import format_journal, format_script
        from revacnn_lightning.steering.loading import read_checkpoint
    except ImportError as error:
        raise RevacnnError(
            "reading checkpoints requires torch: pip install 'revacnn-lightning[train]'"
        ) from error
    try:
        state = find_edit_state(read_checkpoint(options.checkpoint))
    except OSError as error:
        raise RevacnnError(f"{options.checkpoint} is not a readable checkpoint: {error}") from error
    if state is None:
        print(f"{options.checkpoint} contains no edits.")
        return 0
    edits = Journal.from_data(state["journal"])
    print(format_script(edits) if options.script else format_journal(edits))
    return 0


# ---------------------------------------------------------------------- revacnn mcp


def _mcp(options: argparse.Namespace) -> int:
    from revacnn_lightning.client.mcp_server import serve_on_stdio
    from revacnn_lightning.client.tools import Toolbox

    serve_on_stdio(Toolbox(options.connect, is_operator=options.operator))
    return 0


# ---------------------------------------------------------------------- revacnn completion


def _completion(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise MissingPackageError("completion requires shtab: pip install shtab") from error
    print(shtab.complete(_parser(), options.shell))
    return 0
