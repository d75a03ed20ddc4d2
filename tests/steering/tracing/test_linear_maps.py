"""The rows of a linear layer become the channels of maps: at the start of generators, decoders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.steering_models import eval_output, zeroed_output
from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal
from tests.steering import nets

EXACT = 1e-12
SEEDED = torch.Generator().manual_seed(0)
NOISE, UNSEEN = torch.randn(2, 4, 5, dtype=torch.float64, generator=SEEDED)


class Generator(nn.Module):
    """Noise -> linear layer -> 6 maps of 2×2 -> two transposed convs; ``unflatten`` views."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.norm = nn.Linear(5, 24), nn.BatchNorm1d(24)
        self.norm2 = nn.BatchNorm2d(6)
        self.up, self.last = nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.ConvTranspose2d(4, 3, 4, 2, 1)
        self.extra()

    def extra(self) -> None:
        pass

    def unflatten(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, 2, 2)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm2(self.unflatten(self.norm(self.fc(z)).relu()))
        return self.last(self.up(x).relu())


class Unflattened(Generator):
    def extra(self) -> None:
        self.module = nn.Unflatten(1, (6, 2, 2))

    def unflatten(self, x: Tensor) -> Tensor:
        return self.module(x)


class Attribute(Generator):
    def extra(self) -> None:
        self.width = 6

    def unflatten(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.width, 2, 2)


class Resized(Generator):
    """A position embedding, and a resizing before the first conv."""

    def extra(self) -> None:
        self.position = nn.Parameter(torch.randn(1, 6, 2, 2))

    def unflatten(self, x: Tensor) -> Tensor:
        maps = x.unflatten(1, (-1, 2, 2)) + self.position
        return nn.functional.interpolate(maps, scale_factor=2)


class Volume(Generator):
    def extra(self) -> None:
        self.norm2, self.up = nn.BatchNorm3d(6), nn.ConvTranspose3d(6, 4, 2, 2)  # type: ignore[assignment]
        self.last = nn.ConvTranspose3d(4, 2, 1)  # type: ignore[assignment]

    def unflatten(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1, 1, 2, 2)


class Written(Generator):
    def unflatten(self, x: Tensor) -> Tensor:
        return x.view(-1, 6, 2, 2)


class Decoder(nn.Module):
    """Maps that are flattened again: each channel has four rows and four columns."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.conv = nn.Linear(5, 24), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.hidden, self.last = nn.Linear(24, 7), nn.Linear(7, 2)

    def forward(self, z: Tensor) -> Tensor:
        maps = self.conv(self.fc(z).view(z.shape[0], -1, 2, 2)).relu()
        return self.last(self.hidden(maps.flatten(1)).relu())


KINDS = [Generator, Unflattened, Attribute, Resized, Volume, Decoder]


def made(kind: type[nn.Module]) -> tuple[nn.Module, Editor, ForwardProbe]:
    model = nets.build(kind)
    optimizer = torch.optim.Adam(model.parameters())
    model(NOISE).square().sum().backward()
    optimizer.step()
    return model, Editor(model, [optimizer]), ForwardProbe([lambda: model(NOISE)])


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_takes_the_other_pixels_of_its_map_along(kind: type[nn.Module]) -> None:
    again = nets.build(kind, seed=3)
    model, editor, probe = made(kind)
    before, state = eval_output(model, UNSEEN), nets.checksum(model, *editor.optimizers)
    request = requests.RemoveFilters("fc", [9])
    plan = editor.plan(request, probe)
    changed = {each.layer: each.filters for each in plan.filter_changes}
    assert changed["fc"] == [8, 9, 10, 11]
    expected = zeroed_output(model, plan, UNSEEN)
    editor.apply(request, probe)
    assert model.fc.out_features == 20
    assert difference(eval_output(model, UNSEEN), expected) < EXACT
    Journal.from_data(editor.journal.to_data()).replay(again)
    again.load_state_dict(model.state_dict())
    assert torch.equal(eval_output(again, UNSEEN), eval_output(model, UNSEEN))
    editor.apply(requests.Undo(), probe)
    assert nets.checksum(model, *editor.optimizers) == state
    for grown in (requests.AddFilters("fc", 2), requests.AddFilters("fc", split_from=5)):
        editor.apply(grown, probe)
        assert difference(eval_output(model, UNSEEN), before) < EXACT
    assert model.fc.out_features == 24 + 3 * 4


def test_a_number_of_maps_that_is_written_in_the_code_is_refused_by_its_place() -> None:
    _, editor, probe = made(Written)
    for request in (requests.RemoveFilters("fc", [9]), requests.AddFilters("fc")):
        with pytest.raises(EditRefusedError, match=r"x\.view\(-1, 6, 2, 2\).*written as a number"):
            editor.plan(request, probe)


def test_the_sizes_of_an_unflatten_follow_the_channels() -> None:
    model, editor, probe = made(Unflattened)
    editor.apply(requests.RemoveFilters("fc", [0]), probe)
    assert model.module.unflattened_size == (5, 2, 2)
    editor.apply(requests.Undo(), probe)
    assert model.module.unflattened_size == (6, 2, 2)


def test_the_projections_of_an_attention_over_unbatched_tokens_are_no_maps() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.last = nn.Linear(5, 24), nn.Linear(8, 2)

        def forward(self, z: Tensor) -> Tensor:
            query, key, value = self.qkv(z).view(len(z), 3, 2, -1).permute(1, 2, 0, 3).unbind()
            y = (query @ key.transpose(1, 2)).softmax(-1) @ value
            return self.last(y.transpose(0, 1).flatten(1))

    _, editor, probe = made(Tokens)
    plan = editor.plan(requests.RemoveFilters("qkv", [1]), probe)
    (change,) = plan.filter_changes
    assert change.filters == [1, 5, 9, 13, 17, 21]  # a channel of each head of each projection
