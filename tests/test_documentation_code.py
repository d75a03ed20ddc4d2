"""The Python code in the documentation runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import revacnn_lightning
from revacnn_lightning import AddFilters, ReVACNN
from revacnn_lightning.client import embedded_viewer
from revacnn_lightning.steering.tracing.rules.table import RULES
from tests.documentation import (
    DOCUMENTS,
    ROOT,
    compile_block,
    python_blocks,
    run_addition,
    undefined_names,
)
from tests.small import At
from tests.test_documentation import name

WITH_CODE = [
    document
    for document in DOCUMENTS
    if any(not block.excerpt for block in python_blocks(document))
]
DEMO = [
    sys.executable,
    str(ROOT / "examples" / "01_digits.py"),
    "--pace",
    "200",
    "--epochs",
    "9999",
]


class MyModel(pl.LightningModule):
    """A network whose layers have the names that the documentation uses."""

    def __init__(self) -> None:
        super().__init__()
        layers = OrderedDict(
            conv1=nn.Conv2d(1, 4, 3), relu1=nn.ReLU(), conv2=nn.Conv2d(4, 8, 3), relu2=nn.ReLU()
        )
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(8 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


class ShortTrainer(pl.Trainer):
    """A Trainer of 20 batches that writes nothing."""

    def __init__(self, **options: Any) -> None:
        quiet = {
            "max_steps": 20, "accelerator": "cpu", "devices": 1, "logger": False,
            "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False,
        }  # fmt: skip
        super().__init__(**{**quiet, **options})


def make_data() -> DataLoader:
    images, labels = torch.randn(80, 1, 8, 8), torch.randint(10, (80,))
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def save_edited(folder: Path) -> None:
    """Write checkpoints of an edited network: ``run.ckpt``, and ``weights.ckpt`` without edits."""
    callback, model = ReVACNN(), MyModel()
    edit = At(3, lambda *_: callback.steer(AddFilters("features.conv2", 2)))
    save = At(6, lambda trainer, _: trainer.save_checkpoint(folder / "run.ckpt"))
    trainer = ShortTrainer(callbacks=[callback, edit, save])
    trainer.fit(model, make_data())
    trainer.save_checkpoint(folder / "weights.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the demo in a process of its own. Return the directory of its connection file."""
    folder, runs = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("runs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REVACNN_RUNTIME_DIR": str(runs)}
    with subprocess.Popen(DEMO, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            yield runs
        finally:
            process.kill()


@pytest.fixture
def rules_of_examples() -> Iterator[None]:
    """Remove the rules that examples add to the tracer."""
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@contextmanager
def cleaned(namespace: dict[str, Any]) -> Iterator[None]:
    """End what the code of a document has started."""
    try:
        yield
    finally:
        for value in namespace.values():
            if isinstance(value, subprocess.Popen):
                value.kill()
                value.wait()
            elif isinstance(value, revacnn_lightning.Run):
                value.close()
        if embedded_viewer._shown is not None:
            embedded_viewer._shown.close()


@pytest.mark.parametrize("document", WITH_CODE, ids=name)
def test_the_code_runs(
    document: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    rules_of_examples: None,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes that the code starts
    monkeypatch.setattr(pl, "Trainer", ShortTrainer)
    [script] = python_blocks(ROOT / "docs" / "quickstart.md")[:1]
    (tmp_path / "train.py").write_text(script.code, encoding="utf-8")
    blocks = [block for block in python_blocks(document) if not block.excerpt]
    code = "".join(block.code for block in blocks)
    if "load_edited" in code:
        save_edited(tmp_path)
    namespace: dict[str, Any] = {
        "__name__": "__main__", "ReVACNN": ReVACNN, "Trainer": ShortTrainer,
        "MyModel": MyModel, "model": MyModel(), "data": make_data(),
    }  # fmt: skip
    if "attach(" in code:  # all such documents edit one training
        runs = request.getfixturevalue("training")
        monkeypatch.setenv("REVACNN_RUNTIME_DIR", str(runs))
        revacnn_lightning.attach(wait=120).close()
    with cleaned(namespace):
        for block in blocks:
            if block.module:
                run_addition(block, document)
            else:
                exec(compile_block(block, document), namespace)
        for block in blocks:
            undefined = undefined_names(compile_block(block, document), namespace)
            assert block.module or not undefined, f"{document.name}:{block.line}"
