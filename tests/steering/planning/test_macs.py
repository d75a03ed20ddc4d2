"""The multiply-accumulates of a plan equal those of the edited network."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal
from revacnn_lightning.steering.planning.macs import count_macs
from tests.steering import nets

CONVS = [
    (kind, name)
    for kind in nets.NETS.values()
    for name, module in kind().named_modules()
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
]
each_conv = pytest.mark.parametrize(
    ("kind", "layer"), CONVS, ids=lambda v: getattr(v, "__name__", v)
)


def counted(model: nn.Module, x: Tensor) -> int:
    """Return the MACs per image, counted by hooks on the layers."""
    counts: list[int] = []

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        (x,) = args
        if isinstance(module, nn.Conv2d):
            each = math.prod(module.kernel_size) * module.in_channels // module.groups
            counts.append(out.numel() * each)
        elif isinstance(
            module, nn.ConvTranspose2d
        ):  # each input value contributes to several outputs
            each = math.prod(module.kernel_size) * module.out_channels // module.groups
            counts.append(x.numel() * each)
        elif isinstance(module, nn.Linear):
            counts.append(out.numel() * module.in_features)

    # Before any other hook: an inserted block is one, and its output may have another width.
    hooks = [m.register_forward_hook(count, prepend=True) for m in model.modules()]
    training = model.training
    with torch.no_grad():
        model.train()(x)
    model.train(training)
    for hook in hooks:
        hook.remove()
    return sum(counts) // len(x)


def editor_of(kind: type[nn.Module]) -> tuple[nn.Module, Editor, ForwardProbe]:
    model = nets.build(kind)
    return model, Editor(model), ForwardProbe([partial(model, nets.images())], samples=2)


@each_conv
@pytest.mark.parametrize(
    "edit",
    [
        lambda layer: requests.AddFilters(layer, count=3),
        lambda layer: requests.AddFilters(layer, split_from=0),
        lambda layer: requests.RemoveFilters(layer, [1]),
        lambda layer: requests.InsertLayer(layer),
        lambda layer: requests.InsertLayer(layer, "dirac"),
        lambda layer: requests.RemoveLayer(layer),
        lambda layer: requests.Freeze(layer),
    ],
    ids=["add", "split", "remove", "residual", "dirac", "remove layer", "freeze"],
)
def test_planned_macs_equal_counted_macs(
    kind: type[nn.Module], layer: str, edit: partial[requests.Edit]
) -> None:
    model, editor, probe = editor_of(kind)
    before = counted(model, nets.images())
    try:
        plan = editor.apply(edit(layer), probe).plan
    except EditRefusedError:
        assert counted(model, nets.images()) == before
        return
    after = counted(model, nets.images())
    assert (plan.macs_before, plan.macs_after) == (before, after)
    assert editor.plan(requests.Undo(), probe).macs_before == after
    assert editor.plan(requests.Undo(), probe).macs_after == before


def test_removing_a_layer_of_several_convs_subtracts_all_their_macs() -> None:
    model, editor, probe = editor_of(nets.Residual)
    plan = editor.apply(requests.RemoveLayer("a"), probe).plan
    assert plan.macs_after == counted(model, nets.images())


def test_blocks_inserted_after_inserted_blocks_are_counted() -> None:
    model, editor, probe = editor_of(nets.Plain)
    editor.apply(requests.InsertLayer("conv1"), probe)
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    plan = editor.apply(requests.InsertLayer("conv1.inserted1.conv"), probe).plan
    assert plan.macs_after == counted(model, nets.images())
    plan = editor.apply(requests.RemoveFilters("conv1", [0, 2]), probe).plan
    assert plan.macs_after == counted(model, nets.images())


def test_only_the_first_forward_is_counted() -> None:
    model = nets.build(nets.Plain)
    forward = partial(model, nets.images())
    once, thrice = Editor(model), Editor(model)
    plan = once.plan(requests.AddFilters("conv1"), ForwardProbe([forward], samples=2))
    same = thrice.plan(requests.AddFilters("conv1"), ForwardProbe([forward] * 3, samples=2))
    assert plan.macs_after == same.macs_after


def test_undoing_an_edit_planned_without_macs() -> None:
    """Journals of versions that did not count MACs are still read."""
    _, editor, probe = editor_of(nets.Plain)
    editor.apply(requests.AddFilters("conv1"), probe)
    data = editor.journal.to_data()
    for plan in data["plans"]:
        del plan["macs_before"], plan["macs_after"]
    editor.journal.entries = Journal.from_data(data).entries
    plan = editor.plan(requests.Undo(), probe)
    assert (plan.macs_before, plan.macs_after) == (0, 0)


class Attention(nn.Module):
    """Attention over pixels, in plain operations and by torch's function, after a weight norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.mix = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 6, 3, padding=1))
        self.head = nn.Conv2d(6, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(F.relu(self.mix(F.relu(self.conv(x)))))
        tokens = x.flatten(2).transpose(1, 2)  # (B, L, C)
        tokens = torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens
        tokens = F.scaled_dot_product_attention(*[tokens[:, None]] * 3)[:, 0]
        return self.fc(tokens.mean(1))


def test_products_of_activations_and_of_computed_weights_are_counted() -> None:
    """Equal to torch's FLOP counter, which does not count the fused attention kernels of CPUs."""
    model, editor, probe = editor_of(Attention)

    def total() -> int:
        unfused = sdpa_kernel(SDPBackend.MATH)
        with torch.no_grad(), unfused, FlopCounterMode(display=False) as mode:
            model(nets.images())
        return mode.get_total_flops() // 2 // 2  # two operations per product, two images

    assert count_macs(editor.channel_groups(probe)) == total()
    for edit in (requests.RemoveFilters("conv", [1]), requests.AddFilters("mix", 2)):
        plan = editor.apply(edit, probe).plan
        assert plan.macs_before != plan.macs_after == total()


class Sequence(nn.Module):
    """The columns of a map as steps of a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv2d(3, 8, 3), nn.LSTM(8, 6, 2, bidirectional=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.conv(x).mean(2).permute(2, 0, 1))[0].sum(0))


def test_a_fused_lstm_costs_as_many_macs_as_its_steps() -> None:
    """In single precision, one operation runs all steps; in double precision, each has its own."""
    model = nets.build(Sequence)
    counts = []
    for dtype in (torch.float64, torch.float32):
        model.to(dtype)
        editor, probe = Editor(model), nets.probe_of(model, nets.images().to(dtype))
        counts.append(count_macs(editor.channel_groups(probe)))
        plan = editor.plan(requests.RemoveFilters("conv", [1]), probe)
        counts.append(plan.macs_after)
    assert counts[:2] == counts[2:]
