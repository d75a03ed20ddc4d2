"""Changing a network while it trains: plan, apply, verify, undo, replay.

From a request to an edited network, file by file::

    tracing/            which channels must be edited together
      forward_probe.py    real forwards of the model, evaluated without side effects
      traced_forwards.py  ... traced; call_signature.py: whether both run the same code
      forward_cache.py    what the forwards of one edit share
      call_output_cache.py   ... the outputs of operations; content_numbers.py: which are the same
      tracer.py           dispatch mode that passes every aten call of a forward to a rule
      rules/              what each operation does to labels (labels.py)
      trace.py            what the rules record (records.py: its parts)
      traced_int.py size_uses.py   module attributes that count channels
      op_costs.py         multiply-accumulates of each call
      channel_groups.py   the result; its docstring defines the vocabulary
    planning/           request + channel groups -> EditPlan (plan.py), or a refusal
      planner.py          dispatches a request to filter_*.py, layer_*.py or learning_rate.py
      index_mapping.py    where the columns of consumers go
    execution/          the plan applied to the model, all or nothing
      executor.py         performs, reverts and replays a plan
      *_edits.py          ... one kind of change each; optimizer_state.py: their optimizer state
      edit_application.py   performs a plan and verifies it; edit_forwards.py: its forwards
      verification.py       judges the model's output after an edit
      reference_outputs.py  the outputs that an edit must give, by forwards with temporary changes
      freezing.py         keeps frozen filters as they are
      rate_scaling.py     scales the learning rates of layers; step_hooks.py: hooks of both
      transaction.py      rollback
    computed_tensors.py   weights that modules compute in each forward, and from what
    blocks.py           the modules that edits insert
    filter_ids.py       permanent ids of filters
    journal.py          the edits in force; journal_text.py prints them, undo.py plans their undo
    edited_models.py    the journal of each edited model; edit_mark.py: its mark
    checkpoint.py       saving and resuming an edited run; loading.py: without a trainer
    editor.py           Editor: the entry point to all of this
    split_editor.py     the same for parameters that are split among processes: freezing, rates
"""

from __future__ import annotations

from revacnn_lightning.steering.editor import AppliedEdit, Editor
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.steering.tracing.forward_probe import ForwardProbe

__all__ = ["AppliedEdit", "EditPlan", "Editor", "ForwardProbe", "Journal"]
