"""Counts the backward passes of this process, whoever runs them.

Autograd numbers its passes, and shows the number of a pass while that runs. An empty pass of our
own shows how many there have been before it. It reads and writes nothing of the training.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Variable

__all__ = ["ProcessBackwardPassCounter", "current_pass", "keeps_graph"]

current_pass = torch._C._current_graph_task_id  # of this thread; -1: none is running
# Whether another pass may follow through the graph of the present one (``retain_graph``).
keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph


class ProcessBackwardPassCounter:
    """Counts the backward passes of this process."""

    def __init__(self) -> None:
        self._leaf: Tensor | None = None
        self._gradient: Tensor | None = None
        self._number = -1

    def run_empty_pass(self) -> int:
        """Run an empty backward pass and return its number.

        It is one more than the number of the pass before it.
        """
        if self._leaf is None:
            self._make_leaf()
        engine, leaves = Variable._execution_engine, (self._leaf,)
        # What `torch.autograd.grad` calls, which checks its arguments for ten times as long.
        engine.run_backward(
            leaves, (self._gradient,), False, False, leaves, True, accumulate_grad=False
        )
        return self._number

    def _make_leaf(self) -> None:
        # No mode sees it: it is none of the training's.
        with torch._C.DisableTorchFunction(), torch.inference_mode(False):
            self._leaf = torch.zeros((), device="cpu", requires_grad=True)
            self._gradient = torch.zeros((), device="cpu")
            self._leaf.register_hook(self._note)

    def _note(self, gradient: Tensor) -> None:
        self._number = current_pass()
