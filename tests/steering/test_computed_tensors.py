"""Edits of convs that compute their weight: exact where that is filter by filter, else refused."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering import Editor, ForwardProbe, Journal
from revacnn_lightning.steering.computed_tensors import computed_tensors, tensor_or_original
from tests.steering import nets


def old_weight_norm(module: nn.Module, dim: int | None = 0) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(module, dim=dim)


def pruned(module: nn.Module) -> nn.Module:
    prune.l1_unstructured(module, "weight", 0.3)
    prune.random_unstructured(module, "weight", 0.2)
    if module.bias is not None:
        prune.l1_unstructured(module, "bias", 0.3)
    return module


class Standardized(nn.Conv2d):
    """Standardizes each filter (Qiao et al. 2019), as an own forward of a subclass does."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(
            self.weight.reshape(1, self.out_channels, -1), None, None, training=True
        )
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias, padding=self.padding)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def doubled(module: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(module, "weight", Doubled()) or module


class Net(nn.Module):
    """conv, bn, relu, conv, transposed conv, linear; ``norm`` is applied to all but the bn."""

    norm: Callable[..., nn.Module]

    def __init__(self) -> None:
        super().__init__()
        norm = type(self).norm
        self.conv1 = norm(nn.Conv2d(3, 6, 3, padding=1))
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = norm(nn.Conv2d(6, 8, 3, padding=1))
        self.up = norm(nn.ConvTranspose2d(8, 4, 2, stride=2))
        self.fc = norm(nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.up(F.relu(self.conv2(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


def net(norm: Callable[..., nn.Module]) -> type[Net]:
    return type("Net", (Net,), {"norm": staticmethod(norm)})


KINDS = {
    "weight_norm": net(parametrizations.weight_norm),
    "weight_norm dim 1": net(lambda m: parametrizations.weight_norm(m, dim=1)),
    "weight_norm of the whole": net(lambda m: parametrizations.weight_norm(m, dim=None)),
    "old weight_norm": net(old_weight_norm),
    "old weight_norm dim 1": net(lambda m: old_weight_norm(m, 1)),
    "pruned": net(pruned),
    "user": net(doubled),
}
EDITS = [
    requests.AddFilters("conv1", count=2),
    requests.AddFilters("conv2"),
    requests.AddFilters("up"),
    requests.AddFilters("conv1", split_from=2),
    requests.RemoveFilters("conv1", [1, 4]),
    requests.RemoveFilters("conv2", [0]),
    requests.RemoveFilters("up", [3]),
    requests.MergeFilters("conv1", [1, 3]),
    requests.InsertLayer("conv1"),
    requests.RemoveLayer("conv2"),
]
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
edits = pytest.mark.parametrize("request_", EDITS, ids=lambda r: f"{type(r).__name__}")


def trained(kind: type[nn.Module]) -> tuple[nn.Module, Editor]:
    model = nets.build(kind)
    for parameter in model.parameters():  # the strides of a transposed gain are not canonical
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for seed in range(2):
        nets.step(model, optimizer, seed=seed)
    return model, Editor(model, [optimizer])


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weight that each layer multiplies with."""
    model.eval()
    names = ("conv1", "conv2", "up", "fc")
    found = {}
    for name in names:
        layer = model.get_submodule(name)
        for hook in layer._forward_pre_hooks.values():
            hook(layer, None)
        found[name] = layer.weight.detach().clone()
    model.train()
    return found


def has_gain_of_each_input(conv: nn.Module) -> bool:
    """Return whether a weight norm extends over the filters of a conv."""
    return any(p.shape == (1, 6, 1, 1) for p in conv.parameters())


@kinds
@edits
def test_the_function_is_kept_or_that_of_the_silenced_filters(kind, request_):
    model, editor = trained(kind)
    before = nets.output(model)
    if isinstance(request_, requests.MergeFilters) and has_gain_of_each_input(model.conv2):
        with pytest.raises(EditRefusedError, match="weight norm for each channel"):
            editor.apply(request_, nets.probe_of(model))
        return
    editor.apply(request_, nets.probe_of(model))
    after = nets.output(model)
    assert after.shape == before.shape
    if isinstance(request_, requests.AddFilters | requests.InsertLayer):
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-12)
    for seed in range(2):
        nets.step(model, editor.optimizers[0], seed=seed)
    assert nets.output(model).isfinite().all()


@kinds
def test_removal_keeps_every_other_entry_of_the_weights(kind):
    model, editor = trained(kind)
    before = weights(model)
    editor.apply(requests.RemoveFilters("conv1", [1, 4]), nets.probe_of(model))
    after = weights(model)
    kept = [0, 2, 3, 5]
    torch.testing.assert_close(after["conv1"], before["conv1"][kept], rtol=1e-12, atol=0)
    torch.testing.assert_close(after["conv2"], before["conv2"][:, kept], rtol=1e-12, atol=0)
    assert torch.equal(after["fc"], before["fc"])


@kinds
def test_sizes_agree_with_the_weights(kind):
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    for request in (
        requests.RemoveFilters("conv1", [1, 4]),
        requests.AddFilters("conv2"),
        requests.RemoveFilters("up", [0]),
    ):
        editor.apply(request, probe)
    assert (model.conv1.out_channels, model.conv2.in_channels) == (4, 4)
    assert (model.conv2.out_channels, model.up.in_channels) == (9, 9)
    assert (model.up.out_channels, model.fc.in_features) == (3, 12)
    editor.apply(requests.RemoveFilters("conv1", [3]), probe)
    shapes = {name: tuple(weight.shape) for name, weight in weights(model).items()}
    assert shapes == {
        "conv1": (3, 3, 3, 3), "conv2": (9, 3, 3, 3), "up": (9, 3, 2, 2), "fc": (5, 12)
    }  # fmt: skip


@kinds
@edits
def test_immediate_undo_restores_every_bit(kind, request_):
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    before = nets.checksum(model, *editor.optimizers)
    if isinstance(request_, requests.MergeFilters) and has_gain_of_each_input(model.conv2):
        return  # refused
    editor.apply(request_, probe)
    editor.apply(requests.Undo(), probe)
    assert nets.checksum(model, *editor.optimizers) == before


@kinds
@pytest.mark.parametrize("request_", EDITS[:7:3], ids=lambda r: f"{type(r).__name__}")
def test_redo_restores_every_bit_of_the_edit(kind, request_):
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    editor.apply(request_, probe)
    edited = nets.checksum(model, *editor.optimizers)
    editor.apply(requests.Undo(), probe)
    editor.apply(requests.Redo(), probe)
    assert nets.checksum(model, *editor.optimizers) == edited


@kinds
def test_undo_after_training_keeps_the_weights_of_the_survivors(kind):
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    editor.apply(requests.RemoveFilters("conv1", [1, 4]), probe)
    nets.step(model, editor.optimizers[0])
    before = weights(model)
    editor.apply(requests.Undo(), probe)
    after = weights(model)
    kept = [0, 2, 3, 5]
    torch.testing.assert_close(after["conv1"][kept], before["conv1"], rtol=1e-12, atol=0)
    torch.testing.assert_close(after["conv2"][:, kept], before["conv2"], rtol=1e-12, atol=0)


@kinds
def test_optimizer_state_of_survivors_stays_as_it_is(kind):
    model, editor = trained(kind)
    (optimizer,) = editor.optimizers
    before = {
        name: {k: v.clone() for k, v in optimizer.state[p].items()}
        for name, p in model.named_parameters()
    }
    editor.apply(requests.RemoveFilters("conv1", [1, 4]), nets.probe_of(model))
    kept = torch.tensor([0, 2, 3, 5])
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            old = before[name][key]
            for dim in range(value.ndim):
                if value.shape[dim] != old.shape[dim]:
                    old = old.index_select(dim, kept)
            assert torch.equal(value, old), (name, key)


@kinds
def test_replay_on_a_fresh_model_gives_the_same_structure(kind):
    model, editor = trained(kind)
    probe = nets.probe_of(model)
    for request in (requests.RemoveFilters("conv1", [0]), requests.AddFilters("conv2", count=2)):
        editor.apply(request, probe)
    stored = io.BytesIO()
    torch.save(editor.journal.to_data(), stored)
    stored.seek(0)
    fresh = nets.build(kind, seed=3)
    Journal.from_data(torch.load(stored, weights_only=True)).replay(fresh)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(nets.output(fresh), nets.output(model))


def test_a_new_filter_of_a_weight_norm_starts_as_in_a_fresh_layer():
    model, editor = trained(KINDS["weight_norm"])
    editor.apply(requests.AddFilters("conv1"), nets.probe_of(model))
    steps = model.conv1.parametrizations.weight
    norms = steps.original1.detach().flatten(1).norm(dim=1)
    torch.testing.assert_close(steps.original0.detach().flatten()[6], norms[6])
    assert norms[6] > 0


def test_new_entries_are_not_masked():
    model, editor = trained(KINDS["pruned"])
    editor.apply(requests.AddFilters("conv1"), nets.probe_of(model))
    assert model.conv1.weight_mask[6].all()
    assert model.conv2.weight_mask[:, 6].all()
    assert model.conv1.weight_orig[6].any()


def test_the_attribute_of_a_hook_has_the_edited_shape_immediately():
    for kind in ("pruned", "old weight_norm"):
        model, editor = trained(KINDS[kind])
        editor.apply(requests.RemoveFilters("conv1", [1]), nets.probe_of(model))
        assert len(model.conv1.weight) == 5
        editor.apply(requests.Undo(), nets.probe_of(model))
        assert len(model.conv1.weight) == 6


REFUSED = {
    "orthogonal": (parametrizations.orthogonal, "orthogonal"),
}


@pytest.mark.parametrize(("norm", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("request_", EDITS[:8], ids=lambda r: f"{type(r).__name__}")
def test_computations_that_couple_all_filters_are_refused_by_name(norm, reason, request_):
    model, editor = trained(net(norm))
    before = nets.checksum(model, *editor.optimizers)
    with pytest.raises(EditRefusedError, match=reason) as error:
        editor.apply(request_, nets.probe_of(model))
    assert any(name in str(error.value) for name in ("conv1", "conv2", "up", "fc"))
    assert nets.checksum(model, *editor.optimizers) == before


@pytest.mark.parametrize(("norm", "reason"), REFUSED.values(), ids=REFUSED)
def test_the_producer_of_a_coupling_consumer_is_refused_by_the_name_of_the_consumer(norm, reason):
    class Mixed(nets.Plain):
        def __init__(self):
            super().__init__()
            self.conv2 = norm(self.conv2)

    model, editor = trained(Mixed)
    with pytest.raises(EditRefusedError, match=f"conv2.*{reason}"):
        editor.apply(requests.AddFilters("conv1"), nets.probe_of(model))


def test_a_standardized_conv_is_edited_exactly_and_its_producer_not_grown():
    class Mixed(nets.Plain):
        def __init__(self):
            super().__init__()
            self.conv2 = Standardized(6, 8, 3, padding=1)

    model, editor = trained(Mixed)
    probe = nets.probe_of(model)
    before = nets.output(model)
    editor.apply(requests.AddFilters("conv2"), probe)
    torch.testing.assert_close(nets.output(model), before, rtol=1e-12, atol=1e-12)
    with pytest.raises(EditRefusedError, match="conv2"):
        editor.apply(requests.AddFilters("conv1"), probe)


def test_growth_before_a_wide_standardized_conv_is_refused_in_single_precision():
    """With 512 inputs, a new one changes the standardized weight by less than the tolerance."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 512, 1), Standardized(512, 32, 3)
            self.f, self.skip = nn.Linear(32, 5), nn.Linear(192, 5)

        def forward(self, x):
            return self.skip(x.flatten(1)) + 0.1 * self.f(self.b(self.a(x).relu()).mean((2, 3)))

    model = nets.build(Wide).float()
    x = nets.images().float()
    with pytest.raises(EditRefusedError, match="b normalizes over them"):
        Editor(model).apply(requests.AddFilters("a"), nets.probe_of(model, x))


@pytest.mark.parametrize("kind", ["weight_norm", "old weight_norm", "pruned"])
def test_frozen_filters_keep_their_weight(kind):
    model, editor = trained(KINDS[kind])
    editor.apply(requests.Freeze("conv1", [1, 3]), nets.probe_of(model))
    before = weights(model)["conv1"]
    for seed in range(2):
        nets.step(model, editor.optimizers[0], seed=seed)
    after = weights(model)["conv1"]
    assert torch.equal(after[[1, 3]], before[[1, 3]])
    assert not torch.equal(after[[0, 2]], before[[0, 2]])


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("layer", ["conv1", "conv2", "up"])
def test_filters_with_a_spectral_norm_are_edited_once_the_change_is_confirmed(norm, layer: str):
    kind = net(norm)
    for split in (None, 1):
        model, editor = trained(kind)
        probe, x = nets.probe_of(model), nets.images(3, seed=9)
        before, shapes = nets.output(model, x), [each.shape for each in model.state_dict().values()]
        with pytest.raises(EditRefusedError, match="changes all others"):
            editor.apply(requests.AddFilters(layer, 2, split_from=split), probe)
        request = requests.AddFilters(layer, 2, split_from=split, confirmed=True)
        editor.apply(request, probe)
        if split is None:  # until the next power iteration
            assert torch.allclose(nets.output(model, x), before, atol=1e-12)
        nets.step(model, editor.optimizers[0])
        editor.apply(requests.Undo(), probe)
        assert [each.shape for each in model.state_dict().values()] == shapes
        nets.step(model, editor.optimizers[0])


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_spectral_norm_asked_to_confirm_a_change_of_zero(norm):
    """It follows in the power iteration of the next forward."""
    model, editor = trained(net(norm))
    probe, x = nets.probe_of(model), nets.images(3, seed=9)
    plan = editor.plan(requests.AddFilters("conv1", 2), probe)
    assert plan.output_effect == "output changes from the next batch on"
    assert plan.confirmation.endswith(". The output changes from the next batch on")
    before = nets.output(model, x)
    editor.apply(requests.AddFilters("conv1", 2, confirmed=True), probe)
    assert (nets.output(model, x) - before).abs().max() < 1e-6
    model.train()
    model(x)
    assert (nets.output(model, x) - before).abs().max() > 1e-4


def test_the_rest_of_a_spectral_norm_stays_when_a_filter_is_removed():
    model, editor = trained(net(parametrizations.spectral_norm))
    model.eval()
    norm = model.conv2.parametrizations.weight[0]
    weight, u = model.conv2.parametrizations.weight.original.detach().clone(), norm._u.clone()
    applied = editor.apply(requests.RemoveFilters("conv2", [0, 3]), nets.probe_of(model))
    assert any("change as well" in note for note in applied.plan.notes)
    kept = [1, 2, 4, 5, 6, 7]
    assert torch.equal(model.conv2.parametrizations.weight.original, weight[kept])
    assert torch.equal(norm._u, u[kept])
    sigma = u[kept] @ weight[kept].flatten(1) @ norm._v
    assert torch.allclose(model.conv2.weight, weight[kept] / sigma)


def test_filters_with_a_spectral_norm_as_a_hook_were_refused():
    model, editor = trained(net(nn.utils.spectral_norm))
    model.eval()
    conv = model.conv2
    weight, u, v = (t.detach().clone() for t in (conv.weight_orig, conv.weight_u, conv.weight_v))
    editor.apply(requests.RemoveFilters("conv1", [2]), nets.probe_of(model))
    columns = [i for i in range(weight[0].numel()) if i // 9 != 2]
    rest = weight.flatten(1)[:, columns]
    assert torch.equal(conv.weight_orig.flatten(1), rest)
    assert torch.equal(conv.weight_u, u)
    assert torch.equal(conv.weight_v, v[columns])
    assert torch.allclose(conv.weight.flatten(1), rest / (u @ rest @ v[columns]), rtol=1e-12)
    editor.apply(requests.Undo(), nets.probe_of(model))
    assert torch.equal(conv.weight_v, v)
    assert torch.equal(conv.weight_orig, weight)


def test_freezing_is_refused_where_filters_are_not_computed_one_by_one():
    for norm in (parametrizations.spectral_norm, lambda m: parametrizations.weight_norm(m, dim=1)):
        model, editor = trained(net(norm))
        with pytest.raises(EditRefusedError, match="cannot be frozen"):
            editor.apply(requests.Freeze("conv1", [1]), nets.probe_of(model))


@pytest.mark.parametrize(
    "request_", [requests.Reinitialize("conv1", [0]), requests.SetFilter("conv1", 0, [1], [1.0])]
)
@kinds
def test_setting_filters_of_a_computed_weight_is_refused(kind, request_):
    model, editor = trained(kind)
    with pytest.raises(EditRefusedError, match="computed from other parameters"):
        editor.apply(request_, nets.probe_of(model))


def test_sizes_of_all_owners_of_a_shared_weight_are_updated():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
            self.second.weight = self.first.weight
            self.fc = nn.Linear(8, 2)

        def forward(self, x):
            x = self.stem(x).relu()
            return self.fc((self.first(x) + self.second(x)).relu().mean((2, 3)))

    model, editor = trained(Tied)
    probe = nets.probe_of(model)
    editor.apply(requests.RemoveFilters("first", [1, 2]), probe)
    assert model.first.out_channels == model.second.out_channels == 6
    editor.apply(requests.Undo(), probe)
    assert model.first.out_channels == model.second.out_channels == 8


def test_a_removed_layer_with_a_spectral_norm_returns_as_it_was():
    model, editor = trained(net(parametrizations.spectral_norm))
    before = copy.deepcopy(model.state_dict())
    probe = nets.probe_of(model)
    editor.apply(requests.RemoveLayer("conv2"), probe)
    editor.apply(requests.Undo(), probe)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_originals_of_each_computation_are_found():
    model = nn.Sequential(
        old_weight_norm(nn.Conv2d(3, 4, 3)),
        parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
        pruned(nn.Conv2d(4, 4, 3)),
        parametrizations.orthogonal(nn.Linear(4, 4)),
    )
    found = {(each.module, each.name): each for each in computed_tensors(model)}
    assert set(found) == {("0", "weight"), ("1", "weight"), ("2", "weight"), ("2", "bias"),
                          ("3", "weight")}  # fmt: skip
    assert (found["0", "weight"].gain, found["0", "weight"].direction) == (
        "0.weight_g",
        "0.weight_v",
    )
    assert found["1", "weight"].direction == "1.parametrizations.weight.original1"
    assert (found["2", "bias"].mask, found["2", "bias"].direction) == ("2.bias_mask", "2.bias_orig")
    assert found["3", "weight"].refusal
    assert tensor_or_original(model[1], "weight") is model[1].parametrizations.weight.original1


def test_filters_are_added_before_a_scripted_part() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = torch.jit.script(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3), scripted)
    images = torch.randn(2, 1, 8, 8)
    Editor(model).apply(requests.AddFilters("0", 2), ForwardProbe([lambda: model(images)]))
    assert model[0].out_channels == 6
