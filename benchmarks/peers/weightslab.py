"""WeightsLab, as its example of a model alone uses it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from torch.nn import functional as F

from benchmarks.peers.tool import Batch, Observed, Tool

__all__ = ["WeightsLab"]


class WeightsLab(Tool):
    """Its example of a model alone: an architecture operation, then a new optimizer.

    https://github.com/GrayboxTech/weightslab, examples/PyTorch/wl-standalone-model. Its checkpoints
    of whole experiments (`CheckpointManager`) are not measured here.
    """

    name = "WeightsLab"
    package = "weightslab"
    edits = ("remove", "add")
    undo_offered = "an older checkpoint"
    resume_offered = "offered, not measured"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Importing it downloads a coding agent, and it writes into the current directory.
        os.environ["WEIGHTSLAB_OPENCODE_AUTOINSTALL"] = "0"
        os.environ["WEIGHTSLAB_PROJECTION"] = "0"
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        os.environ["WEIGHTSLAB_ROOT_LOG_DIR"] = self.folder.name
        import weightslab
        from weightslab.backend import ledgers

        ledgers.clear_all()  # each network is an experiment of its own
        self.library = weightslab
        self.model = weightslab.watch_or_edit(
            self.network,
            flag="model",
            device="cpu",
            dummy_input=self.batches[0][0][:1],
            compute_dependencies=True,
            use_onnx=False,
            forced_model_wrapping=True,
        )
        self.wrapped = weightslab.watch_or_edit(self.optimizer, flag="optimizer")
        weightslab.start_training()

    def edit(self, edit: str, observed: Observed) -> list[float]:
        from weightslab.modules.neuron_ops import ArchitectureNeuronsOpType as Operation

        layer = self.network.get_submodule(self.subject.layer)
        remove = edit == "remove"
        with observed(), self.time_edit():
            self.model.apply_architecture_op(
                Operation.PRUNE if remove else Operation.ADD,
                layer.get_module_id(),
                set(self.subject.filters) if remove else {-1},
            )
            self.optimizer = self.make_optimizer(self.network.parameters())
            self.wrapped = self.library.watch_or_edit(self.optimizer, flag="optimizer")
        return []

    def train(self, batches: Sequence[Batch]) -> list[float]:
        losses = []
        for images, labels in batches:
            with self.library.guard_training_context:  # catches errors: the batch has no loss
                self.wrapped.zero_grad()
                loss = F.cross_entropy(self.model(images), labels)
                loss.backward()
                self.wrapped.step()
                losses.append(loss.item())
        return losses
