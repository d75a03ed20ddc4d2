"""Runs a case in four modes and judges what they leave."""

from __future__ import annotations

import gc
import logging
import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.left_alone.client import ClientAttachment
from benchmarks.left_alone.edits import EditScript, JudgeEditsAfter, SubmitEditsBefore
from benchmarks.left_alone.fingerprint import differing_paths
from benchmarks.left_alone.leftovers import (
    connection_file_names,
    global_torch_state,
    hooks_and_attributes_on,
    new_threads,
    still_open_endpoints,
)
from benchmarks.left_alone.registry import Case
from benchmarks.left_alone.training import Training, isolated_training
from revacnn_lightning import ReVACNN

__all__ = ["OK", "CaseVerdict", "judge_case"]

OK = "ok"


@dataclass
class CaseVerdict:
    """The result of one case. Each column holds what went wrong; "ok" if nothing did."""

    case: str
    callback: str = OK
    client: str = OK
    edits: str = OK
    left: str = OK
    exact: int = 0  # edits applied exactly
    refusals: list[str] = field(default_factory=list)
    unchecked: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return {self.callback, self.client, self.edits, self.left} == {OK}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-compatible data."""
        return asdict(self)


@dataclass
class TrainingResult:
    """What is left of one training."""

    fingerprint: dict[str, str]
    left: dict[str, str]
    batches: int
    error: str
    warnings: set[str]
    internal_errors: list[str]
    global_left: list[str]


class LogCollector(logging.Handler):
    """Collects the internal errors that the package logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()} ({record.exc_info[1]!r})")


def judge_case(case: Case) -> CaseVerdict:
    """Train plainly, with the callback, with a client, and with edits; and compare."""
    began = time.perf_counter()
    verdict = CaseVerdict(case.name)
    plain = run_case(case, lambda own: own)
    if (plain.error != "None") != case.raises:
        verdict.callback = f"the plain training ends with {plain.error}"
        return verdict
    verdict.callback = judge_callback(case, plain, verdict)
    verdict.client = judge_client(case, plain, verdict)
    verdict.edits = judge_edits(case, plain, verdict)
    verdict.seconds = round(time.perf_counter() - began, 2)
    return verdict


def judge_callback(case: Case, plain: TrainingResult, verdict: CaseVerdict) -> str:
    """The callback stands first; nobody is attached."""
    result = run_case(case, lambda own: [ReVACNN(), *own])
    return _difference(case, plain, result, verdict)


def judge_client(case: Case, plain: TrainingResult, verdict: CaseVerdict) -> str:
    """The callback stands last; a client opens a layer and a filter."""
    clients: list[ClientAttachment] = []

    def add(own: list[pl.Callback]) -> list[pl.Callback]:
        revacnn = ReVACNN()
        clients.append(ClientAttachment(revacnn, case.observable, case.layer))
        return [*own, clients[-1], revacnn]

    result = run_case(case, add, clients)
    return _first(_client_faults(clients)) or _difference(case, plain, result, verdict)


def judge_edits(case: Case, plain: TrainingResult, verdict: CaseVerdict) -> str:
    """A client is attached, and edits are applied between the batches."""
    clients: list[ClientAttachment] = []
    scripts: list[EditScript] = []

    def add(own: list[pl.Callback]) -> list[pl.Callback]:
        revacnn = ReVACNN()
        clients.append(ClientAttachment(revacnn, case.observable, case.layer))
        scripts.append(EditScript(case, revacnn, clients[-1]))
        return [
            clients[-1],
            SubmitEditsBefore(scripts[-1]),
            revacnn,
            JudgeEditsAfter(scripts[-1]),
            *own,
        ]

    result = run_case(case, add, clients)
    for script in scripts:
        script.note_missing_edits()
    verdict.exact = sum(script.exact for script in scripts)
    verdict.refusals = [r for script in scripts for r in script.refusals]
    verdict.unchecked = _first([s.unchecked for s in scripts if s.unchecked])
    faults = [fault for script in scripts for fault in script.faults]
    if result.error != plain.error:
        return f"died: {result.error}" if result.error != "None" else "did not raise"
    if result.batches != plain.batches:
        return f"{result.batches} batches instead of {plain.batches}"
    # Lightning may warn of what an edit has changed, such as a parameter group.
    new_warnings = [text for text in _new_warnings(plain, result) if "lightning" not in text]
    faults += result.internal_errors + _client_faults(clients) + new_warnings
    if case.steerable and not faults and not verdict.exact:
        faults.append(f"every edit was refused: {_first(verdict.refusals)}")
    both = plain.left.keys() & result.left.keys()
    _judge_leftovers("edits", _left(plain, result, both), result, verdict)
    return _first(faults) or OK


