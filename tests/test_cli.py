"""The `revacnn` command, run as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from msgspec.structs import replace

import revacnn_lightning
from revacnn_lightning import cli
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.sockets import Keys

COMMAND = [sys.executable, "-m", "revacnn_lightning"]

SCRIPT = """
import signal, sys, time
print("training", *sys.argv[1:], flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("ended by Ctrl-C", flush=True)
    sys.exit(1)  # as Lightning does
"""


def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
    options.setdefault("stdin", subprocess.DEVNULL)  # which otherwise may be a terminal
    options.setdefault("stderr", subprocess.STDOUT)
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        **options,
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"{pattern!r} was never printed, but: {output}")


def is_served(address: str) -> bool:
    """Return whether a browser, which keeps cookies, can open an address."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    try:
        with browser.open(address, timeout=60) as page:
            return page.status == 200
    except OSError:
        return False


def test_runs_names_the_directory_if_there_are_none(
    capsys: pytest.CaptureFixture[str], runtime_dir: Path
):
    assert cli.main(["runs"]) == 0
    assert str(runtime_dir) in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"revacnn {revacnn_lightning.__version__}\n"


@pytest.mark.parametrize("shell", cli.SHELLS)
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("doctor", "launch", "--self-signed"))


def test_completion_names_the_package_that_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 1
    assert "pip install shtab" in capsys.readouterr().err


def test_launch_starts_no_viewer_for_a_script_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    started: list[object] = []
    monkeypatch.setattr(cli.ViewerProcess, "start", started.append)
    script = tmp_path / "missing.py"
    assert cli.main(["launch", str(script)]) == 1
    assert f"there is no script {script}" in capsys.readouterr().err
    assert not started


def test_the_viewer_is_found_in_a_clone():
    assert (cli.viewer_dir() / "main.py").is_file()


def test_view_serves_the_page_until_ctrl_c():
    viewer = start("view", "--no-open", "--port", "0")
    address = read_until(viewer, r"Viewer: (http://127\.0\.0\.1:\d+/viewer\?token=\S+)")[1]
    assert not is_served(address.split("?")[0])
    assert is_served(address)
    viewer.send_signal(signal.SIGINT)
    assert viewer.wait(timeout=240) == 0
    assert not is_served(address)
    viewer.stdout.close()


def test_view_reports_a_port_in_use():
    first = start("view", "--no-open", "--port", "0")
    port = read_until(first, r":(\d+)/")[1]
    second = subprocess.run(
        [*COMMAND, "view", "--no-open", "--port", port], capture_output=True, text=True, timeout=240
    )
    first.terminate()
    first.wait(timeout=240)
    first.stdout.close()
    assert second.returncode == 1
    assert f"cannot serve on 127.0.0.1:{port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_no_page_is_launched_for_other_machines_without_encryption(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text("print('training')")
    launch = start("launch", "--no-open", "--host", "0.0.0.0", str(script))
    output, _ = launch.communicate(timeout=240)
    assert launch.returncode == 1
    assert "revacnn view --host 0.0.0.0 --port 5006 --self-signed" in output
    assert "training" not in output.splitlines()


def test_ctrl_c_ends_the_launched_training_and_its_viewer(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launch = start(
        "launch", "--no-open", "--port", "0", str(script), "--lr", "0.1", start_new_session=True
    )
    address = read_until(launch, r"Open this page:\s+(http\S+)")[1]
    read_until(launch, r"training --lr 0\.1")
    assert is_served(address)
    os.killpg(launch.pid, signal.SIGINT)  # like a terminal, to the whole foreground group
    read_until(launch, "ended by Ctrl-C")
    assert launch.wait(timeout=240) == 0
    launch.stdout.close()
    time.sleep(0.2)
    assert not is_served(address)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_in_a_terminal_the_page_stays_available_after_training(tmp_path: Path, end: signal.Signals):
    pty = pytest.importorskip("pty")
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit(3)")
    ours, terminal = pty.openpty()
    launch = start("launch", "--no-open", "--port", "0", str(script), stdin=terminal)
    try:
        address = read_until(launch, r"stays available until Ctrl-C:\s+(http\S+)")[1]
        assert is_served(address)
        time.sleep(0.5)
        assert launch.poll() is None
        launch.send_signal(end)
        assert launch.wait(timeout=240) == 3
    finally:
        launch.kill()
        launch.stdout.close()
        os.close(ours)
        os.close(terminal)
    time.sleep(0.2)
    assert not is_served(address)


def test_launch_returns_the_status_of_the_script(tmp_path: Path):
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit(3)")
    launch = start("launch", "--no-open", "--port", "0", str(script))
    assert launch.wait(timeout=240) == 3
    launch.stdout.close()


def test_doctor_exits_with_1_if_something_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert cli.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert cli.main(["doctor", "--connect", str(tmp_path / "none.json")]) == 1
    assert "there is no connection file" in capsys.readouterr().out


def test_runs_did_not_say_that_nobody_listens_at_a_run(capsys: pytest.CaptureFixture[str]):
    gone = ("ipc:///tmp/revacnn-gone/telemetry", "ipc:///tmp/revacnn-gone/requests")
    connection_file.write(
        Connection.of_this_process(
            run="a", telemetry_endpoint=gone[0], request_endpoint=gone[1], server_key="k" * 40
        )
    )
    assert cli.main(["runs"]) == 0
    assert capsys.readouterr().out.endswith("(nobody listens at its sockets)\n")


def test_an_error_about_a_connection_file_controlled_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    ended = Connection.of_this_process(
        run="gg\x1b[31m", telemetry_endpoint="ipc:///tmp/revacnn-gone/telemetry",
        request_endpoint="ipc:///tmp/revacnn-gone/requests",
        server_key=Keys.generate().public,
    )  # fmt: skip
    file = connection_file.write(replace(ended, process_start=1), tmp_path / "run.json")
    assert cli.main(["share", "--list", "--connect", str(file)]) == 1
    assert capsys.readouterr().err.startswith("revacnn: run gg\\x1b[31m has ended")


def test_output_that_nobody_reads_ended_in_a_traceback():
    process = start("runs", stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()  # as `head` does
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1


def test_runs_names_those_of_another_version(capsys: pytest.CaptureFixture[str]):
    connection_file.write(Connection("a", "", "", "", protocol=99, release="7.1"))
    assert cli.main(["runs"]) == 0
    assert "revacnn-lightning 7.1, which is newer" in capsys.readouterr().out
