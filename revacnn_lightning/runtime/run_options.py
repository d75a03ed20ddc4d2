"""The options that `ReVACNN` and `monitor` have in common, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from revacnn_lightning.recording.recording_file import require_mcap
from revacnn_lightning.recording.run_recordings import RecordingSettings
from revacnn_lightning.runtime.alert_delivery import AlertTarget, check_alert_target
from revacnn_lightning.runtime.arguments import check_arguments, seconds_between_snapshots
from revacnn_lightning.runtime.batch_images import ImagesOfBatch
from revacnn_lightning.runtime.sample_forward import UserForward
from revacnn_lightning.runtime.server import Endpoints
from revacnn_lightning.steering import Editor
from revacnn_lightning.steering.execution.initialization import Initialization
from revacnn_lightning.steering.holders.object_walk import CopyHolder
from revacnn_lightning.steering.journal import Journal
from revacnn_lightning.steering.split_editor import ShardedFreezeAndRateEditor
from revacnn_lightning.telemetry import DEFAULT_STATISTICS, Recorder
from revacnn_lightning.telemetry.layer_selection import LayerChoice, LayerSelection

__all__ = ["RunOptions"]


@dataclass(frozen=True)
class RunOptions:
    """The arguments of `ReVACNN` with these names, which are described there.

    Raises:
        ValueError: an argument cannot be used.
        MissingPackageError: mcap is needed, and not installed.
    """

    host: str | None = None
    telemetry_port: int = 0
    request_port: int = 0
    connection_file: str | Path | None = None
    statistics: Sequence[str] = DEFAULT_STATISTICS
    max_overhead: float | None = 0.03
    keep_history: bool = True
    forward: UserForward | None = None
    images: ImagesOfBatch | None = None
    class_names: Sequence[str] | None = None
    name: str | None = None
    copies: Mapping[str, str | None] | None = None
    layers: LayerChoice = None
    init: Initialization | None = None
    record: str | Path | None = None
    keep_batches: int = 0
    alert: AlertTarget | None = None
    publish: str = "every batch"

    def __post_init__(self) -> None:
        check_arguments(
            (self.telemetry_port, self.request_port),
            self.statistics,
            self.max_overhead,
            self.name,
            self.keep_batches,
            self.class_names,
            self.layers,
            self.publish,
        )
        check_alert_target(self.alert)
        if self.record or self.keep_batches:
            require_mcap()

    def with_functions(
        self,
        forward: UserForward | None,
        images: ImagesOfBatch | None,
        alert: AlertTarget | None,
    ) -> RunOptions:
        """Return the same options with other functions of the user."""
        return replace(self, forward=forward, images=images, alert=alert)

    @property
    def endpoints(self) -> Endpoints:
        """The addresses to listen on, and the connection file."""
        file = Path(self.connection_file).expanduser() if self.connection_file else None
        return Endpoints(self.host, self.telemetry_port, self.request_port, file, self.name or "")

    @property
    def selection(self) -> LayerSelection:
        """The layers that are shown."""
        return LayerSelection(self.layers)

    @property
    def names_of_classes(self) -> tuple[str, ...]:
        """The class names that the user has given; () if those of the data apply."""
        return tuple(self.class_names or ())

    @property
    def snapshot_interval(self) -> float:
        """Seconds between two snapshots; 0 if every batch has one."""
        return seconds_between_snapshots(self.publish)

    def recording_settings(self, directory: Path) -> RecordingSettings:
        """Return which recordings the run starts, by default in ``directory``."""
        file = Path(self.record).expanduser() if self.record else None
        return RecordingSettings(
            directory if file is None else file.parent, file, self.keep_batches
        )

    def make_recorder(self, model: nn.Module) -> Recorder:
        """Return the recorder of the statistics of a model."""
        return Recorder(
            model,
            statistics=tuple(self.statistics),
            max_overhead=self.max_overhead,
            selection=self.selection,
        )

    def make_editor(
        self,
        model: nn.Module,
        get_optimizers: Callable[[], Sequence[Optimizer]],
        find_holders: Callable[[], Sequence[CopyHolder]],
        journal: Journal | None,
        *,
        is_split: bool = False,
    ) -> Editor:
        """Return the editor of a model; ``get_optimizers`` returns its present optimizers.

        ``is_split``: the parameters are split among the processes of the training.
        """
        kind = ShardedFreezeAndRateEditor if is_split else Editor
        return kind(
            model,
            get_optimizers,
            journal=journal,
            find_holders=find_holders,
            copies=self.copies,
            initialize=self.init,
        )
