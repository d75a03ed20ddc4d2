"""ReVACNN, as the callback uses it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

import revacnn_lightning
from benchmarks.peers.tool import Observed, Tool
from revacnn_lightning import AddFilters, RemoveFilters, Undo
from revacnn_lightning.protocol.requests import Edit
from revacnn_lightning.steering import Editor, ForwardProbe, checkpoint, edited_models

__all__ = ["ReVACNN"]


class ReVACNN(Tool):
    """The editor that the callback uses."""

    name = "ReVACNN"
    package = "revacnn-lightning"
    edits = ("remove", "add")
    measures_undo = True
    resumes = "new model"

    @classmethod
    def version(cls) -> str | None:
        return revacnn_lightning.__version__

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.editor = Editor(
            self.network, [self.optimizer], journal=edited_models.find_journal(self.network)
        )
        self.probe = ForwardProbe([partial(self.network, self.batches[0][0][:4])])

    def edit(self, edit: str, observed: Observed) -> list[float]:
        layer = self.subject.layer
        request: Edit = AddFilters(layer)
        if edit == "remove":
            request = RemoveFilters(layer, self.subject.filters)
        with observed(), self.time_edit():
            self.editor.apply(request, self.probe)
        return []

    def undo(self) -> None:
        self.editor.apply(Undo(), self.probe)

    def resume(self, folder: Path) -> Tool:
        """As the callback does in a Trainer: the file loads with ``weights_only=True``."""
        saved = {
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        checkpoint.add_edits(saved, self.network, [self.optimizer])
        torch.save(saved, folder / "run.ckpt")

        loaded = torch.load(folder / "run.ckpt", weights_only=True)
        network = self.subject.make().double()
        checkpoint.adopt_structure(network, loaded)
        network.load_state_dict(loaded["state_dict"])
        optimizer = self.make_optimizer(network.parameters())
        state = checkpoint.find_edit_state(loaded)
        assert state is not None
        checkpoint.restore_entry_ages(network, [optimizer], state)
        resumed = self.with_resumed_network(network, optimizer)
        optimizer.load_state_dict(loaded["optimizer"])
        return resumed
