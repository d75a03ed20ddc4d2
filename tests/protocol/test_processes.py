"""Whether a process still exists, also if its pid belongs to another one by now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from revacnn_lightning.protocol.processes import (
    boot_id_of,
    has_process_exited,
    is_process_suspended,
    machine_id,
    process_start,
)
from tests.protocol.stopped_process import stopped_process
from tests.protocol.test_sockets import until

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def test_this_process_exists():
    assert not has_process_exited(os.getpid())
    assert not has_process_exited(os.getpid(), process_start(os.getpid()))


@needs_proc
def test_a_process_with_the_pid_of_an_exited_one_is_another_one():
    assert has_process_exited(os.getpid(), process_start(os.getpid()) - 1)


def test_a_process_that_nobody_waited_for_has_exited():
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # until it exits
    process.stdout.close()
    process.wait()
    assert has_process_exited(process.pid)


@needs_proc
def test_the_machine_is_known():
    boot, _, namespace = machine_id().partition("/")
    assert boot == boot_id_of(machine_id()) != ""
    assert namespace.isdigit()


@needs_proc
def test_a_stopped_process_is_stopped_until_it_continues():
    with stopped_process() as process:
        start = process_start(process.pid)
        assert is_process_suspended(process.pid, start)
        assert not is_process_suspended(process.pid, start - 1)  # of an earlier process
        process.send_signal(signal.SIGCONT)
        until(lambda: not is_process_suspended(process.pid))
    assert not is_process_suspended(os.getpid())
