"""A group norm keeps its groups: filters are added and removed by whole groups, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, Journal
from tests.steering import nets


def conv_gn(inputs: int, outputs: int, groups: int, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, **options),
        nn.GroupNorm(groups, outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Trunk of 8 channels in groups of 4, branches in groups of 2 and of 3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_gn(3, 8, 2)
        self.a = nn.Sequential(conv_gn(8, 6, 3), conv_gn(6, 8, 2))
        self.b = nn.Sequential(conv_gn(8, 6, 2), conv_gn(6, 8, 4))
        self.fc = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.a(x))
        x = F.relu(x + self.b(x))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


class Concat(nn.Module):
    """A group norm over a concatenation whose parts are whole groups."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
        self.norm = nn.GroupNorm(3, 12, affine=False)
        self.head, self.fc = nn.Conv2d(12, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(torch.cat([self.one(x), self.two(x)], 1)))
        return self.fc(self.head(x).mean((2, 3)))


EDITS = [
    (Residual, "stem.0", 4),
    (Residual, "a.0.0", 2),
    (Residual, "b.0.0", 3),
    (Concat, "one", 4),
    (Concat, "two", 4),
]


def randomized(kind: type[nn.Module]) -> tuple[nn.Module, Editor, object]:
    model, editor, probe = nets.editor_of(kind)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model, editor, probe


@pytest.mark.parametrize(("kind", "layer", "size"), EDITS)
def test_a_whole_group_is_added_exactly(kind: type[nn.Module], layer: str, size: int) -> None:
    for split in (None, 1):
        model, editor, probe = randomized(kind)
        x, width = nets.images(3, seed=9), model.get_submodule(layer).out_channels
        before = nets.output(model, x)
        plan = editor.apply(requests.AddFilters(layer, split_from=split), probe).plan
        torch.testing.assert_close(nets.output(model, x), before, rtol=1e-10, atol=1e-12)
        assert model.get_submodule(layer).out_channels == width + size
        assert plan.confirmation == ""
        nets.step(model, editor.optimizers[0])


@pytest.mark.parametrize(("kind", "layer", "size"), EDITS)
def test_a_whole_group_is_removed_and_restored(
    kind: type[nn.Module], layer: str, size: int
) -> None:
    fresh = nets.build(kind, seed=4)
    model, editor, probe = randomized(kind)
    nets.step(model, editor.optimizers[0])
    before, width = (
        nets.checksum(model, *editor.optimizers),
        model.get_submodule(layer).out_channels,
    )
    if width == size:
        return
    plan = editor.apply(requests.RemoveFilters(layer, [1]), probe).plan  # compares the output
    assert model.get_submodule(layer).out_channels == width - size
    assert not any("change as well" in note for note in plan.notes)
    assert f"groups of {size}" in plan.coupling
    Journal.from_data(editor.journal.to_data()).replay(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(nets.output(fresh), nets.output(model))
    editor.apply(requests.Undo(), probe)
    assert nets.checksum(model, *editor.optimizers) == before


@pytest.mark.parametrize(("count", "added"), [(1, 4), (4, 4), (5, 4), (8, 8), (11, 12)])
def test_the_nearest_possible_number_is_offered(count: int, added: int) -> None:
    _, editor, probe = randomized(Residual)
    plan = editor.plan(requests.AddFilters("stem.0", count), probe)
    assert plan.title == f"Add {added} filters to stem.0"
    assert next(c.added for c in plan.filter_changes if c.layer == "stem.0") == added
