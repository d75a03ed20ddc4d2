"""The verdicts on all layers, whose remedies are staged by one click."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.protocol.evidence import LayerEvidence, TwinEvidence
from revacnn_lightning.protocol.messages import GradientClipping
from revacnn_lightning.protocol.prices import FilterPrices
from revacnn_lightning.protocol.requests import (
    AddFilters,
    InspectEvidence,
    MergeFilters,
    Reinitialize,
    RemoveFilters,
    ScaleLearningRate,
    SetGradientClipping,
    Undo,
)
from tests.viewer.conftest import InProcessFollower
from tests.viewer.executors import ImmediateExecutor
from tests.viewer.tab.actions import deliver_replies, send_command
from viewer.components.staging_bar import StagingBar
from viewer.components.verdict_panel import EstablishedVerdictsPanel
from viewer.runs import evidence_requests
from viewer.runs.evidence_requests import VerdictEvidenceFetcher
from viewer.runs.shown_verdicts import ShownVerdicts
from viewer.tab.tab_state import TabState


def give(tab: TabState, monkeypatch: pytest.MonkeyPatch, verdicts: Sequence[Verdict]) -> list[dict]:
    return panel_of(tab, monkeypatch, verdicts)["rows"]


def panel_of(tab: TabState, monkeypatch: pytest.MonkeyPatch, verdicts: Sequence[Verdict]) -> dict:
    monkeypatch.setattr(
        tab.follower.verdicts, "verdicts_for_version", lambda version: list(verdicts)
    )
    return EstablishedVerdictsPanel(tab).content()


def click(tab: TabState, row: dict, index: int) -> None:
    remedy = row["remedies"][index]
    send_command(
        tab, "stage_remedy", layer=row["layer"], ids=remedy["ids"], option=remedy["option"],
        value=remedy["value"],
    )  # fmt: skip


def test_verdicts_that_are_unknown_or_ask_for_nothing_are_left_out(
    tab: TabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tab.structure.layers[1].name
    found = [
        Verdict("dormant", "", "5 more batches", 0.0, is_known=False),
        Verdict("untrained", name, "", 1.0),
        Verdict("dead", "of an older network", "", 1.0, (0,)),
        Verdict("dormant", name, "2 of 16 dormant", 0.7, (0, 3), remedy="reinitialize"),
    ]
    (row,) = give(tab, monkeypatch, found)
    assert (row["text"], row["layer"]) == (f"{name}: 2 dormant", 1)
    assert [one["label"] for one in row["remedies"]] == ["Reinitialize"]
    assert row["note"].startswith("2 of 16 dormant. Reinitialize")


@pytest.mark.parametrize(
    ("remedy", "kind"),
    [
        ("remove", "remove"),
        ("reinitialize", "reinitialize"),
        ("freeze", "freeze"),
        ("merge", "merge"),
    ],
)
def test_one_click_stages_the_remedy(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, remedy: str, kind: str
) -> None:
    layer = tab.structure.layers[0]
    verdict = Verdict("dead", layer.name, "silent", 0.9, (1, 2), remedy=remedy)
    (row,) = give(tab, monkeypatch, [verdict])
    click(tab, row, 0)
    (change,) = tab.staging.changes
    assert (change.kind, change.layer) == (kind, layer.name)
    ids = layer.filter_ids if kind == "freeze" else [layer.filter_ids[1], layer.filter_ids[2]]
    assert sorted(change.ids) == sorted(ids)


@pytest.mark.parametrize("kind", ["dead", "provably_dead"])
def test_dead_filters_could_only_be_removed_not_restarted(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    layer = tab.structure.layers[0]
    verdict = Verdict(kind, layer.name, "silent", 0.9, (1, 2), remedy="remove",
                      alternatives=("reinitialize",))  # fmt: skip
    (row,) = give(tab, monkeypatch, [verdict])
    assert [one["label"] for one in row["remedies"]] == ["Remove", "Reinitialize"]
    click(tab, row, 1)
    (change,) = tab.staging.changes
    assert change.to_edit(tab.structure) == Reinitialize(layer.name, [1, 2])


def test_the_busiest_filter_of_a_clustered_layer_could_not_be_split(
    tab: TabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = tab.structure.layers[0]
    verdict = Verdict("degenerate", layer.name, "clusters", 0.5, (1, 2), remedy="reinitialize",
                      alternatives=("split",), busiest=(3,))  # fmt: skip
    (row,) = give(tab, monkeypatch, [verdict])
    click(tab, row, 1)
    (change,) = tab.staging.changes
    assert change.to_edit(tab.structure) == AddFilters(layer.name, 1, split_from=3)


def test_an_exploding_gradient_offered_nothing_to_click(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, follower: InProcessFollower
) -> None:
    name = tab.structure.layers[0].name
    verdict = Verdict("exploding", name, "1e5", 0.7, remedy="lower_rate", alternatives=("undo",))
    (row,) = give(tab, monkeypatch, [verdict])
    assert [one["label"] for one in row["remedies"]] == ["Lower the rate"]  # no edit to undo
    assert "clip" in row["note"]
    follower.request(RemoveFilters(name, [0]), "", 0)
    deliver_replies(tab, follower)
    (row,) = give(tab, monkeypatch, [verdict])
    assert [one["label"] for one in row["remedies"]] == ["Lower the rate", "Undo the last edit"]
    sent = len(follower.requests)
    click(tab, row, 1)
    assert isinstance(follower.requests[sent].body, Undo)
    assert tab.staging.changes == []


EXPLODING = Verdict(
    "exploding", "conv1", "1e5 times that of conv5", 0.7, remedy="lower_rate",
    alternatives=("clip_gradient", "undo"), clip_norm=0.37, clip_note="it was at least 0.37",
)  # fmt: skip


def give_exploding(tab: TabState, monkeypatch: pytest.MonkeyPatch) -> dict:
    (row,) = give(tab, monkeypatch, [EXPLODING])
    return row


def remedy_of(row: dict, label: str) -> dict | None:
    return next((one for one in row["remedies"] if one["label"] == label), None)


def test_the_gradient_could_only_be_clipped_in_another_run(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, follower: InProcessFollower
) -> None:
    row = give_exploding(tab, monkeypatch)
    labels = [one["label"] for one in row["remedies"]]
    assert labels == ["Lower the rate", "Clip the gradient"]
    note = row["remedies"][1]["note"]
    assert "a larger norm down to 0.37: it was at least 0.37" in note
    assert "nothing happens before Apply" in note
    click(tab, row, 1)
    (change,) = tab.staging.changes
    assert change.to_request(tab.structure) == SetGradientClipping(0.37)
    assert f"{change.verb} {change.title(tab.structure)}" == "Clip the gradient at norm 0.37"
    click(tab, row, 1)  # it is discarded
    assert tab.staging.changes == []


def test_a_staged_clipping_is_planned_changed_and_applied(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, follower: InProcessFollower
) -> None:
    click(tab, give_exploding(tab, monkeypatch), 1)
    deliver_replies(tab, follower)
    (shown,) = StagingBar(tab).content()["rows"]
    assert (shown["plan"], shown["clipping"]) == ("planned", {"value": 0.37, "algorithm": "norm"})
    send_command(tab, "stage_clipping", value=0.5, option="value")
    send_command(tab, "stage_clipping", value=float("inf"), option="value")  # has no effect
    send_command(tab, "stage_clipping", value=1.0, option="max")
    deliver_replies(tab, follower)
    (shown,) = StagingBar(tab).content()["rows"]
    assert (shown["plan"], shown["clipping"]) == ("planned", {"value": 0.5, "algorithm": "value"})
    assert (shown["verb"], shown["title"]) == ("Clip", "the gradient at value 0.5")
    content = StagingBar(tab).content()
    assert (content["can_apply"], content["can_try"]) == (True, False)
    assert "cannot be tried" in content["try_hint"]
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    sent = [one.body for one in follower.requests if not one.dry_run]
    assert sent[-1] == SetGradientClipping(0.5, "value")
    assert tab.staging.changes == []
    assert follower.training.clipping == GradientClipping(0.5, "value")


def test_clipping_is_applied_together_with_edits(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, follower: InProcessFollower
) -> None:
    send_command(tab, "stage_add", layer=1)
    row = give_exploding(tab, monkeypatch)
    click(tab, row, 0)
    click(tab, row, 1)
    deliver_replies(tab, follower)
    content = StagingBar(tab).content()
    assert len(content["rows"]) == 3
    assert "about" in content["total"]  # of the edits
    before = len(follower.requests)
    send_command(tab, "apply_staged")
    deliver_replies(tab, follower)
    sent = [one.body for one in follower.requests[before:] if not one.dry_run]
    assert [type(body) for body in sent] == [SetGradientClipping, ScaleLearningRate, AddFilters]
    send_command(tab, "undo")  # both edits of this Apply
    deliver_replies(tab, follower)
    assert [one.body for one in follower.requests if isinstance(one.body, Undo)] == [Undo(2)]


def test_clipping_says_why_it_is_not_possible(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, follower: InProcessFollower
) -> None:
    def remedy(clipping: GradientClipping | None) -> dict | None:
        follower.training.clipping = clipping
        tab.state.receive(follower.training.status())
        return remedy_of(give_exploding(tab, monkeypatch), "Clip the gradient")

    assert remedy(None) is None  # an older training
    assert "a loop" in remedy(GradientClipping(None, refusal="a loop"))["refusal"]
    assert "already (norm 0.3)" in remedy(GradientClipping(0.3))["refusal"]
    assert remedy(GradientClipping(0.5))["refusal"] == ""
    assert remedy(GradientClipping(0.3, "value"))["refusal"] == ""


@pytest.mark.parametrize("kind", ["restless", "exploding", "degenerate"])
def test_the_rate_of_a_layer_could_only_be_lowered_by_words(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, follower: InProcessFollower, kind: str
) -> None:
    name = tab.structure.layers[1].name
    verdict = Verdict(kind, name, "3 % in each step", 0.6, remedy="lower_rate")
    (row,) = give(tab, monkeypatch, [verdict])
    click(tab, row, 0)
    (change,) = tab.staging.changes
    assert change.to_edit(tab.structure) == ScaleLearningRate(name, 0.1)
    assert change.title(tab.structure) == f"{name} at 0.1 × the learning rate"
    click(tab, row, 0)  # it is discarded
    assert tab.staging.changes == []
    follower.request(ScaleLearningRate(name, 0.1), "", 0)
    deliver_replies(tab, follower)
    click(tab, row, 0)  # a tenth of the present rate
    (change,) = tab.staging.changes
    assert change.to_edit(tab.structure) == ScaleLearningRate(name, 0.01)


def test_a_click_selects_the_filters(tab: TabState) -> None:
    layer = tab.structure.layers[2]
    send_command(tab, "select_verdict_filters", layer=2, ids=layer.filter_ids[3:5])
    assert tab.selected_ids() == layer.filter_ids[3:5]
    send_command(tab, "select_verdict_filters", layer=1, ids=[])
    assert tab.selected_ids() == tab.structure.layers[1].filter_ids


def test_what_a_run_finds_on_examining_a_layer_is_listed_and_marked(tab: TabState) -> None:
    structure = tab.structure
    name, width = structure.layers[1].name, len(structure.layers[1].filter_ids)
    found = LayerEvidence(
        structure.run, structure.version, 9, name, width, provably_dead=[1],
        twins=[TwinEvidence([2, 3], 0.99, [1.0, 0.5])], samples=300,
    )  # fmt: skip
    tab.state.receive(found)
    tab.follower.verdicts = ShownVerdicts(ImmediateExecutor())
    panel = EstablishedVerdictsPanel(tab)
    assert panel.content()["rows"] == []
    for _ in range(2):  # the first one starts the computation
        tab.follower.verdicts.tick(tab.state, lambda request: "")
    content = panel.content()
    own = {row["kind"]: row for row in content["rows"] if row["layer"] == 1}
    labels = {kind: [one["label"] for one in row["remedies"]] for kind, row in own.items()}
    assert labels == {"provably_dead": ["Remove", "Reinitialize"], "twins": ["Merge"]}
    assert "computes the same without them" in own["provably_dead"]["note"]
    (badge,) = [one for one in content["badges"] if one["layer"] == 1]
    assert "1 dead for good" in badge["text"]
    assert "2 twins" in badge["text"]
    send_command(tab, "stage_remedy", layer=1, ids=own["twins"]["ids"], option="merge")
    (change,) = tab.staging.changes
    assert change.to_edit(structure) == MergeFilters(name, [2, 3], [1.0, 0.5])


def test_evidence_is_requested_only_while_the_verdicts_are_shown(
    tab: TabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, sent = [100.0], []
    monkeypatch.setattr(evidence_requests.time, "monotonic", lambda: clock[0])
    requests = VerdictEvidenceFetcher()
    requests.tick(tab.state, sent.append)
    assert sent == []
    requests.keep_requesting(tab.structure.layers[0].name)
    requests.tick(tab.state, sent.append)
    requests.tick(tab.state, sent.append)
    assert sent == [InspectEvidence(tab.structure.layers[0].name)]
    clock[0] += evidence_requests.REQUEST_SECONDS + 0.1
    requests.tick(tab.state, sent.append)
    assert len(sent) == 1
    requests.keep_requesting()
    requests.tick(tab.state, sent.append)
    assert sent[1] == InspectEvidence()


def test_layers_of_cheap_filters_are_too_wide_while_prices_are_shown(tab: TabState) -> None:
    structure = tab.structure
    changes = np.ones(tab.state.n_filters, np.float32)
    changes[: len(structure.layers[0].filter_ids)] = 0
    prices = FilterPrices(
        structure.run, structure.version, 1, changes, changes, changes, loss=2.0, images=16
    )
    tab.follower.filter_prices.receive(prices, tab.state)
    assert "too_wide" not in {
        row["kind"] for row in EstablishedVerdictsPanel(tab).content()["rows"]
    }
    tab.shows_prices = True
    rows = EstablishedVerdictsPanel(tab).content()["rows"]
    assert [row["layer"] for row in rows if row["kind"] == "too_wide"] == [0]


def test_six_verdicts_of_other_layers_hid_those_of_the_opened_one(
    tab: TabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (layer.name for layer in tab.structure.layers[:2])
    found = [
        Verdict("twins", first, "twins", 0.9, (i, i + 1), remedy="merge", worth=1 - i / 100)
        for i in range(7)
    ]
    found += [Verdict("dormant", second, "", 0.7, (i,), worth=(1 + i) / 1e3) for i in range(2)]
    send_command(tab, "select_largest_gradient_filter", layer=1, first=0, last=0)
    content = panel_of(tab, monkeypatch, found)
    assert [row["layer"] for row in content["rows"]] == [1] * 2 + [0] * 7
    assert [row["ids"] for row in content["rows"][:2]] == [
        [tab.structure.layers[1].filter_ids[i]] for i in (1, 0)
    ]  # what is worth most first
    assert content["total"] == 9
    panel = EstablishedVerdictsPanel(tab)
    panel.update()
    send_command(tab, "select_largest_gradient_filter", layer=0, first=0, last=0)
    panel.update()  # not only when the next verdicts come
    assert panel.source.data["rows"][0]["layer"] == 0
