"""Changing a network while it trains: plan, apply, verify, undo, replay.

From a request to an edited network, file by file::

    probe.py        real forwards of the model that leave no mark on it
    tracer.py       watches one: every aten call is shown to a rule
      labels.py       which index of which tensor a channel is
      trace.py        what rules read and note (facts.py: the notes)
      rules/          what each operation does to labels
      sizes.py uses.py  attributes that count channels
      products.py     what each call costs, in proportion to which channels
    channels.py     the answer: classes of indices that must be edited together
    planners/       request + channels -> plan.py: EditPlan, pure data, or a refusal
    macs.py         the plan's multiply-accumulates, before and after
    placement.py    where the columns go: where their labels arrive
    surgery.py      the plan done to parameters, gradients and buffers (resize.py: to one tensor)
      optimizers.py   ... and to the optimizers' state
      layers.py       ... and to whole layers
      freezing.py     frozen filters stay as they are
      transaction.py  all or nothing
    verify.py       is the edited model the one that was asked for?
    journal.py      the edits in force: replay, undo; checkpoint.py: saved and resumed
    editor.py       Editor: the one door to all of this (filters.py: ids for life)
"""

from __future__ import annotations

from revacnn_lightning.steering.editor import AppliedEdit, Editor
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe

__all__ = ["AppliedEdit", "EditPlan", "Editor", "ForwardProbe", "Journal"]
