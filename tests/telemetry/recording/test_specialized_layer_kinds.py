"""Specialized hooks on layers of every kind: the values of general hooks, without evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from revacnn_lightning.telemetry import REQUESTED_STATISTICS, STATISTICS, Recorder, Recording
from revacnn_lightning.telemetry.layer_selection import LayerSelection
from revacnn_lightning.telemetry.recording.batch_recording import RecordingAssembler
from revacnn_lightning.telemetry.recording.hook_specializer import HookSpecializer
from revacnn_lightning.telemetry.recording.map_reducer import MapReducer
from tests.layer_kinds import KINDS, Kind

BATCHES = 6


def recordings(kind: Kind, *, size: int = 4, dtype: torch.dtype = torch.float32) -> list[Recording]:
    """Train a network of a kind, the last batches with another number of images."""
    model = kind.build().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    everything = (*STATISTICS, *REQUESTED_STATISTICS)
    recorder = Recorder(model, statistics=everything, selection=LayerSelection("all"))
    recorder.attach()
    made = []
    for batch in range(BATCHES):
        images = kind.batch(batch, size if batch < BATCHES - 1 else size + 1).to(dtype)
        torch.manual_seed(batch)
        recorder.begin_batch()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        recording = recorder.end_batch()
        assert recording is not None
        made.append(recording)
    recorder.detach()
    return made


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(4, torch.float32), (4, torch.float64), (900, torch.float32)],
    ids=["small", "double", "large"],
)
@pytest.mark.parametrize("name", KINDS)
def test_values_are_those_of_the_general_hooks(
    name: str, size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    specialized = recordings(KINDS[name], size=size, dtype=dtype)
    monkeypatch.setattr(HookSpecializer, "_can_specialize", lambda *_: False)
    general = recordings(KINDS[name], size=size, dtype=dtype)
    for batch, (one, other) in enumerate(zip(specialized, general, strict=True)):
        assert one.layers == other.layers
        np.testing.assert_allclose(
            one.values, other.values, rtol=2e-5, atol=1e-7, err_msg=f"batch {batch}"
        )


@pytest.mark.parametrize("name", KINDS)
def test_batches_of_other_layers_than_2d_convs_were_all_evaluated(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their outputs are no maps (B, C, H, W) as they are, so no hook was specialized for them."""
    specialized: set[str] = set()
    evaluated = []
    make, update = MapReducer.__init__, RecordingAssembler.update_layout

    def note_reducer(self: MapReducer, layer: Any, *args: Any) -> None:
        specialized.add(layer.name)
        make(self, layer, *args)

    def note_layout(self: RecordingAssembler, *args: Any) -> bool:
        evaluated.append(1)
        return update(self, *args)

    monkeypatch.setattr(MapReducer, "__init__", note_reducer)
    monkeypatch.setattr(RecordingAssembler, "update_layout", note_layout)
    layers = recordings(KINDS[name])[-1].layers
    assert specialized == set(layers)
    assert len(evaluated) <= 4  # the discovery, the first specialized, another number of images
