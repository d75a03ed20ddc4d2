"""The callback works with `pytorch_lightning` and `lightning.pytorch`, in any order of imports."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.import_graph import ROOT

NAMES = ("pytorch_lightning", "lightning.pytorch")
# What is imported, in this order, and which of the two is not installed.
ORDERS = {
    "pytorch_lightning alone": (["pytorch_lightning"], "lightning"),
    "lightning alone": (["lightning.pytorch"], "pytorch_lightning"),
    "pytorch_lightning first": (["pytorch_lightning", "lightning.pytorch"], ""),
    "lightning first": (["lightning.pytorch", "pytorch_lightning"], ""),
    "the callback first": (["revacnn_lightning.callback", *NAMES], ""),
}
SCRIPT = """
import importlib, sys, warnings
warnings.simplefilter("ignore")
*names, missing = sys.argv[1:]


class Without:  # it finds what is installed, except for one package
    finders = sys.meta_path[:]

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == missing:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)


sys.meta_path[:] = [Without()]
imported = [importlib.import_module(name) for name in names]
packages = [package for package in imported if hasattr(package, "Trainer")]
assert all(name.split(".")[0] != missing for name in sys.modules)
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from revacnn_lightning import AddFilters, ReVACNN

data = DataLoader(TensorDataset(torch.randn(16, 1, 6, 6), torch.arange(16) % 2), 4)
for package in packages:
    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 4, 3), nn.Linear(4 * 16, 2)
        def forward(self, x):
            return self.linear(self.conv(x).relu().flatten(1))
        def training_step(self, batch, batch_idx):
            if batch_idx == 1:
                reply.append(revacnn.steer(AddFilters("conv")))
            return nn.functional.cross_entropy(self(batch[0]), batch[1])
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)
    reply, revacnn, model = [], ReVACNN(), Net()
    trainer = package.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[revacnn],
    )
    trainer.fit(model, data)
    print(package.__name__, reply[0].result().step, model.conv.out_channels)
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", list(ORDERS))
def test_a_trainer_of_either_name_is_monitored_and_edited(order: str):
    names, missing = ORDERS[order]
    absent = [name for name in names if find_spec(name.split(".")[0]) is None]
    if absent:
        pytest.skip(f"{' and '.join(absent)} not installed")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names, missing],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{name} 3 5" for name in names if name in NAMES]
