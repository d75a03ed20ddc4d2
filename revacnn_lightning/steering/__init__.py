"""Changing a network while it trains: plan, apply, verify, undo, replay."""

from __future__ import annotations

from revacnn_lightning.steering.editor import Editor, Outcome
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.plan import EditPlan
from revacnn_lightning.steering.probe import Probe

__all__ = ["EditPlan", "Editor", "Journal", "Outcome", "Probe"]
