"""Setting, reinitializing and merging filters."""

from __future__ import annotations

import pytest
import torch

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol import requests
from revacnn_lightning.steering.execution.activation_matching import MAX_FACTOR
from tests.steering import nets


def test_set_filter_to_a_weighted_mean() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    nets.step(model, optimizer)
    weight, bias = model.conv2.weight.detach().clone(), model.conv2.bias.detach().clone()
    outcome = editor.apply(requests.SetFilter("conv2", 1, [0, 3], [1.0, 3.0]), probe)
    assert torch.allclose(model.conv2.weight[1], 0.25 * weight[0] + 0.75 * weight[3])
    assert torch.allclose(model.conv2.bias[1], 0.25 * bias[0] + 0.75 * bias[3])
    rest = [0, 2, 3, 4, 5, 6, 7]
    assert torch.equal(model.conv2.weight[rest], weight[rest])
    assert optimizer.state[model.conv2.weight]["exp_avg"][1].eq(0).all()
    assert optimizer.state[model.conv2.weight]["exp_avg"][0].ne(0).any()
    assert outcome.output_change is not None
    assert outcome.output_change > 0


def test_set_filter_of_a_transposed_conv() -> None:
    model, editor, probe = nets.editor_of(nets.Concat)
    weight = model.up.weight.detach().clone()
    editor.apply(requests.SetFilter("up", 1, [0], [2.0]), probe)
    assert torch.allclose(model.up.weight[:, 1], weight[:, 0])


def test_reinitialize_a_filter() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    state = torch.get_rng_state()
    weight = model.conv1.weight.detach().clone()
    editor.apply(requests.Reinitialize("conv1", [2]), probe)
    assert not torch.equal(model.conv1.weight[2], weight[2])
    assert model.conv1.weight[2].abs().max() <= MAX_FACTOR * 27**-0.5  # 1 / sqrt(fan in)
    assert torch.equal(model.conv1.weight[[0, 1, 3, 4, 5]], weight[[0, 1, 3, 4, 5]])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_silent_filter_is_reinitialized_without_changing_the_output() -> None:
    """A reinitialized filter that kept its outgoing weights would disturb the layers behind."""
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    nets.step(model, optimizer)
    with torch.no_grad():
        model.bn1.weight[2], model.bn1.bias[2] = 0.0, -1.0  # the ReLU behind passes nothing
    before = nets.output(model)
    columns = model.conv2.weight.detach().clone()
    outcome = editor.apply(requests.Reinitialize("conv1", [2]), probe)
    assert torch.equal(nets.output(model), before)
    assert outcome.output_change == 0
    assert "the outgoing weights become zero" in outcome.plan.notes[0]
    moments = optimizer.state[model.conv2.weight]["exp_avg"]
    assert model.conv2.weight[:, 2].eq(0).all()
    assert moments[:, 2].eq(0).all()
    rest = [0, 1, 3, 4, 5]
    assert torch.equal(model.conv2.weight[:, rest], columns[:, rest])
    assert moments[:, rest].ne(0).any()
    editor.apply(requests.Undo(), probe)
    assert torch.equal(model.conv2.weight, columns)


def test_an_active_filter_is_reinitialized_as_if_it_were_removed_first() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    with torch.no_grad():
        column = model.conv2.weight[:, 2].clone()
        model.conv2.weight[:, 2] = 0
        expected = nets.output(model)
        model.conv2.weight[:, 2] = column
    editor.apply(requests.Reinitialize("conv1", [2]), probe)
    assert torch.allclose(nets.output(model), expected, rtol=1e-12)


def test_a_filter_that_is_not_finite_is_reinitialized() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    model.eval()
    with torch.no_grad():
        model.conv1.weight[2] = torch.nan
    editor.apply(requests.Reinitialize("conv1", [2]), probe)
    assert nets.output(model).isfinite().all()


