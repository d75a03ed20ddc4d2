"""The examples in the docstrings of public names run, on a real training."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest
from torch import nn

import revacnn_lightning
from revacnn_lightning import AddFilters, ReVACNN, Run
from tests.runtime.live_run import train_with
from tests.small import TwoConvs, batches, fit


def examples() -> dict[str, doctest.DocTest]:
    """Return the examples of public names and of their methods, also inherited ones."""
    finder = doctest.DocTestFinder(exclude_empty=True, recurse=False)
    objects = {name: getattr(revacnn_lightning, name) for name in revacnn_lightning.__all__}
    for name, value in list(objects.items()):
        if inspect.isclass(value):
            methods = inspect.getmembers(value, inspect.isfunction)
            objects |= {f"{name}.{method}": one for method, one in methods if method[0] != "_"}
    found = [test for name, value in objects.items() for test in finder.find(value, name)]
    return {test.name: test for test in found if test.examples}


EXAMPLES = examples()


def check(test: doctest.DocTest, **names: object) -> dict[str, int]:
    """Run an example; return how many of its lines failed and ran."""
    test.globs = names
    failed, attempted = doctest.DocTestRunner().run(test)
    return {"failed": failed, "attempted": attempted}


def test_there_are_examples():
    assert {"ReVACNN", "attach", "monitor", "Batch", "Run.apply", "Run.plan", "Run.batches"} <= set(
        EXAMPLES
    )


def test_the_examples_of_a_run_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    def client(run: Run) -> dict[str, dict[str, int]]:
        names = {"run": run, "batch": next(iter(run.batches())), "AddFilters": AddFilters}
        names["attach"] = revacnn_lightning.attach
        counts = {}
        for name in set(EXAMPLES) - {"ReVACNN", "monitor"}:
            counts[name] = check(EXAMPLES[name], **names)
            run.wait_for(lambda run: run.batch.version == run.structure.version)  # after an undo
        return counts

    counts, _ = train_with(client, tmp_path)
    for name, count in counts.items():
        assert count["attempted"] > 0, name
        assert count["failed"] == 0, capfd.readouterr().out


def test_the_example_of_the_callback_runs(capfd: pytest.CaptureFixture[str]):
    trained: list[object] = []

    class Trainer:
        def __init__(self, max_epochs: int, callbacks: list[ReVACNN]) -> None:
            self.callbacks = callbacks

        def fit(self, model: TwoConvs, data: object) -> None:
            fit(model, self.callbacks)
            trained.append(model)

    counts = check(
        EXAMPLES["ReVACNN"], Trainer=Trainer, ReVACNN=ReVACNN, model=TwoConvs(), data=batches()
    )
    assert counts["failed"] == 0, capfd.readouterr().out
    assert len(trained) == 1


def test_the_example_of_a_loop_runs(capfd: pytest.CaptureFixture[str]):
    model = TwoConvs()
    names = {
        "monitor": revacnn_lightning.monitor,
        "model": model,
        "optimizer": model.configure_optimizers(),
        "data": batches(2),
        "nn": nn,
    }
    assert check(EXAMPLES["monitor"], **names)["failed"] == 0, capfd.readouterr().out
