"""A trace that shares outputs with the other forwards of an edit finds what a trace alone does."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.steering_models import SMALL, make_seeded
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from revacnn_lightning.steering.tracing.channel_groups import ChannelGroups
from revacnn_lightning.steering.tracing.traced_forwards import trace_channel_groups


def facts_of(groups: ChannelGroups) -> dict[str, Any]:
    """Return everything that a trace has found, in a form that can be compared."""
    ours = {name.strip("_"): plain(value) for name, value in vars(groups).items()}
    del ours["silent_channels"]
    ours.pop("ignoring_part_positions", None)  # follows from the others
    return ours


def plain(value: Any) -> Any:
    """Return nested containers of arrays as nested lists."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


@pytest.mark.parametrize("name", SMALL)
def test_after_edits_the_traces_are_equal(name: str) -> None:
    model = make_seeded(SMALL[name], 0).train()
    images = torch.randn(2, 3, 32, 32)
    probe = ForwardProbe([lambda: model(images)])
    editor = Editor(model, [])
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    compared = 0
    for layer in random.Random(name).sample(layers, 3):
        for request in (requests.RemoveFilters(layer, [0]), requests.AddFilters(layer)):
            try:
                editor.apply(request, probe)
            except EditRefusedError:
                continue
            assert editor.traced_groups is not None
            assert facts_of(editor.traced_groups) == facts_of(trace_channel_groups(model, probe))
            compared += 1
    assert compared >= 2
