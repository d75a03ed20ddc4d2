"""The verdicts on all layers, whose remedies are staged by one click."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from revacnn_lightning.diagnostics.verdicts import Verdict
from tests.viewer.tab.actions import send_command
from viewer.components.verdict_panel import VerdictPanel
from viewer.tab.tab_state import TabState


def give(tab: TabState, monkeypatch: pytest.MonkeyPatch, verdicts: Sequence[Verdict]) -> list[dict]:
    monkeypatch.setattr(type(tab.state), "verdicts", lambda state: list(verdicts))
    return VerdictPanel(tab).content()["rows"]


def test_verdicts_that_are_unknown_or_ask_for_nothing_are_left_out(
    tab: TabState, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tab.structure.layers[1].name
    found = [
        Verdict("dormant", "", "5 more batches", 0.0, is_known=False),
        Verdict("untrained", name, "", 1.0),
        Verdict("dead", "of an older network", "", 1.0, (0,)),
        Verdict("dormant", name, "2 of 16 dormant", 0.7, (0, 3), remedy="restart"),
    ]
    (row,) = give(tab, monkeypatch, found)
    assert (row["text"], row["layer"], row["label"]) == (f"{name}: 2 dormant", 1, "Restart")
    assert row["note"].startswith("2 of 16 dormant. Reinitialize")


@pytest.mark.parametrize(
    ("remedy", "kind"), [("remove", "remove"), ("restart", "reinitialize"), ("freeze", "freeze")]
)
def test_one_click_stages_the_remedy(
    tab: TabState, monkeypatch: pytest.MonkeyPatch, remedy: str, kind: str
) -> None:
    layer = tab.structure.layers[0]
    verdict = Verdict("dead", layer.name, "silent", 0.9, (1, 2), remedy=remedy)
    (row,) = give(tab, monkeypatch, [verdict])
    send_command(tab, "stage_remedy", layer=row["layer"], ids=row["ids"], option=row["remedy"])
    (change,) = tab.staging.changes
    assert (change.kind, change.layer) == (kind, layer.name)
    ids = layer.filter_ids if kind == "freeze" else [layer.filter_ids[1], layer.filter_ids[2]]
    assert sorted(change.ids) == sorted(ids)


def test_a_click_selects_the_filters(tab: TabState) -> None:
    layer = tab.structure.layers[2]
    send_command(tab, "show_verdict", layer=2, ids=layer.filter_ids[3:5])
    assert tab.selected_ids() == layer.filter_ids[3:5]
    send_command(tab, "show_verdict", layer=1, ids=[])
    assert tab.selected_ids() == tab.structure.layers[1].filter_ids
