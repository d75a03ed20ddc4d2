"""The comparison of tools finds what an edit changes, and names what a tool lacks."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from torch import nn

from benchmarks.peers import ReVACNN, Tool, TorchPruning
from benchmarks.peers.networks import NETWORKS
from benchmarks.peers.tool import Observed
from benchmarks.peers_edits import EXACT, OPTIMIZERS, add_checks, measure_edit, result_rows
from benchmarks.report import Report


@pytest.mark.parametrize("edit", ["remove", "add"])
@pytest.mark.parametrize("name", ["plain + linear", "grouped"])
def test_an_edit_of_revacnn_keeps_all_that_survives(name: str, edit: str) -> None:
    result = measure_edit(ReVACNN, NETWORKS[name], OPTIMIZERS["Adam"], edit)
    report = Report("", [])
    add_checks(report, result | {"network": name, "edit": edit})
    assert report.checks
    assert [one for one in report.checks if not one["ok"]] == []


def test_a_new_optimizer_keeps_no_state() -> None:
    pytest.importorskip("torch_pruning")
    result = measure_edit(TorchPruning, NETWORKS["residual"], OPTIMIZERS["momentum"], "remove")
    assert result["output"] <= EXACT
    assert result["state"] == 0.0
    assert result["loss"] > EXACT
    assert (result["undo"], result["resume"]) == ("not offered", "exact, pickled model")


class Damaging(ReVACNN):
    """Edits as ReVACNN does, and then changes a surviving weight and loses its state."""

    name = "Damaging"

    def edit(self, edit: str, observed: Observed) -> list[float]:
        with observed():
            super().edit(edit, nullcontext)
            head = self.network.get_parameter("head.weight")
            nn.init.zeros_(head)
            self.optimizer.state.pop(head)
        return []


def test_a_wrong_edit_is_found() -> None:
    result = measure_edit(Damaging, NETWORKS["plain + linear"], OPTIMIZERS["momentum"], "remove")
    assert result["output"] > EXACT
    assert 0.0 < result["state"] < 1.0
    assert result["loss"] > EXACT


class Absent(Tool):
    name = "Absent"
    package = "revacnn-no-such-package"


class Failing(ReVACNN):
    name = "Failing"
    edits = ("remove",)

    def edit(self, edit: str, observed: Observed) -> list[float]:
        raise ValueError("no group")


def test_what_a_tool_lacks_is_named() -> None:
    absent, *failing, growth = result_rows([Absent, Failing], quick=True)
    assert absent == {"tool": "Absent", "outcome": "not installed"}
    assert {row["outcome"] for row in failing} == {"failed: ValueError: no group"}
    assert (growth["edit"], growth["outcome"]) == ("add", "not offered")
