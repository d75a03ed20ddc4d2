"""Recordings as files: what is written is read, also after a kill."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from revacnn_lightning import RecordingError
from revacnn_lightning.protocol.messages import PROTOCOL_VERSION, Snapshot
from revacnn_lightning.recording.recording_file import (
    RecordingFile,
    create_unique_file,
    is_file_name,
)
from revacnn_lightning.recording.recording_reader import RecordingReader
from tests.recording.messages import packed, read, run_messages, snapshot, steps, structure, write
from tests.viewer.processes import wait_for


def test_a_recording_holds_the_messages_as_they_were_published(tmp_path: Path):
    path = write(tmp_path / "run.mcap", run_messages(50), chunk=20)
    messages = read(path)
    assert messages[0] == structure()
    assert steps(messages) == list(range(50))
    last = messages[-1]
    assert isinstance(last, Snapshot)
    np.testing.assert_array_equal(last.values, snapshot(49).values)
    with RecordingReader(path) as reader:
        assert reader.is_finished
        assert (reader.about["run"], reader.about["protocol"]) == ("run-1", str(PROTOCOL_VERSION))
        assert reader.counts["snapshot"] == 50
        assert len(reader.chunks) == 3
        assert [time for time, _ in reader.messages({"snapshot"})][:3] == [0, 10**9, 2 * 10**9]


def test_other_programs_read_a_recording(tmp_path: Path):
    from mcap.reader import make_reader

    with write(tmp_path / "run.mcap", run_messages(3)).open("rb") as stream:
        topics = [channel.topic for _, channel, _ in make_reader(stream).iter_messages()]
    assert topics == ["structure", "status", *["snapshot"] * 3]


def test_a_file_that_is_being_written_is_read_up_to_the_last_complete_chunk(tmp_path: Path):
    path, stream = create_unique_file(tmp_path / "run.mcap")
    file = RecordingFile(stream, {"run": "run-1"})
    for number, message in enumerate(run_messages(30)):
        file.write(message)
        if number == 21:
            file.flush()
    with RecordingReader(path) as reader:
        assert not reader.is_finished
        assert reader.about["run"] == "run-1"
        assert reader.counts["snapshot"] == 20
        assert steps([message for _, message in reader.messages()]) == list(range(20))
    file.finish({})
    assert steps(read(path)) == list(range(30))


@pytest.mark.parametrize("missing", [1, 9, 100, 400])
def test_a_file_that_was_cut_off_is_read_up_to_the_last_complete_chunk(
    tmp_path: Path, missing: int
):
    path = write(tmp_path / "run.mcap", run_messages(40), chunk=6)
    with RecordingReader(path) as reader:
        offsets = [chunk.offset for chunk in reader.chunks]
    os.truncate(path, offsets[5] + missing)
    assert steps(read(path)) == list(range(28))


def test_a_recording_survives_a_kill(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from revacnn_lightning.recording import recording_writer as module\n"
        "from tests.recording.messages import run_messages\n"
        "module.WRITE_SECONDS = module.FLUSH_SECONDS = 0.01\n"
        "writer = module.RecordingWriter(Path(sys.argv[1]), {})\n"
        "[writer.add(message) for message in run_messages(100)]\n"
        "time.sleep(600)"
    )
    path = tmp_path / "run.mcap"
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as process:
        try:
            wait_for(lambda: steps_in(path) == list(range(100)))
        finally:
            process.kill()
    assert steps_in(path) == list(range(100))


def steps_in(path: Path) -> list[int]:
    """Return the steps in a file that may be incomplete."""
    with contextlib.suppress(FileNotFoundError, RecordingError):
        return steps(read(path))
    return []


def test_a_damaged_chunk_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write(tmp_path / "run.mcap", run_messages(28), chunk=10)
    with RecordingReader(path) as reader:
        offset = reader.chunks[1].offset
    content = bytearray(path.read_bytes())
    content[offset + 80 : offset + 90] = b"\xff" * 10
    path.write_bytes(content)
    assert steps(read(path)) == [*range(8), *range(18, 28)]
    assert "Skipped a damaged part" in caplog.text


def test_no_file_is_overwritten(tmp_path: Path):
    (tmp_path / "run.mcap").write_text("precious")
    for name in ("run-v1.mcap", "run-v2.mcap"):
        path, stream = create_unique_file(tmp_path / "run.mcap")
        stream.close()
        assert path.name == name
    assert (tmp_path / "run.mcap").read_text() == "precious"


def test_what_is_no_recording_is_refused_with_the_reason(tmp_path: Path):
    path = tmp_path / "notes.txt"
    with pytest.raises(RecordingError, match="cannot read"):
        RecordingReader(path)
    path.write_text("these are no messages")
    with pytest.raises(RecordingError, match="not a recording of ReVACNN"):
        RecordingReader(path)
    path, stream = create_unique_file(tmp_path / "old.mcap")
    file = RecordingFile(stream, {"protocol": "99"})
    file.write(packed(snapshot(0)))
    file.finish({})
    with pytest.raises(RecordingError, match="of protocol 99"):
        RecordingReader(path)


def test_only_plain_names_of_files_are_accepted():
    assert is_file_name("run-12 (b)".replace("(b)", "b.mcap"))
    for name in ("", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "C:x", "-x", "a\nb", "x" * 200):
        assert not is_file_name(name), name
