"""A run steers itself in a real training, and goes on when the client has left."""

from __future__ import annotations

from pathlib import Path

import torch

from revacnn_lightning import AddFilters, EditRefusedError, ReVACNN, Run, SetPolicy
from revacnn_lightning.protocol.requests import PruneTo
from tests.runtime.live_run import train_with
from tests.small import At, TwoConvs, fit


def test_a_client_prunes_and_undoes_and_the_changes_are_journaled(tmp_path: Path) -> None:
    def client(run: Run) -> dict:
        run.wait_for(lambda run: run.structure)
        before = run.structure.parameter_count
        run.prune_to(parameters=0.6, filters=1, every=2)
        ended = run.wait_for(lambda r: r.pruning and r.pruning.state == "ended" and r.pruning)
        titles = [edit.title for edit in run.history().edits]
        who = [(one.title, one.key) for one in run.history().requests]
        run.undo_pruning()
        run.wait_for(lambda run: run.structure.parameter_count == before)
        try:
            run.resume_pruning()
        except EditRefusedError as error:
            return {"ended": ended, "titles": titles, "who": who, "refusal": str(error)}
        raise AssertionError

    result, _ = train_with(client, tmp_path)
    ended = result["ended"]
    assert ended.now <= ended.target
    assert len(result["titles"]) == ended.edits >= 1
    assert all(title.startswith("Remove") for title in result["titles"])
    assert result["who"][0][0] == "Start pruning to 60% of the parameters"
    assert result["who"][1][1] == "automatic steering"
    assert "ended already" in result["refusal"]


def test_pruning_needs_no_viewer() -> None:
    callback, model = ReVACNN(), TwoConvs()
    start = At(2, lambda *_: callback.steer(PruneTo(macs=0.5, filters=1, every=2)))
    fit(model, [callback, start], count=40, record_all=False)
    assert model.conv1.out_channels + model.conv2.out_channels < 7


def test_the_policy_removes_only_what_is_certified() -> None:
    model = TwoConvs("sgd-momentum")
    with torch.no_grad():
        model.conv1.weight[2] = 0
        model.conv1.bias[2] = -1
    callback = ReVACNN()
    start = At(0, lambda *_: callback.steer(SetPolicy("apply_free")))
    fit(model, [callback, start], count=120, record_all=False)
    assert (model.conv1.out_channels, model.conv2.out_channels) == (3, 3)


def test_a_policy_that_proposes_changes_nothing(tmp_path: Path) -> None:
    model = TwoConvs("sgd-momentum")
    with torch.no_grad():
        model.conv1.weight[2] = 0
        model.conv1.bias[2] = -1

    def client(run: Run) -> dict:
        run.set_policy("propose")
        found = run.wait_for(
            lambda run: [one for one in run.proposals if one.kind == "provably_dead"]
        )
        return {"found": found, "edits": run.history().edits, "width": run.structure.layers[0]}

    result, _ = train_with(client, tmp_path, model)
    (proposal,) = result["found"]
    assert (proposal.layer, proposal.filters, proposal.remedy) == ("conv1", [2], "remove")
    assert proposal.alternatives == ["reinitialize"]
    assert proposal.is_free
    assert result["edits"] == []


def test_a_client_gets_the_growth_gains_and_adds_a_filter_where_it_helps(tmp_path: Path) -> None:
    def client(run: Run) -> dict:
        run.wait_for(lambda run: run.structure)
        gains = run.growth_gains()
        run.pause()  # so that no batch makes the directions old
        layer = max(gains, key=gains.__getitem__)
        reply = run.apply(AddFilters(layer, directed=True))
        return {"gains": gains, "title": reply.plan.title, "change": reply.output_change}

    result, _ = train_with(client, tmp_path)
    assert set(result["gains"]) == {"conv1", "conv2"}
    assert result["title"].endswith("in the direction of its growth gain")
    assert result["change"] < 1e-12
