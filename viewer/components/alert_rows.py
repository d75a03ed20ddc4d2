"""The alerts of a run in the list of its changes."""

from __future__ import annotations

from revacnn_lightning.protocol.alerts import Alert, AlertKind

__all__ = ["alert_row_data"]

TITLES: dict[AlertKind, str] = {
    "nonfinite_loss": "Alert: loss not finite",
    "loss_diverges": "Alert: loss diverges",
    "layer_died": "Alert: layer died",
    "validation_stalls": "Alert: validation stalls",
    "not_compiled": "Alert: no longer compiled",
    "rank_error": "Alert: internal error in a rank",
}


def alert_row_data(alert: Alert) -> dict[str, str]:
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
