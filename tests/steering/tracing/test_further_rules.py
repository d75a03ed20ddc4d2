"""Recurrent layers, softmax over channels, deformable and functional convs, written sizes.

What an edit returns is compared with the obviously smaller network, which is built by hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters, Undo
from revacnn_lightning.steering import Editor, ForwardProbe

SEEDED = torch.Generator().manual_seed(0)
X, UNSEEN = torch.randn(2, 2, 3, 8, 4, dtype=torch.float64, generator=SEEDED)
KEPT = [0, 2, 3, 5]  # of six filters
SIZE = 64


def make(kind: Callable[..., nn.Module], *args: Any) -> tuple[Any, Editor, ForwardProbe]:
    torch.manual_seed(0)
    model = kind(*args).double().eval()
    return model, Editor(model), ForwardProbe([partial(model, X)])


def keep(tensor: Tensor, dim: int, indices: list[int]) -> nn.Parameter:
    return nn.Parameter(tensor.detach().index_select(dim, torch.tensor(indices)))


def without_filters(model: Any, layer: str = "conv") -> Any:
    """Return a copy in which a conv has lost the filters that are not kept."""
    smaller = copy.deepcopy(model)
    conv = smaller.get_submodule(layer)
    conv.weight, conv.bias = keep(conv.weight, 0, KEPT), keep(conv.bias, 0, KEPT)
    return smaller


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(UNSEEN)


def assert_equal(model: nn.Module, expected: nn.Module) -> None:
    assert (output(model) - output(expected)).abs().max() < 1e-12


class Recurrent(nn.Module):
    """Columns of a map as steps of a sequence, which may be packed."""

    def __init__(self, is_packed: bool = False) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv2d(3, 6, 3, padding=1), nn.LSTM(6, 5, bidirectional=True)
        self.head, self.is_packed = nn.Linear(10, 4), is_packed

    def forward(self, x: Tensor) -> Tensor:
        steps: Any = self.conv(x).mean(2).permute(2, 0, 1)
        if self.is_packed:
            steps = nn.utils.rnn.pack_padded_sequence(steps, torch.tensor([4, 3]))
        found, _ = self.lstm(steps)
        if self.is_packed:
            found, _ = nn.utils.rnn.pad_packed_sequence(found)
        return self.head(found.sum(0))


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_filters_before_an_lstm_were_refused_where_it_is_fused_or_packed(
    is_packed: bool, dtype: torch.dtype
) -> None:
    model, editor, _ = make(Recurrent, is_packed)
    model.to(dtype).double()
    smaller = without_filters(model)
    smaller.lstm = nn.LSTM(4, 5, bidirectional=True)
    smaller.lstm.load_state_dict(
        {n: v[:, KEPT] if "ih_l0" in n and v.ndim == 2 else v
         for n, v in model.lstm.state_dict().items()}
    )  # fmt: skip
    smaller.lstm.double()
    model.to(dtype)  # single precision runs one fused operation for each layer
    probe = ForwardProbe([partial(model, X.to(dtype))])
    before = copy.deepcopy(model.state_dict())
    editor.apply(RemoveFilters("conv", [1, 4]), probe)
    assert model.lstm.input_size == 4
    assert_equal(copy.deepcopy(model).double(), smaller)
    editor.apply(Undo(), probe)
    assert model.lstm.input_size == 6
    editor.apply(AddFilters("conv", 2), probe)
    editor.apply(Undo(), probe)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_hidden_units_that_meet_channels_stay_coupled_to_nothing() -> None:
    class Summed(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            steps = self.conv(x).mean(2).permute(2, 0, 1)
            return self.head(self.lstm(steps)[0].sum(0) + self.more(x).mean((2, 3)))

        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Conv2d(3, 10, 1)

    for dtype in (torch.float64, torch.float32):
        model, editor, _ = make(Summed)
        model.to(dtype)
        with pytest.raises(EditRefusedError):
            editor.apply(RemoveFilters("more", [1]), ForwardProbe([partial(model, X.to(dtype))]))


class LinearAttention(nn.Module):
    """Two heads whose queries are a softmax over channels (Shen et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.classes = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)
        self.q, self.k, self.v = (nn.Conv2d(6, 6, 1) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        x = self.conv(images).relu()
        b, _, h, w = x.shape
        q, k, v = (each(x).reshape(b, 2, -1, h * w) for each in (self.q, self.k, self.v))
        context = k.softmax(-1) @ v.transpose(-1, -2)
        y = (context.transpose(-1, -2) @ q.softmax(-2)).reshape(b, -1, h, w)
        return self.classes(y.mean((2, 3)))


def test_a_softmax_over_channels_was_refused() -> None:
    model, editor, probe = make(LinearAttention)
    smaller = copy.deepcopy(model)
    for layer in (smaller.q, smaller.k):
        layer.weight, layer.bias = keep(layer.weight, 0, KEPT), keep(layer.bias, 0, KEPT)
    applied = editor.apply(RemoveFilters("q", [1, 4]), probe)
    assert any("change as well" in note for note in applied.plan.notes)
    assert model.k.out_channels == 4
    assert_equal(model, smaller)
    editor.apply(Undo(), probe)
    with pytest.raises(EditRefusedError, match="a softmax in the model's forward normalizes"):
        editor.apply(AddFilters("q"), probe)
    editor.apply(AddFilters("q", confirmed=True), probe)
    assert model.q.out_channels == model.k.out_channels == 8  # one in each head
    output(model)


class Deformable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.offset = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 36, 3, padding=1)
        self.mask = nn.Conv2d(3, 18, 3, padding=1)
        self.deform, self.classes = DeformConv2d(6, 8, 3, padding=1, groups=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.deform(self.conv(x).relu(), self.offset(x), self.mask(x).sigmoid())
        return self.classes(y.mean((2, 3)))


def test_filters_before_a_deformable_conv_were_refused() -> None:
    model, editor, probe = make(Deformable)
    smaller = without_filters(model)
    smaller.deform.weight = keep(model.deform.weight, 1, [0, 2])
    editor.apply(RemoveFilters("conv", [1, 4]), probe)  # the same one of each group
    assert_equal(model, smaller)
    assert (model.deform.in_channels, model.deform.out_channels) == (4, 8)
    editor.apply(Undo(), probe)
    assert model.deform.in_channels == 6
    before = output(model)
    editor.apply(AddFilters("conv"), probe)
    assert (output(model) - before).abs().max() < 1e-12
    with pytest.raises(EditRefusedError, match="offsets"):
        editor.apply(RemoveFilters("offset", [1]), probe)


class Functional(nn.Module):
    """Weights of convs, one of them scaled, are passed to ``conv2d``; a bias is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 5, (3, 1)), nn.Conv2d(5, 6, (3, 1))
        self.classes = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.first.weight, self.first.bias).relu()
        return self.classes(F.conv2d(y, self.conv.weight * 0.5).relu().mean((2, 3)))


def test_a_conv_whose_scaled_weight_is_used_was_said_not_to_run() -> None:
    model, editor, probe = make(Functional)
    smaller = without_filters(model)
    smaller.classes.weight = keep(model.classes.weight, 1, KEPT)
    editor.apply(RemoveFilters("conv", [1, 4]), probe)
    assert_equal(model, smaller)
    before = output(model)
    editor.apply(AddFilters("first", 2), probe)
    assert (output(model) - before).abs().max() < 1e-12


def test_a_conv_of_which_some_filters_are_used_is_not_taken_for_the_layer() -> None:
    class Some(Functional):
        def forward(self, x: Tensor) -> Tensor:
            y = F.conv2d(x, self.first.weight * 2).relu()
            return F.conv2d(y, self.conv.weight[1:5] * 0.5).relu().mean((2, 3))

    _, editor, probe = make(Some)
    assert "conv" in editor.refusals(probe)


@pytest.mark.parametrize("mode", ["trilinear", "nearest", "nearest-exact"])
def test_filters_before_a_resized_volume_were_refused(mode: str) -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.skip = nn.Conv3d(3, 6, 1), nn.Conv3d(3, 6, 1)
            self.classes = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            volume = x[:, :, None]
            small = F.max_pool3d(self.conv(volume), (1, 2, 2))
            y = F.interpolate(small, size=volume.shape[2:], mode=mode) + self.skip(volume)
            return self.classes(F.pad(y, (1, 1, 1, 1, 0, 0), "replicate").mean((2, 3, 4)))

    model, editor, probe = make(Decoder)
    smaller = without_filters(without_filters(model), "skip")
    smaller.classes.weight = keep(model.classes.weight, 1, KEPT)
    editor.apply(RemoveFilters("conv", [1, 4]), probe)
    assert_equal(model, smaller)


def test_a_split_of_a_filter_that_a_tied_decoder_reads_was_rolled_back() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv_transpose2d(self.conv(x).relu(), self.conv.weight)

    model, editor, probe = make(Tied)
    smaller = without_filters(model)
    with pytest.raises(EditRefusedError, match="both produces these channels and reads them"):
        editor.plan(AddFilters("conv", split_from=0), probe)
    editor.apply(RemoveFilters("conv", [1, 4]), probe)
    assert_equal(model, smaller)


class Written(nn.Module):
    def __init__(self, reshape: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.classes = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(64, 4)
        self.reshape = reshape

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(self.conv(x), 4)
        return self.classes(self.reshape(y).flatten(1))


WRITTEN = {
    "y.view(-1, 64)": lambda y: y.view(-1, 64),
    "y.reshape((-1, SIZE))": lambda y: y.reshape((-1, SIZE)),
    "y.view(y.size(0), 4 * 4 * 4)": lambda y: y.view(y.size(0), 4 * 4 * 4),
    "torch.reshape(y, [-1, 64])": lambda y: torch.reshape(y, [-1, 64]),
    "y.view(*y.shape[:1], 64)": lambda y: y.view(*y.shape[:1], 64),
    "y.view(-1, 4, 16)": lambda y: y.view(-1, 4, 16),
}


@pytest.mark.parametrize("call", WRITTEN)
def test_a_size_that_is_written_in_the_code_was_rolled_back_without_its_place(call: str) -> None:
    _, editor, probe = make(Written, WRITTEN[call])
    for request in (RemoveFilters("conv", [1]), RemoveFilters("conv", [1, 2]), AddFilters("conv")):
        with pytest.raises(EditRefusedError) as error:
            editor.plan(request, probe)
        assert f"{call} (test_further_rules.py, line " in str(error.value)
        assert "; write " in str(error.value)


@pytest.mark.parametrize(
    "reshape",
    [
        lambda y: y.view(y.size(0), -1),
        lambda y: y.view(-1, y.shape[1:].numel()),
        lambda y: y.view(2, -1, 16),
        lambda y: y.reshape(len(y), y.numel() // len(y)),
    ],
)
def test_sizes_that_follow_the_channels_are_not_refused(
    reshape: Callable[[Tensor], Tensor],
) -> None:
    model, editor, probe = make(Written, reshape)
    smaller = copy.deepcopy(model)
    smaller.conv.weight = keep(model.conv.weight, 0, [0, 2, 3])
    smaller.conv.bias = keep(model.conv.bias, 0, [0, 2, 3])
    columns = [i for i in range(64) if i // 16 != 1]
    smaller.classes.weight = keep(model.classes.weight, 1, columns)
    editor.apply(RemoveFilters("conv", [1]), probe)
    assert_equal(model, smaller)
