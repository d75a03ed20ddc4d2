"""Torch-Pruning, and FasterAI, which builds on it. Each is used as its documentation says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.tool import Batch, Observed, Tool

__all__ = ["FasterAI", "TorchPruning"]


class TorchPruning(Tool):
    """Its README: prune a group of the dependency graph, and save the model as a whole.

    It replaces parameters and has no function for optimizers. Its author says that a new optimizer
    is needed: https://github.com/VainF/Torch-Pruning/issues/140.
    """

    name = "Torch-Pruning"
    package = "torch-pruning"
    edits = ("remove",)
    resumes = "pickled model"

    def edit(self, edit: str, observed: Observed) -> list[float]:
        import torch_pruning

        layer = self.network.get_submodule(self.subject.layer)
        with observed(), self.time_edit():
            graph = torch_pruning.DependencyGraph().build_dependency(
                self.network, example_inputs=self.batches[0][0][:1]
            )
            group = graph.get_pruning_group(
                layer, torch_pruning.prune_conv_out_channels, idxs=list(self.subject.filters)
            )
            if not graph.check_pruning_group(group):
                raise ValueError("check_pruning_group returned False")
            group.prune()
            self.optimizer = self.make_optimizer(self.network.parameters())
        return []

    def resume(self, folder: Path) -> Tool:
        return resumed_from_pickle(self, folder)


def resumed_from_pickle(tool: Tool, folder: Path) -> Tool:
    """Save the whole model, as the README of Torch-Pruning says, and the optimizer's state."""
    tool.network.zero_grad()
    torch.save(tool.network, folder / "model.pth")
    torch.save(tool.optimizer.state_dict(), folder / "optimizer.pth")
    network = torch.load(folder / "model.pth", weights_only=False)
    optimizer = tool.make_optimizer(network.parameters())
    optimizer.load_state_dict(torch.load(folder / "optimizer.pth", weights_only=True))
    return tool.with_resumed_network(network, optimizer)


class FasterAI(Tool):
    """Its `PruneCallback` in a fastai Learner, with a ratio for one layer.

    It prunes the filters with the smallest weights, before the optimizer steps, and carries the
    optimizer's state over: https://github.com/FasterAI-Labs/fasterai/pull/93.
    """

    name = "FasterAI"
    package = "fasterai"
    edits = ("remove",)
    resumes = "pickled model"

    def edit(self, edit: str, observed: Observed) -> list[float]:
        from fasterai.core.criteria import large_final
        from fasterai.core.schedule import one_shot
        from fasterai.prune.prune_callback import PruneCallback

        tool = self

        class Measured(PruneCallback):  # type: ignore[misc]
            def before_fit(self) -> None:
                with tool.time_edit():
                    super().before_fit()

            def before_step(self) -> None:
                preparation = tool.seconds
                with observed(), tool.time_edit():
                    super().before_step()
                tool.seconds += preparation

        layer = self.subject.layer
        width = self.network.get_submodule(layer).out_channels
        # Half a filter less than intended: the remaining width is rounded down.
        ratio = (len(self.subject.filters) - 0.5) / width
        options = {
            "example_inputs": self.batches[0][0][:1],
            "ignored_layers": self._uncoupled_layers(),
        }
        with redirect_stdout(io.StringIO()):
            callback = Measured({layer: ratio}, one_shot, "local", large_final, **options)
        return self.train(self.batches[:1], [callback])

    def _uncoupled_layers(self) -> list[nn.Module]:
        """Return all layers that have other filters than the edited one."""
        coupled = {h.parameter.rpartition(".")[0] for h in self.subject.holders if h.dim == 0}
        kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        named = self.network.named_modules()
        return [m for name, m in named if isinstance(m, kinds) and name not in coupled]

    def train(self, batches: Sequence[Batch], callbacks: Sequence[Any] = ()) -> list[float]:
        """Train with a Learner, which keeps the torch optimizer."""
        from fastai.data.core import DataLoaders
        from fastai.data.load import DataLoader
        from fastai.learner import Learner
        from fastai.optimizer import OptimWrapper

        losses = []

        def loss_function(output: Tensor, labels: Tensor) -> Tensor:
            loss = F.cross_entropy(output, labels)
            if self.network.training:  # not in the Learner's validation
                losses.append(loss.item())
            return loss.float()  # what the Learner records; the gradients stay the same

        samples = [sample for batch in batches for sample in zip(*batch, strict=True)]
        loader = DataLoader(samples, bs=len(batches[0][0]), num_workers=0)
        learner = Learner(DataLoaders(loader, loader), self.network, loss_function)
        learner.opt = OptimWrapper(opt=self.optimizer)
        self.optimizer.zero_grad()  # a Learner does so after each step, not before it
        with redirect_stdout(io.StringIO()), learner.no_bar(), learner.no_logging():
            learner.fit(1, self.optimizer.param_groups[0]["lr"], cbs=list(callbacks))
        return losses

    def resume(self, folder: Path) -> Tool:
        return resumed_from_pickle(self, folder)
