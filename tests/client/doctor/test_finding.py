"""Findings as text and as JSON."""

from __future__ import annotations

import json

from revacnn_lightning.client.doctor.finding import (
    Finding,
    format_findings,
    has_problem,
    to_json,
)

FINE = Finding("Python", "ok", "3.12")
UNUSUAL = Finding("runs", "note", "none", "start one")
WRONG = Finding("encryption", "problem", "no CURVE", "install \x1b[2Jpyzmq")


def test_a_note_is_no_problem():
    assert not has_problem([FINE, UNUSUAL])
    assert has_problem([FINE, WRONG])
    assert format_findings([FINE, UNUSUAL]).endswith("No problem found.")


def test_advice_stands_below_its_finding_and_cannot_control_the_terminal():
    text = format_findings([FINE, WRONG])
    assert text.splitlines()[:3] == [
        "✓ Python      3.12",
        "✗ encryption  no CURVE",
        "              → install \\x1b[2Jpyzmq",
    ]
    assert text.endswith("1 problem found.")


def test_the_id_of_a_run_in_a_connection_file_controlled_the_terminal():
    text = format_findings([FINE, Finding("run gg\x1b[31m\nb", "ok", "fine")])
    assert "\x1b" not in text
    assert text.splitlines()[:2] == [
        "✓ Python             3.12",
        "✓ run gg\\x1b[31m\\nb  fine",
    ]


def test_json_holds_everything():
    content = json.loads(to_json([FINE, WRONG]))
    assert content["ok"] is False
    assert content["findings"][0] == {
        "check": "Python", "status": "ok", "text": "3.12", "advice": "",
    }  # fmt: skip
