"""`monitor`: see and steer a training loop of your own, or of Lightning Fabric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.runtime.alert_delivery import AlertTarget
from revacnn_lightning.runtime.batch_images import ImagesOfBatch
from revacnn_lightning.runtime.loop_run import LoopRun, LoopSettings
from revacnn_lightning.runtime.loop_state import LoopState
from revacnn_lightning.runtime.run_options import RunOptions
from revacnn_lightning.runtime.sample_forward import UserForward
from revacnn_lightning.steering.execution.initialization import Initialization
from revacnn_lightning.steering.loading import File
from revacnn_lightning.telemetry import DEFAULT_STATISTICS
from revacnn_lightning.telemetry.layer_selection import LayerChoice

__all__ = ["monitor"]


def monitor(
    model: nn.Module,
    optimizers: Optimizer | list[Any],
    *,
    state: Mapping[str, Any] | None = None,
    validation: Any = None,
    accumulate_grad_batches: int = 1,
    directory: str | Path = "revacnn",
    resume_from: File | None = None,
    host: str | None = None,
    telemetry_port: int = 0,
    request_port: int = 0,
    connection_file: str | Path | None = None,
    statistics: Sequence[str] = DEFAULT_STATISTICS,
    max_overhead: float | None = 0.03,
    keep_history: bool = True,
    forward: UserForward | None = None,
    images: ImagesOfBatch | None = None,
    class_names: Sequence[str] | None = None,
    name: str | None = None,
    copies: Mapping[str, str | None] | None = None,
    layers: LayerChoice = None,
    init: Initialization | None = None,
    record: str | Path | None = None,
    keep_batches: int = 0,
    alert: AlertTarget | None = None,
    publish: str = "every batch",
) -> LoopRun:
    """Monitor every filter of a network, and edit it, in a training loop without a Trainer.

    The loop is inside ``with monitor(...) as run:`` and takes its batches from `LoopRun.batches`,
    or trains each one inside `LoopRun.batch`. The weights it computes are the same without.

    Args:
        model: the model as the loop calls it, such as the one that ``Fabric.setup`` returns.
        optimizers: an optimizer, or a list of optimizers. The list is kept: the
            loop may replace its entries.
        state: other objects of the training by name, such as learning rate schedulers, a
            ``torch.amp.GradScaler`` and averages of the weights. Rates that are set in the page
            scale the schedules, statistics are divided by the loss scale, edits change averages
            along, and what has a ``state_dict`` is part of checkpoints.
        validation: a DataLoader whose images the page can show.
        accumulate_grad_batches: batches whose gradients are accumulated before each step of the
            optimizer. Edits wait for the first of them, and their number, by which the loop divides
            the loss, is divided out.
        directory: the folder of the checkpoints and recordings that are started in the page.
        resume_from: a checkpoint of such a run. The model gets its edits first.
        host, telemetry_port, request_port, connection_file, statistics, max_overhead, keep_history:
            the same as in `ReVACNN`.
        forward, images, class_names, name, copies, layers, init: the same as in `ReVACNN`.
        record, keep_batches, alert, publish: the same as in `ReVACNN`.

    Returns:
        the run, which begins and ends with the ``with`` statement.

    Raises:
        TypeError: the model or an optimizer is something else.
        ValueError: an argument cannot be used.
        MissingPackageError: ``record`` or ``keep_batches`` is given, and mcap is not installed.

    Examples:
        >>> with monitor(model, optimizer) as run:  # and in another terminal: revacnn view
        ...     for epoch in run.epochs(2):
        ...         for images, labels in run.batches(data):
        ...             loss = nn.functional.cross_entropy(model(images), labels)
        ...             optimizer.zero_grad()
        ...             loss.backward()
        ...             optimizer.step()
        ...             run.log(loss=loss)
    """
    options = RunOptions(
        host=host,
        telemetry_port=telemetry_port,
        request_port=request_port,
        connection_file=connection_file,
        statistics=statistics,
        max_overhead=max_overhead,
        keep_history=keep_history,
        forward=forward,
        images=images,
        class_names=class_names,
        name=name,
        copies=copies,
        layers=layers,
        init=init,
        record=record,
        keep_batches=keep_batches,
        alert=alert,
        publish=publish,
    )
    settings = LoopSettings(validation, accumulate_grad_batches, directory, resume_from)
    return LoopRun(LoopState(model, optimizers, state or {}), options, settings)
