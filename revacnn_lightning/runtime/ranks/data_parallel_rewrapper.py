"""The wrapper that averages the gradients of a model's replicas, and when it must be made again.

DistributedDataParallel sorts the parameters into buckets when it wraps a model. After an edit, the
buckets have other sizes than the gradients.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

from torch.nn.parallel import DistributedDataParallel

__all__ = ["DataParallelRewrapper"]


class DataParallelRewrapper:
    """Wraps the model of a Trainer in DistributedDataParallel again after it was edited.

    With a strategy that does not use DistributedDataParallel, it does nothing.

    Args:
        trainer: a Trainer during a fit.
        version: the structure version of the network that is wrapped now.
    """

    def __init__(self, trainer: Any, version: int) -> None:
        self._trainer = trainer
        self._version = version

    def update(self, version: int) -> None:
        """Wrap the model again if the network has another version. All processes do it together.

        Wrapping sends the parameters and buffers of the first process to all others.
        """
        strategy = self._trainer.strategy
        if version == self._version:
            return
        self._version = version
        if isinstance(getattr(strategy, "model", None), DistributedDataParallel):
            _wrap_again(strategy, self._trainer.lightning_module)


def _wrap_again(strategy: Any, module: Any) -> None:
    wrapper = weakref.ref(strategy.model)
    strategy.model = module
    if wrapper() is not None:  # its hooks on the parameters are removed with it
        gc.collect()
    if hasattr(strategy, "_pl_static_graph_delay_done"):
        strategy._pl_static_graph_delay_done = False  # the first step of a static graph is special
    strategy.configure_ddp()
