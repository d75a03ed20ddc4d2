"""Bad requests are refused with a reason, and nothing is changed."""

from __future__ import annotations

import pytest
import torch

from revacnn_lightning.errors import (
    EditFailedError,
    EditRefusedError,
    StaleStructureError,
    SteeringError,
)
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe
from tests.steering import nets

BAD = {
    "every filter": (requests.RemoveFilters("conv1", [0, 1, 2, 3, 4, 5]), "at least one"),
    "no filter": (requests.RemoveFilters("conv1", []), "no filter"),
    "duplicates": (requests.RemoveFilters("conv1", [1, 2, 1]), "twice"),
    "negative": (requests.RemoveFilters("conv1", [-1]), "no filter -1"),
    "too large": (requests.RemoveFilters("conv1", [6]), "no filter 6"),
    "unknown layer": (requests.RemoveFilters("conv9", [0]), "no layer 'conv9'"),
    "output layer": (requests.RemoveFilters("fc", [0]), "reach the model's output"),
    "add to no conv": (requests.AddFilters("bn1"), "only convs and linear layers"),
    "zero filters": (requests.AddFilters("conv1", 0), "at least 1"),
    "minus one filter": (requests.AddFilters("conv1", -1), "at least 1"),
    "a billion filters": (requests.AddFilters("conv1", 10**9), "more than"),
    "split from nothing": (requests.AddFilters("conv1", split_from=77), "no filter 77"),
    "nan": (requests.SetFilter("conv1", 0, [1], [float("nan")]), "finite"),
    "infinite": (requests.SetFilter("conv1", 0, [1], [float("inf")]), "finite"),
    "infinite sum": (requests.SetFilter("conv1", 0, [1, 2], [1e308, 1e308]), "finite sum"),
    "negative weight": (requests.SetFilter("conv1", 0, [1], [-1.0]), "negative"),
    "all zero": (requests.SetFilter("conv1", 0, [1, 2], [0.0, 0.0]), "positive"),
    "too few weights": (requests.SetFilter("conv1", 0, [1, 2], [1.0]), "1 weights for 2"),
    "no neighbors": (requests.SetFilter("conv1", 0, [], []), "no filter"),
    "unknown neighbor": (requests.SetFilter("conv1", 0, [9], [1.0]), "no filter 9"),
    "merge one": (requests.MergeFilters("conv1", [1]), "at least two"),
    "merge a filter with itself": (requests.MergeFilters("conv1", [1, 1]), "twice"),
    "reinitialize nothing": (requests.Reinitialize("conv1", []), "no filter"),
    "freeze unknown": (requests.Freeze("conv1", [8]), "no filter 8"),
    "unfreeze": (requests.Unfreeze("conv1"), "not frozen"),
    "insert after no conv": (requests.InsertLayer("bn1"), "only convs and linear layers"),
    "remove unknown layer": (requests.RemoveLayer("conv7"), "no layer"),
    "remove linear": (requests.RemoveLayer("fc"), "keep the shape"),
    "undo nothing": (requests.Undo(), "cannot be undone"),
    "undo zero": (requests.Undo(0), "at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_a_reason(name: str) -> None:
    request, reason = BAD[name]
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    nets.step(model, optimizer)
    before = nets.checksum(model, optimizer, journal=editor.journal)
    for attempt in (editor.plan, editor.apply):
        with pytest.raises(EditRefusedError, match=reason):
            attempt(request, probe)
    assert nets.checksum(model, optimizer, journal=editor.journal) == before
    assert editor.version == 0


def test_the_last_filter_cannot_be_removed() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.RemoveFilters("conv1", [0, 1, 2, 3, 4]), probe)
    before = nets.checksum(model, *editor.optimizers, journal=editor.journal)
    with pytest.raises(EditRefusedError):
        editor.apply(requests.RemoveFilters("conv1", [0]), probe)
    assert nets.checksum(model, *editor.optimizers, journal=editor.journal) == before


def test_requests_for_an_older_structure_are_refused() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.RemoveFilters("conv1", [0]), probe, version=0)
    before = nets.checksum(model, *editor.optimizers, journal=editor.journal)
    for attempt in (editor.plan, editor.apply):
        with pytest.raises(StaleStructureError, match="structure 0"):
            attempt(requests.RemoveFilters("conv1", [0]), probe, version=0)
    assert nets.checksum(model, *editor.optimizers, journal=editor.journal) == before


