"""What a plan says about the model's output, before the edit, is what the edit does to it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from revacnn_lightning.protocol import requests
from revacnn_lightning.protocol.messages import OUTPUT_UNCHANGED
from tests.steering import nets

EDITS = {
    "plain": (
        nets.Plain,
        [
            requests.AddFilters("conv1", 2),
            requests.AddFilters("conv1", 1, split_from=1),
            requests.RemoveFilters("conv1", [0]),
            requests.RemoveFilters("conv1", [0, 2]),
            requests.MergeFilters("conv1", [0, 1]),
            requests.InsertLayer("conv1", "residual"),
            requests.InsertLayer("conv1", "dirac"),
            requests.RemoveLayer("conv2"),
            requests.Freeze("conv1", [0]),
            requests.Reinitialize("conv1", [0]),
            requests.Reinitialize("conv1", [0], zero_outgoing=False),
            requests.SetFilter("conv1", 0, [1, 2], [1.0, 1.0]),
        ],
    ),
    "residual": (
        nets.Residual,
        [requests.InsertLayer("a.1", "residual"), requests.AddFilters("a.1")],
    ),
}
CASES = [(kind, edit) for kind, edits in EDITS.values() for edit in edits]


@pytest.mark.parametrize(("kind", "edit"), CASES, ids=lambda case: type(case).__name__)
def test_a_plan_says_whether_the_output_changes(kind: type[nn.Module], edit: requests.Edit) -> None:
    model, editor, probe = nets.editor_of(kind)
    before = nets.output(model)
    plan = editor.plan(edit, probe)
    assert plan.summary().output_effect == plan.output_effect != ""
    editor.apply(edit, probe)
    is_unchanged = torch.allclose(nets.output(model), before, rtol=1e-4, atol=1e-5)
    assert is_unchanged == (plan.output_effect == OUTPUT_UNCHANGED)
