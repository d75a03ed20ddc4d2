"""Inserting and removing whole layers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from revacnn_lightning.errors import EditFailedError, EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal
from revacnn_lightning.steering.blocks import InputCropOrPadConv2d, make_removed_layer_replacement
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


@each_conv
def test_inserting_a_residual_block_is_bit_exact(kind: type[nn.Module], layer: str) -> None:
    model, editor, probe = nets.editor_of(kind)
    keys = [*model.state_dict()]
    x = nets.images(3, seed=9)
    before = nets.output(model, x)
    outcome = editor.apply(requests.InsertLayer(layer), probe)
    assert torch.equal(nets.output(model, x), before)
    assert outcome.output_change == 0.0
    assert set(keys) < {*model.state_dict()}
    assert outcome.plan.parameters_after == sum(p.numel() for p in model.parameters())
    nets.step(model, editor.optimizers[0])
    assert not torch.equal(nets.output(model, x), before)


@each_conv
def test_inserting_a_dirac_conv_keeps_the_function(kind: type[nn.Module], layer: str) -> None:
    model, editor, probe = nets.editor_of(kind)
    before = nets.output(model)
    editor.apply(requests.InsertLayer(layer, "dirac"), probe)
    assert torch.allclose(nets.output(model), before, rtol=1e-12)


def test_an_insertion_seeded_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training drew other random numbers there afterwards, and so did the verification."""

    _, editor, probe = nets.editor_of(nets.Plain)

    def seeded(seed: int) -> None:
        raise AssertionError

    monkeypatch.setattr(torch, "manual_seed", seeded)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded)
    state = torch.get_rng_state()
    editor.apply(requests.InsertLayer("conv1"), probe)
    assert torch.equal(torch.get_rng_state(), state)


def test_inserted_blocks_can_be_trained_edited_and_copied() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    editor.apply(requests.InsertLayer("conv1"), probe)
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    editor.apply(requests.InsertLayer("conv1.inserted1.conv"), probe)
    gain = model.conv1.inserted1.bn.weight
    nets.step(model, optimizer)
    assert gain.abs().gt(0).any()
    assert len(optimizer.state[gain]) > 0
    editor.apply(requests.RemoveFilters("conv1", [1]), probe)
    editor.apply(requests.AddFilters("conv1"), probe)
    assert model.conv1.inserted1.conv.weight.shape == (6, 6, 3, 3)
    nets.step(model, optimizer)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(nets.output(copied), nets.output(model))


def test_inserting_after_a_dirac_conv_of_another_width() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    editor.apply(requests.RemoveFilters("conv1.inserted1.conv", [0, 3]), probe)
    assert (model.conv1.out_channels, model.conv2.in_channels) == (6, 4)
    outcome = editor.apply(requests.InsertLayer("conv1"), probe)
    assert outcome.output_change == 0.0
    assert model.conv1.inserted2.conv.in_channels == 4


def test_inserted_layers_are_restored_from_a_checkpoint() -> None:
    model, editor, probe = nets.editor_of(nets.Residual)
    editor.apply(requests.InsertLayer("a.1"), probe)
    nets.step(model, editor.optimizers[0])
    file = io.BytesIO()
    torch.save([editor.journal.to_data(), model.state_dict()], file)
    file.seek(0)
    data, weights = torch.load(file, weights_only=True)
    fresh = nets.build(nets.Residual, seed=3)
    Journal.from_data(data).replay(fresh)
    fresh.load_state_dict(weights)
    assert torch.equal(nets.output(fresh), nets.output(model))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Conv2d(4, 8, 11, stride=4, padding=2, groups=2),
        nn.Conv2d(3, 8, 4, stride=2, padding=1),
        nn.Conv2d(3, 8, 3, dilation=2, padding="same", bias=False),
        nn.Conv2d(3, 8, (1, 7), padding=(0, 3)),
        nn.Conv2d(3, 8, 1, padding=2),
    ],
    ids=str,
)
def test_the_replacement_has_the_same_output_size(conv: nn.Conv2d) -> None:
    replacement = make_removed_layer_replacement(conv, "conv")
    assert isinstance(replacement, InputCropOrPadConv2d)
    for height, width in ((32, 32), (33, 40), (47, 31)):
        x = torch.randn(2, conv.in_channels, height, width)
        assert replacement(x).shape == conv(x).shape
    constant = torch.ones(1, conv.in_channels, 64, 64)
    middle = conv(constant).shape[-2] // 2, conv(constant).shape[-1] // 2
    output, expected = (c(constant)[0, :, middle[0], middle[1]] for c in (replacement, conv))
    assert torch.allclose(output, expected, atol=1e-5)


def test_remove_layers() -> None:
    model, editor, probe = nets.editor_of(nets.Residual)
    nets.step(model, editor.optimizers[0])
    outcome = editor.apply(requests.RemoveLayer("a"), probe)  # a block that keeps the shape
    assert isinstance(model.a, nn.Identity)
    assert outcome.plan.parameters_after == sum(p.numel() for p in model.parameters())
    editor.apply(requests.RemoveLayer("b.0.0"), probe)  # 8 -> 6 channels
    assert model.b[0][0].kernel_size == (1, 1)
    nets.step(model, editor.optimizers[0])
    in_groups = {id(p) for g in editor.optimizers[0].param_groups for p in g["params"]}
    assert in_groups == {id(p) for p in model.parameters()}
    editor.apply(requests.AddFilters("b.0.0"), probe)
    editor.apply(requests.RemoveFilters("stem.0", [0]), probe)
    nets.step(model, editor.optimizers[0])


def test_invalid_removals_are_refused() -> None:
    _, editor, probe = nets.editor_of(nets.Residual)
    for layer, reason in (("", "whole network"), ("nothing", "no layer"), ("fc", "keep the shape")):
        with pytest.raises(EditRefusedError, match=reason):
            editor.apply(requests.RemoveLayer(layer), probe)
    editor.apply(requests.RemoveLayer("a"), probe)
    with pytest.raises(EditRefusedError, match="nothing already"):
        editor.apply(requests.RemoveLayer("a"), probe)


def test_removing_a_layer_that_code_references_elsewhere_fails() -> None:
    class CopyHolder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.out = nn.Conv2d(3, 2, 1)
            self.held = [self.conv]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.held[0](x))

    model = CopyHolder()
    x = torch.randn(2, 3, 8, 8)
    editor = Editor(model, [torch.optim.SGD(model.parameters(), lr=0.1)])
    before = nets.checksum(model, *editor.optimizers)
    with pytest.raises(EditFailedError, match="holds it"):
        editor.apply(requests.RemoveLayer("conv"), ForwardProbe([lambda: model(x)]))
    assert nets.checksum(model, *editor.optimizers) == before


def test_a_fused_sgd_stopped_the_training_after_a_layer_was_inserted() -> None:
    model = nets.build(nets.Plain).float()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, fused=True)
    editor = Editor(model, [optimizer])
    x = torch.randn(2, 3, 8, 8)
    probe = ForwardProbe([lambda: model(x)])

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    step()
    editor.apply(requests.InsertLayer("conv1", "dirac"), probe)
    inserted = model.conv1.inserted1.conv.weight
    before = inserted.detach().clone()
    step()
    momentum = optimizer.state[inserted]["momentum_buffer"]
    torch.testing.assert_close(momentum, inserted.grad)  # as a first step leaves it
    torch.testing.assert_close(inserted, before - 1e-2 * momentum)
