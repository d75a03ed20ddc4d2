"""Attention: all heads keep as many channels, and what the model reads from shapes follows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.requests import AddFilters, RemoveFilters, Undo
from revacnn_lightning.steering import Editor, ForwardProbe

HEADS, WIDTH = 4, 16
IMAGES = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """An image, a convolution, attention with a residual sum, and scores of five classes."""

    def __init__(self, width: int = WIDTH, head_width: int = WIDTH // HEADS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.qkv: nn.Module = nn.Conv2d(width, 3 * HEADS * head_width, 1)
        self.project: nn.Module = nn.Conv2d(HEADS * head_width, width, 1)
        self.classes = nn.Linear(width, 5)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.conv(images))
        return self.classes((x + self.attend(x)).mean((2, 3)))

    def attend(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(b, 3, HEADS, c // HEADS, h * w).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.project(y.transpose(-1, -2).reshape(b, c, h, w))


class Positions(Block):
    """Linear layers on (batch, positions, channels); the number of heads is an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.scale = HEADS, 0.5
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH).double()
        self.project = nn.Linear(WIDTH, WIDTH).double()

    def attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q @ k.transpose(-2, -1)) * self.scale
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)
        return self.project(y).transpose(1, 2).unflatten(2, (height, width))


class Chunks(Block):
    """Heads in the batch dimension, and products as sums over named indices."""

    def attend(self, x: Tensor) -> Tensor:
        b, c, h, w = x.size()
        q, k, v = (
            each.reshape(b * HEADS, c // HEADS, h * w) for each in self.qkv(x).chunk(3, dim=1)
        )
        scores = (torch.einsum("bct,bcs->bts", q, k) * 0.5).softmax(-1)
        return self.project(torch.einsum("bts,bcs->bct", scores, v).reshape(b, c, h, w))


class Module(Block):
    """The module of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
        self.qkv, self.project = nn.Identity(), nn.Identity()

    def attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        y, _ = self.attention(x, x, x)
        return y.transpose(1, 2).unflatten(2, (height, width))


NETS = [Block, Positions, Chunks]


def editor_of(net: type[Block]) -> tuple[Block, Editor, ForwardProbe]:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    F.cross_entropy(model(IMAGES), torch.tensor([1, 2])).backward()
    optimizer.step()
    return model, Editor(model, [optimizer]), ForwardProbe([lambda: model(IMAGES)])


def without(model: Block, channel: int) -> dict[str, Tensor]:
    """Return the parameters without a channel of each head."""
    kept = [c for c in range(WIDTH) if c % (WIDTH // HEADS) != channel]
    rows = [part * WIDTH + c for part in range(3) for c in kept]
    result = {}
    for name, value in model.state_dict().items():
        if name in ("conv.weight", "conv.bias", "project.weight", "project.bias"):
            value = value[kept]
        if name.startswith("qkv"):
            value = value[rows]
        if name in ("qkv.weight", "project.weight", "classes.weight"):
            value = value[:, kept]
        result[name] = value
    return result


@pytest.mark.parametrize("net", NETS)
def test_a_channel_of_each_head_is_removed(net: type[Block]) -> None:
    model, editor, probe = editor_of(net)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = without(model, 1)
    outcome = editor.apply(RemoveFilters("conv", [5]), probe)
    (change,) = [one for one in outcome.plan.filter_changes if one.layer == "conv"]
    assert change.filters == [1, 5, 9, 13]
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    model(IMAGES)
    editor.apply(Undo(), probe)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("net", NETS)
def test_each_head_grows_by_a_channel_if_the_change_of_its_scores_is_confirmed(
    net: type[Block],
) -> None:
    model, editor, probe = editor_of(net)
    before = model.qkv.weight.detach().reshape(3, HEADS, WIDTH // HEADS, WIDTH)
    with pytest.raises(EditRefusedError, match=r"scores of .* sum over them"):
        editor.apply(AddFilters("conv", 1), probe)
    editor.apply(AddFilters("conv", 1, confirmed=True), probe)
    assert model.conv.out_channels == WIDTH + HEADS
    head_width = WIDTH // HEADS + 1
    after = model.qkv.weight.detach().reshape(3, HEADS, head_width, HEADS, head_width)
    old = after[:, :, :-1, :, :-1].reshape(before.shape)
    assert torch.equal(old, before)
    model(IMAGES)


def test_the_module_of_pytorch_keeps_its_sizes() -> None:
    model, editor, probe = editor_of(Module)
    editor.apply(RemoveFilters("conv", [5]), probe)
    attention = model.attention
    sizes = attention.embed_dim, attention.kdim, attention.vdim, attention.head_dim
    assert sizes == (12, 12, 12, 3)
    assert attention.in_proj_weight.shape == (36, 12)
    model(IMAGES)
    model.eval()(IMAGES)
