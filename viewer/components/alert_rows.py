"""The alerts of a run in the list of its changes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from revacnn_lightning.protocol.access_messages import RequestOutcome
from revacnn_lightning.protocol.alerts import Alert, AlertKind

from ..runs.request_log import EditMark, RequestRecord, insert_by_age

__all__ = ["alert_row", "insert_alerts"]

TITLES: dict[AlertKind, str] = {
    "nonfinite_loss": "Alert: loss not finite",
    "loss_diverges": "Alert: loss diverges",
    "layer_died": "Alert: layer died",
    "validation_stalls": "Alert: validation stalls",
    "not_compiled": "Alert: no longer compiled",
    "rank_error": "Alert: internal error in a rank",
}

Change = RequestRecord | RequestOutcome | EditMark | Alert


def insert_alerts(
    changes: Sequence[RequestRecord | RequestOutcome | EditMark], alerts: Sequence[Alert]
) -> list[Change]:
    """Return changes and alerts together, newest first.

    Args:
        changes: newest first.
        alerts: oldest first.
    """
    found: list[Change] = list(changes)
    for alert in alerts:
        insert_by_age(found, alert, partial(_is_older, alert=alert))
    return found


def alert_row(alert: Alert) -> dict[str, str]:
    """Return the row of an alert in the list of changes. Its text names the batch."""
    return {
        "title": TITLES[alert.kind],
        "state": "alert",
        "size_change": "",
        "text": alert.text,
        "who": "",
        "who_note": "",
        "effect": "",
        "effect_note": "",
    }


def _is_older(change: Change, alert: Alert) -> bool:
    """Return whether a change was made before an alert, or is another alert before it."""
    if isinstance(change, Alert):
        return True
    if isinstance(change, EditMark) or change.state == "applied":
        return change.step <= alert.step
    moment = change.time if isinstance(change, RequestOutcome) else change.sent
    return moment <= alert.time
