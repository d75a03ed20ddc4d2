"""Who has changed what: every request to edit or control the run, in log, journal and pages."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from revacnn_lightning.protocol.access_keys import AUTOMATIC, SCRIPT
from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.messages import Applied, Done, Refused, Reply, Request
from revacnn_lightning.protocol.plain_text import escape_control_characters
from revacnn_lightning.protocol.rate_limit import ClientBuckets
from revacnn_lightning.protocol.requests import (
    ControlPruning,
    ControlRun,
    DiscardTrial,
    KeepTrial,
    PruneTo,
    RequestBody,
    SetGradientClipping,
    SetHyperparameter,
    ShareKey,
    TryEdits,
    is_steering,
)
from revacnn_lightning.protocol.senders import RequestSender
from revacnn_lightning.runtime.gradient_clipping import describe_clipping_request
from revacnn_lightning.steering import Journal

__all__ = ["OutcomeRecorder", "describe_request"]

log = logging.getLogger(__name__)

# Refused requests that are recorded per key, so that a flood does not fill the journal, and those
# of them that are logged, perhaps on a terminal.
REFUSALS_PER_SECOND, REFUSALS_IN_A_ROW = 2.0, 100.0
LOGGED_PER_SECOND, LOGGED_IN_A_ROW = 0.2, 20.0
TIME = "%Y-%m-%d %H:%M:%S"  # most handlers of logs add none
MAX_TITLE, MAX_DETAIL = 200, 500  # characters
ACTIONS = {
    "pause": "Pause",
    "resume": "Resume",
    "finish_epoch": "Train to the end of the epoch",
    "checkpoint": "Save a checkpoint",
    "stop": "Stop the training",
}


class OutcomeRecorder:
    """Records requests: their senders and their outcomes.

    Args:
        run: id of the run.
        get_journal: returns the journal of the edited model.
        publish: sends a message to all viewers.
        get_step: returns the next batch, for requests whose reply does not say.
    """

    def __init__(
        self,
        run: str,
        get_journal: Callable[[], Journal],
        publish: Callable[[RequestOutcome], None],
        get_step: Callable[[], int] = lambda: -1,
    ) -> None:
        self._run = run
        self._get_journal = get_journal
        self._publish = publish
        self._get_step = get_step
        self._budgets = ClientBuckets(REFUSALS_PER_SECOND, REFUSALS_IN_A_ROW)
        self._log_budgets = ClientBuckets(LOGGED_PER_SECOND, LOGGED_IN_A_ROW)
        self._omitted = 0

    def record(self, sender: RequestSender, request: Request, reply: Reply) -> None:
        """Record a request.

        What changes nothing, such as a plan, is only logged if it was refused. What was carried out
        is always recorded: nobody can hide it behind refused requests.
        """
        key = sender.key
        is_refused = isinstance(reply, Refused)
        if not (is_refused or is_steering(request.body, dry_run=request.dry_run)):
            return
        if is_refused and not self._budgets.try_take(key.name.encode()):
            self._omitted += 1
            return
        outcome = _outcome(self._run, key.name, sender.address, request, reply)
        if outcome.step < 0:
            outcome = replace(outcome, step=self._get_step())
        has_steered = is_steering(request.body, dry_run=request.dry_run)
        # Python shows info only where logging is set up, and a training must not be changed unseen.
        is_from_outside = key not in (SCRIPT, AUTOMATIC)
        self._log(outcome, logging.WARNING if has_steered and is_from_outside else logging.INFO)
        if has_steered:
            self._get_journal().record_request(outcome)
            self._publish(outcome)

    def _log(self, outcome: RequestOutcome, level: int) -> None:
        if outcome.state == "refused" and not self._log_budgets.try_take(outcome.key.encode()):
            self._omitted += 1
            return
        text = _describe_outcome(outcome)
        if self._omitted:
            text += f" ({self._omitted} more refused requests were not logged)"
            self._omitted = 0
        log.log(level, "%s", escape_control_characters(text))


def _describe_outcome(outcome: RequestOutcome) -> str:
    address = f" ({outcome.address})" if outcome.address else ""
    by = f"by {outcome.who}{address}"
    if outcome.state == "refused":
        text = f"refused {by}: {outcome.title}: {outcome.detail}"
    elif outcome.state == "applied":
        text = f"applied before batch {outcome.step} {by}: {outcome.title}"
    else:
        text = f"done {by}: {outcome.title}"
    return f"ReVACNN, {time.strftime(TIME, time.localtime(outcome.time))}: {text}"


def _outcome(run: str, key: str, address: str, request: Request, reply: Reply) -> RequestOutcome:
    title, step, version, detail = describe_request(request.body), -1, -1, ""
    price, price_note = None, ""
    state: Literal["applied", "done", "refused"] = "done"
    if isinstance(reply, Applied):
        state, title, step, version = "applied", reply.plan.title, reply.step, reply.version
        price, price_note = reply.plan.price, reply.plan.price_note
    elif isinstance(reply, Done):
        step, version, detail = reply.step, reply.version, reply.detail
    elif isinstance(reply, Refused):
        state, detail = "refused", reply.reason
    return RequestOutcome(
        run=run,
        id=request.id,
        title=title[:MAX_TITLE],
        state=state,
        time=time.time(),
        step=step,
        version=version,
        key=key,
        host=escape_control_characters(request.host),
        address=address,
        detail=detail[:MAX_DETAIL],
        price=price,
        price_note=price_note[:MAX_DETAIL],
    )


def describe_request(body: RequestBody) -> str:
    """Return a request in words: "Remove filters · conv2"."""
    if isinstance(body, ControlRun):
        count = "one batch" if body.batches == 1 else f"{body.batches} batches"
        return ACTIONS.get(body.action, f"Train {count}, then pause")
    if isinstance(body, SetHyperparameter):
        name = "learning rate" if body.name == "lr" else "weight decay"
        return f"Set the {name} of group {body.group} to {body.value:g}"
    if isinstance(body, SetGradientClipping):
        return describe_clipping_request(body)
    if isinstance(body, PruneTo):
        share = body.macs or body.parameters or 1.0
        return f"Start pruning to {share:.0%} of the {'MACs' if body.macs else 'parameters'}"
    if isinstance(body, ControlPruning):
        return f"{body.action.capitalize()} the pruning"
    if isinstance(body, TryEdits):
        count = "an edit" if len(body.edits) == 1 else f"{len(body.edits)} edits"
        return f"Try {count} on {body.batches} batches"
    if isinstance(body, KeepTrial | DiscardTrial):
        return f"{'Keep' if isinstance(body, KeepTrial) else 'Discard'} the trial"
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(body).__name__).capitalize()
    if isinstance(body, ShareKey):
        words += f" ({body.role})"
    subject = next((getattr(body, n) for n in ("layer", "after", "name") if hasattr(body, n)), "")
    return f"{words} · {subject}" if subject else words