def test_outgoing_weights_are_kept_on_request_and_where_others_share_them() -> None:
    for kind, request, reason in (
        (nets.Plain, requests.Reinitialize("conv1", [2], zero_outgoing=False), "are kept"),
        (nets.Residual, requests.Reinitialize("a.1", [2]), "are kept, because they are coupled"),
    ):
        model, editor, probe = nets.editor_of(kind)
        before = {n: p.clone() for n, p in model.named_parameters() if request.layer not in n}
        plan = editor.plan(request, probe)
        assert reason in plan.notes[0]
        assert "the outgoing weights are kept" in plan.notes[0]
        assert plan.output_effect == "output changes"
        editor.apply(request, probe)
        now = dict(model.named_parameters())
        norms = {value.tensor for value in plan.values if value.action == "start"}
        assert norms
        assert all(torch.equal(now[name], before[name]) for name in before.keys() - norms)


@pytest.mark.parametrize("others", [[3], [0, 3]])
def test_merged_duplicates_keep_the_function(others: list[int]) -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    with torch.no_grad():
        for tensor in (model.conv1.weight, model.conv1.bias, model.bn1.weight, model.bn1.bias,
                       model.bn1.running_mean, model.bn1.running_var):  # fmt: skip
            for other in others:
                tensor[other] = tensor[1]
    before = nets.output(model)
    outcome = editor.apply(requests.MergeFilters("conv1", [1, *others]), probe)
    assert torch.allclose(nets.output(model), before, rtol=1e-12)
    assert model.conv1.out_channels == 6 - len(others)
    assert outcome.output_change is not None
    assert outcome.output_change < 1e-12


def test_merged_multiples_keep_the_function() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    with torch.no_grad():
        for tensor in (model.conv1.weight, model.conv1.bias, model.bn1.running_mean):
            tensor[3] = tensor[1]
        model.bn1.running_var[3] = model.bn1.running_var[1]
        for tensor in (model.bn1.weight, model.bn1.bias):
            tensor[3] = 0.3 * tensor[1]
    before = nets.output(model)
    editor.apply(requests.MergeFilters("conv1", [1, 3], [1.0, 0.3]), probe)
    assert torch.allclose(nets.output(model), before, rtol=1e-12)
    editor.apply(requests.Undo(), probe)
    assert torch.allclose(nets.output(model), before, rtol=1e-12)


@pytest.mark.parametrize("scales", [[1.0], [2.0, 1.0], [1.0, -1.0], [1.0, float("inf")]])
def test_scales_that_do_not_belong_to_the_filters_are_refused(scales: list[float]) -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    with pytest.raises(EditRefusedError, match="2 positive numbers"):
        editor.apply(requests.MergeFilters("conv1", [1, 3], scales), probe)


def test_merging_before_a_flatten() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    with torch.no_grad():
        model.conv2.weight[5] = model.conv2.weight[2]
        model.conv2.bias[5] = model.conv2.bias[2]
    before = nets.output(model)
    editor.apply(requests.MergeFilters("conv2", [5, 2]), probe)
    assert torch.allclose(nets.output(model), before, rtol=1e-12)
    assert editor.filter_ids("conv2") == [0, 1, 3, 4, 5, 6, 7]


def test_merging_different_filters_reports_the_output_change() -> None:
    _, editor, probe = nets.editor_of(nets.Plain)
    outcome = editor.apply(requests.MergeFilters("conv1", [1, 4]), probe)
    assert outcome.output_change is not None
    assert outcome.output_change > 1e-3


def test_a_filter_with_a_gain_of_zero_stayed_dead_when_it_was_reinitialized() -> None:
    model, editor, probe = nets.editor_of(nets.Plain)
    (optimizer,) = editor.optimizers
    nets.step(model, optimizer)
    with torch.no_grad():
        model.bn1.weight[2], model.bn1.bias[2] = 0.0, -1.0
    before, gains = nets.output(model), model.bn1.weight.detach().clone()
    editor.apply(requests.Reinitialize("conv1", [2]), probe)
    assert (model.bn1.weight[2], model.bn1.bias[2]) == (1, 0)
    assert (model.bn1.running_mean[2], model.bn1.running_var[2]) == (0, 1)
    assert optimizer.state[model.bn1.weight]["exp_avg"][2] == 0
    rest = [0, 1, 3, 4, 5]
    assert torch.equal(model.bn1.weight[rest], gains[rest])
    assert torch.equal(nets.output(model), before)
    editor.apply(requests.Undo(), probe)
    assert torch.equal(model.bn1.weight, gains)
