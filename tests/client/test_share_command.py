"""`revacnn share`: files with keys of their own, for other people."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from revacnn_lightning import (
    AddFilters,
    ConnectionFileError,
    ControlRun,
    EditRefusedError,
    KeyRefusedError,
    ObserverKeyError,
    attach,
    cli,
)
from revacnn_lightning.client.share_command import parse_duration
from revacnn_lightning.protocol import connection_file
from revacnn_lightning.protocol.local_sockets import HAS_UNIX_SOCKETS
from revacnn_lightning.runtime import key_commands
from revacnn_lightning.runtime.server import Endpoints
from tests.client.keyed_run import KeyedRun
from tests.protocol.test_sockets import until


@pytest.fixture(params=["unix sockets", "tcp"])
def keyed(request: pytest.FixtureRequest) -> Iterator[KeyedRun]:
    if request.param == "unix sockets" and not HAS_UNIX_SOCKETS:
        pytest.skip("this system has no Unix sockets")
    run = KeyedRun(Endpoints("127.0.0.1" if request.param == "tcp" else None))
    yield run
    run.close()


def share(*arguments: str) -> None:
    assert cli.main(["share", *arguments]) == 0


def test_an_observer_observes_and_does_not_steer(keyed: KeyedRun, tmp_path: Path):
    """One key served all: whoever could observe could also steer."""
    file = tmp_path / "ann.json"
    share("--observer", "--name", "ann", "--output", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with attach(file) as run:
        assert (run.access.key, run.access.role, run.can_steer) == ("ann", "observer", False)
        assert run.plan(AddFilters("conv1")).title == "a plan"
        run.wait_for(lambda run: run.status and run.status.state == "training", timeout=60)
        with pytest.raises(ObserverKeyError, match="'ann' only observes"):
            run.apply(AddFilters("conv1"))
        with pytest.raises(ObserverKeyError):
            run.pause()
        with pytest.raises(ObserverKeyError):
            run.share("operator", name="eve")
        with pytest.raises(EditRefusedError, match="only the owner"):
            run.list_keys()
        run.request(ControlRun("stop"))  # of a client that does not check
        until(lambda: any(reply[1].body == ControlRun("stop") for reply in keyed.replies))
    refused = {
        type(reply).__name__
        for _, request, reply in keyed.replies
        if request.body == ControlRun("stop")
    }
    assert refused == {"Refused"}


def test_an_operator_steers_and_hands_out_no_keys(keyed: KeyedRun, tmp_path: Path):
    file = tmp_path / "bob.json"
    share("--operator", "--name", "bob", "--output", str(file))
    with attach(file) as run:
        assert run.can_steer
        run.pause()
        with pytest.raises(EditRefusedError, match="'bob' belongs to an operator"):
            run.share("operator")
        with pytest.raises(EditRefusedError, match="only the owner"):
            run.revoke("bob")
    assert keyed.replies[1][0] == "bob"


def test_a_revoked_key_receives_nothing_and_others_continue(
    keyed: KeyedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """A key could be taken back only by restarting the training."""
    files = [tmp_path / "ann.json", tmp_path / "bob.json"]
    for file in files:
        share("--observer", "--name", file.stem, "--output", str(file))
    ann, bob = (attach(file) for file in files)
    share("--revoke", "ann")
    until(lambda: (ann.poll(), ann.is_key_refused())[1])
    with pytest.raises(KeyRefusedError, match="'ann': it was revoked"):
        ann.wait_for(lambda _: None, timeout=60)
    ann.close()
    with pytest.raises(KeyRefusedError):
        attach(files[0])
    bob.poll()
    bob.wait_for(lambda run: run.poll() or None, timeout=60)
    bob.close()
    share("--list")
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split() for line in lines] == [
        ["owner", "owner", "until", "the", "run", "ends"],
        ["observer", "ann", "revoked"],
        ["observer", "bob", "until", "the", "run", "ends"],
    ]


def test_an_expired_key_receives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_commands, "CHECK_SECONDS", 0.0)
    keyed = KeyedRun()
    try:
        with attach(keyed.connection) as owner:
            connection = owner.share("observer", name="ann", seconds=3600)
        with attach(connection) as run:
            key = keyed.server.keys.find(connection.public_key)
            assert key is not None
            assert key.expires == pytest.approx(connection.key_expires, abs=60)
            monkeypatch.setattr(
                type(key), "admission_refusal", lambda key: "" if key.name != "ann" else "x"
            )
            until(lambda: (run.poll(), run.is_key_refused())[1])
    finally:
        keyed.close()


def test_names_follow_the_role_and_files_are_not_replaced(
    keyed: KeyedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    share("--observer")
    share("--observer", "--expires", "2d")
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [
        "revacnn-observer-2.json", "revacnn-observer.json",
    ]  # fmt: skip
    assert connection_file.read(tmp_path / "revacnn-observer-2.json").key_expires is not None
    with attach(keyed.connection) as run:
        run.revoke("observer")
        assert cli.main(["share", "--observer", "--name", "observer"]) == 1  # the file exists
        assert [key.state for key in run.list_keys()] == ["valid", "revoked", "valid", "revoked"]


def test_what_cannot_be_done_is_said(keyed: KeyedRun, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["share", "--revoke", "nobody"]) == 1
    assert "no key 'nobody'" in capsys.readouterr().err
    assert cli.main(["share", "--observer", "--name", "\x1b[2J"]) == 1
    assert "is not a name" in capsys.readouterr().err


def test_durations():
    assert [parse_duration(text) for text in ("90s", "1.5h", "2d")] == [90, 5400, 172_800]
    for text in ("2", "d", "0d", "-1d", "2 days", "3651d", "99999999999d", "1e9d"):
        with pytest.raises(argparse.ArgumentTypeError, match="such as 30m"):
            parse_duration(text)


def test_a_key_could_be_valid_for_millions_of_years(keyed: KeyedRun):
    with attach(keyed.connection) as run:
        with pytest.raises(EditRefusedError, match="seconds"):
            run.share("observer", name="ann", seconds=1e17)
        assert [key.name for key in run.list_keys()] == ["owner"]


def test_the_secret_is_not_shown(keyed: KeyedRun):
    assert keyed.connection.secret_key not in repr(keyed.connection)


def test_a_file_with_a_broken_key_says_so(keyed: KeyedRun, tmp_path: Path):
    from msgspec.structs import replace

    with pytest.raises(ConnectionFileError, match="not a CURVE key"):
        attach(replace(keyed.connection, secret_key="nonsense"))