def test_edits_during_another_edit_are_refused() -> None:
    model, editor, _ = nets.editor_of(nets.Plain)
    caught: list[SteeringError] = []

    def forward() -> torch.Tensor:
        if not caught:
            with pytest.raises(EditRefusedError, match="another edit") as refused:
                editor.apply(requests.RemoveFilters("conv2", [0]), probe)
            caught.append(refused.value)
        return model(nets.images())

    probe = ForwardProbe([forward])
    editor.apply(requests.RemoveFilters("conv1", [0]), probe)
    assert caught
    assert editor.version == 1
    assert model.conv2.out_channels == 8


def test_a_forward_that_raises_while_planning_refuses_the_edit() -> None:
    model, editor, _ = nets.editor_of(nets.Plain)

    def broken() -> torch.Tensor:
        raise ZeroDivisionError("no batch")

    before = nets.checksum(model, *editor.optimizers, journal=editor.journal)
    with pytest.raises(EditRefusedError, match="ZeroDivisionError: no batch"):
        editor.apply(requests.RemoveFilters("conv1", [0]), ForwardProbe([broken]))
    assert nets.checksum(model, *editor.optimizers, journal=editor.journal) == before


REQUESTS = [
    requests.RemoveFilters("conv1", [0]),
    requests.AddFilters("conv1"),
    requests.AddFilters("conv2", split_from=1),
    requests.MergeFilters("conv1", [0, 1]),
    requests.InsertLayer("conv1"),
    requests.RemoveLayer("conv1"),
    requests.SetFilter("conv1", 0, [1], [1.0]),
    requests.Undo(),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("good", [1, 2, 3, 4])
def test_a_forward_that_raises_during_the_edit_rolls_it_back(
    request_: requests.Edit, good: int
) -> None:
    """If any forward after planning raises, everything is rolled back."""
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    nets.step(model, optimizer)
    editor.apply(requests.AddFilters("conv1"), probe)
    nets.step(model, optimizer)
    before = nets.checksum(model, optimizer, journal=editor.journal)
    calls = 0

    def failing() -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls >= good:
            raise RuntimeError("out of memory")
        return model(nets.images())

    failure = ""
    try:
        editor.apply(request_, ForwardProbe([failing]))
    except SteeringError as error:
        failure = str(error)
    if calls < good:  # the edit needs fewer forwards than this
        assert not failure
    else:
        assert "out of memory" in failure
        assert nets.checksum(model, optimizer, journal=editor.journal) == before
        assert editor.version == 1
        assert editor.filter_ids("conv1") == [0, 1, 2, 3, 4, 5, 6]
    nets.step(model, optimizer)


def test_a_hard_coded_size_fails_verification() -> None:
    """Only the forward knows a fixed width: the edit fails and is rolled back."""

    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(3, 6, 1)
            self.conv2 = torch.nn.Conv2d(6, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv1(x)
            width = 6
            x = x.reshape(x.shape[0], width, 8, 8)
            return self.conv2(x)

    model = Fixed()
    x = torch.randn(2, 3, 8, 8)
    editor = Editor(model, [torch.optim.SGD(model.parameters(), lr=0.1)])
    before = nets.checksum(model, *editor.optimizers, journal=editor.journal)
    with pytest.raises(EditFailedError, match="RuntimeError"):
        editor.apply(requests.AddFilters("conv1"), ForwardProbe([lambda: model(x)]))
    assert nets.checksum(model, *editor.optimizers, journal=editor.journal) == before