def run_case(
    case: Case, add_callbacks: Any, clients: list[ClientAttachment] | None = None
) -> TrainingResult:
    """Run a case in one mode."""
    package_log, collector = logging.getLogger("revacnn_lightning"), LogCollector()
    package_log.addHandler(collector)
    before, threads = global_torch_state(), threading.enumerate()
    try:
        with isolated_training() as (folder, caught):
            training = Training(folder, add_callbacks)
            training.run_to_end(case.train)
            left = hooks_and_attributes_on(training)
            fingerprint = training.fingerprint()
            for client in clients or []:
                client.detach()
            after = global_torch_state()
            global_left = [
                *differing_paths(_texts(before), _texts(after)),
                *(f"thread {name}" for name in new_threads(threads)),
                *(f"file {name}" for name in connection_file_names(folder.parent / "runtime")),
                *(f"port {e}" for c in clients or [] for e in still_open_endpoints(c.endpoints)),
            ]
            return TrainingResult(
                fingerprint,
                left,
                training.batches,
                repr(training.error),
                {_text_of(each) for each in caught},
                collector.found,
                global_left,
            )
    finally:
        package_log.removeHandler(collector)
        gc.collect()


def _difference(
    case: Case, plain: TrainingResult, result: TrainingResult, verdict: CaseVerdict
) -> str:
    """Return what differs from the plain training; "ok" if nothing does."""
    changed = differing_paths(plain.fingerprint, result.fingerprint)
    faults = list(result.internal_errors)
    if result.error != plain.error:
        faults.insert(0, f"died: {result.error}")
    if changed:
        again = run_case(case, lambda own: own)
        if differing_paths(plain.fingerprint, again.fingerprint):
            return f"the case is not deterministic: {changed[0]}"
        faults.append(f"not identical: {_describe(changed, plain, result)}")
    faults += _new_warnings(plain, result)
    places = plain.left.keys() | result.left.keys()
    _judge_leftovers("client", _left(plain, result, places), result, verdict)
    return _first(faults) or OK


def _describe(changed: list[str], plain: TrainingResult, result: TrainingResult) -> str:
    place = changed[0]
    then, now = plain.fingerprint.get(place), result.fingerprint.get(place)
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"{place}: {then} -> {now}{more}"


def _judge_leftovers(
    mode: str, left: list[str], result: TrainingResult, verdict: CaseVerdict
) -> None:
    found = left + result.global_left
    if found and verdict.left == OK:
        verdict.left = f"{mode}: {found[0]}"


def _left(plain: TrainingResult, result: TrainingResult, places: Iterable[str]) -> list[str]:
    return [
        f"{place}: {plain.left.get(place)} -> {result.left.get(place)}"
        for place in differing_paths(plain.left, result.left)
        if place in places
    ]


def _new_warnings(plain: TrainingResult, result: TrainingResult) -> list[str]:
    return [f"warns: {text}" for text in sorted(result.warnings - plain.warnings)]


def _client_faults(clients: list[ClientAttachment]) -> list[str]:
    faults = [fault for client in clients for fault in client.problems]
    missing = [client.missing_messages() for client in clients if client.run is not None]
    return faults + [text for text in missing if text]


def _texts(state: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in state.items()}


def _text_of(warning: warnings.WarningMessage) -> str:
    source = Path(warning.filename).parts[-3:]
    return f"{warning.category.__name__} of {'/'.join(source)}: {str(warning.message)[:150]}"


def _first(texts: list[str]) -> str:
    return texts[0] if texts else ""
