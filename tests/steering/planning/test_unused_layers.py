"""An edit leaves no layer behind that another batch runs."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe

X = torch.rand(2, 3, 6, 6)


class Branches(nn.Module):
    """Runs ``b`` or ``c``, depending on the images."""

    def __init__(self, c: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), c
        self.f = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        return self.f((self.b(h) if x.mean() > 0 else self.c(h)).mean((2, 3)))


def remove_a_filter(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[str]:
    editor = Editor(model, [] if optimizer is None else [optimizer])
    return editor.plan(requests.RemoveFilters("a", [1]), ForwardProbe([partial(model, X)])).notes


LAYERS = {
    "conv": lambda: nn.Conv2d(8, 4, 1),
    "transposed": lambda: nn.ConvTranspose2d(8, 4, 1),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(8 * 36, 4), nn.Unflatten(1, (4, 1, 1))),
    "norm": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.AvgPool3d((2, 1, 1))),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_branch_that_other_batches_take_died_after_an_edit(kind: str):
    model = Branches(LAYERS[kind]())
    optimizer = torch.optim.Adam(model.parameters())
    for x in (-X, X):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    with pytest.raises(EditRefusedError, match=r"c.* trained by other batches"):
        remove_a_filter(model, optimizer)


def test_before_the_first_batch_it_is_not_known_whether_a_branch_is_taken():
    with pytest.raises(EditRefusedError, match="repeat the request after the next batch"):
        remove_a_filter(Branches(nn.Conv2d(8, 4, 1)))


def test_a_layer_that_no_batch_runs_is_only_noted():
    model = Branches(nn.Conv2d(8, 4, 1))
    model(X).sum().backward()
    assert remove_a_filter(model) == ["not run by any forward, and therefore not edited: c"]


def test_a_branch_that_only_sgd_has_trained_died_after_an_edit():
    """Plain SGD keeps no state, and the gradient of an earlier batch is gone."""
    model = Branches(nn.Conv2d(8, 4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in (-X, X):
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    editor, probe = Editor(model, [optimizer]), ForwardProbe([partial(model, X)])
    request = requests.RemoveFilters("a", [1])
    assert "c may read these filters" in editor.plan(request, probe).confirmation
    with pytest.raises(EditRefusedError, match=r"c may read these filters.*training fails"):
        editor.apply(request, probe)
    model(-X)
    plan = editor.apply(requests.RemoveFilters("a", [1], confirmed=True), probe).plan
    assert "c" in plan.notes[0]


def test_a_layer_of_another_width_is_not_noted():
    assert remove_a_filter(Branches(nn.Conv2d(7, 4, 1))) == []
    assert remove_a_filter(Branches(nn.Linear(9, 4))) == []


def test_a_layer_that_runs_in_evaluation_only_is_edited():
    class EvalOnly(Branches):
        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x).relu().mean((2, 3))
            return self.c(h) if not self.training else self.f(h[:, :4])

    model = EvalOnly(nn.Linear(8, 2))
    model.b = nn.Identity()
    plan = Editor(model).plan(
        requests.AddFilters("a", split_from=0), ForwardProbe([partial(model, X)])
    )
    assert ("c.weight", 1) in [(edit.tensor, edit.dim) for edit in plan.tensors]


class Detector(nn.Module):
    """Returns raw maps in training, and in evaluation also what ``decode`` makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.decode = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        raw = self.b(self.a(x).relu())
        return [raw] if self.training else [self.decode(raw), raw]


def test_a_detector_whose_step_does_not_fit_evaluation_was_refused():
    model = Detector()

    def replay() -> Tensor:
        (raw,) = model(X)
        return raw.mean()

    editor, probe = Editor(model), ForwardProbe([partial(model, X), replay])
    editor.apply(requests.RemoveFilters("a", [1]), probe)
    editor.apply(requests.AddFilters("a", 2), probe)
    assert model(X)[0].shape == (2, 4, 6, 6)
    with pytest.raises(EditRefusedError, match="reach the model's output"):
        editor.plan(requests.RemoveFilters("b", [1]), probe)


def test_a_copy_that_is_edited_along_is_no_unused_layer():
    model = Branches(nn.Conv2d(8, 4, 1))
    model.c = copy.deepcopy(model.b).requires_grad_(False)
    model(X).sum().backward()
    editor = Editor(model, copies={"c": "b"})
    plan = editor.plan(requests.RemoveFilters("a", [1]), ForwardProbe([partial(model, X)]))
    assert plan.notes == []
    assert "c.weight" in [edit.tensor for edit in plan.tensors]
