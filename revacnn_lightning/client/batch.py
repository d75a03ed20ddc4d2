"""The statistics of one training batch, or of several, by layer name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from revacnn_lightning.client.run_html import batch_html
from revacnn_lightning.errors import MissingPackageError
from revacnn_lightning.protocol.messages import Snapshot, Structure

if TYPE_CHECKING:
    import pandas

__all__ = ["Batch"]


class Batch(Mapping[str, dict[str, np.ndarray]]):
    """The statistics of one training batch: a mapping from layer name to NumPy arrays.

    Examples:
        >>> batch["conv2"]["gradient"].shape  # float32, one value per filter
        (3,)
        >>> list(batch.statistic("activation"))  # an array per layer
        ['conv1', 'conv2']
        >>> len(batch.to_dataframe())  # one row per filter
        7

    With ``ReVACNN(publish="10 Hz")``, it may be several batches: then all values are means, and
    `maximum` and `max_loss` are what they were at most.

    A value is NaN if it was not recorded in this batch. Arrays are read-only views, not copies.

    Attributes:
        snapshot: the message, with everything that was sent of this batch.
        structure: the network that was trained; filter indices refer to it.
    """

    def __init__(self, snapshot: Snapshot, structure: Structure) -> None:
        self.snapshot = snapshot
        self.structure = structure
        self._columns: dict[str, slice] = {}
        first = 0
        for layer in structure.layers:
            self._columns[layer.name] = slice(first, first + len(layer.filter_ids))
            first += len(layer.filter_ids)

    @classmethod
    def without_statistics(cls, structure: Structure, step: int) -> Batch:
        """Return a batch without statistics, for its network alone."""
        filters = sum(len(layer.filter_ids) for layer in structure.layers)
        snapshot = Snapshot(
            run=structure.run, version=structure.version, step=step, epoch=0, batch_index=0,
            batches_per_epoch=0, max_epochs=0, time=0.0, loss=None, learning_rates=[],
            batches_per_second=0.0, statistics=[], values=np.zeros((0, filters), np.float32),
        )  # fmt: skip
        return cls(snapshot, structure)

    @staticmethod
    def matches_structure(snapshot: Snapshot, structure: Structure) -> bool:
        """Return whether a snapshot has a row per statistic and a column per filter."""
        filters = sum(len(layer.filter_ids) for layer in structure.layers)
        shape = (len(snapshot.statistics), filters)
        maxima = snapshot.maxima
        return snapshot.values.shape == shape and (maxima is None or maxima.shape == shape)

    # ------------------------------------------------------------------ the batch

    @property
    def step(self) -> int:
        """Number of training batches before this one, since the start of fit."""
        return self.snapshot.step

    @property
    def epoch(self) -> int:
        return self.snapshot.epoch

    @property
    def loss(self) -> float | None:
        return self.snapshot.loss

    @property
    def batch_count(self) -> int:
        """How many training batches these are; the last one is `step`."""
        return self.snapshot.batch_count

    @property
    def max_loss(self) -> float | None:
        """The largest loss of these batches; NaN if one is NaN."""
        return self.loss if self.batch_count == 1 else self.snapshot.max_loss

    @property
    def metrics(self) -> dict[str, float]:
        """What the module has logged."""
        return self.snapshot.metrics

    @property
    def learning_rates(self) -> list[float]:
        """One per parameter group of all optimizers."""
        return self.snapshot.learning_rates

    @property
    def version(self) -> int:
        """The structure version that the filter indices of this batch refer to."""
        return self.snapshot.version

    # ------------------------------------------------------------------ the statistics

    def __getitem__(self, layer: str) -> dict[str, np.ndarray]:
        if layer not in self._columns:
            raise KeyError(f"{layer}: the layers are {', '.join(self._columns) or 'none'}")
        rows = self.snapshot.values[:, self._columns[layer]]
        return dict(zip(self.snapshot.statistics, rows, strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __bool__(self) -> bool:
        """Return True: a batch of a network without layers is a batch, too."""
        return True

    def __len__(self) -> int:
        return len(self._columns)

    def statistic(self, name: str) -> dict[str, np.ndarray]:
        """Return one statistic of every layer: layer name -> float32 (filters,).

        Raises:
            KeyError: it was not recorded; ``ReVACNN(statistics=...)`` says what is.
        """
        return self._by_layer(self.snapshot.values, name)

    def maximum(self, name: str) -> dict[str, np.ndarray]:
        """Return the largest value of one statistic in these batches, in the form of `statistic`.

        Raises:
            KeyError: it was not recorded; ``ReVACNN(statistics=...)`` says what is.
        """
        maxima = self.snapshot.maxima
        return self._by_layer(self.snapshot.values if maxima is None else maxima, name)

    def _by_layer(self, values: np.ndarray, name: str) -> dict[str, np.ndarray]:
        names = self.snapshot.statistics
        if name not in names:
            raise KeyError(f"{name}: the recorded statistics are {', '.join(names) or 'none'}")
        row = values[names.index(name)]
        return {layer: row[columns] for layer, columns in self._columns.items()}

    def columns(self) -> dict[str, Any]:
        """Return a table of all filters as columns of equal length, for any data frame library.

        The columns are ``layer``, ``filter`` (its index), ``filter_id``, and each statistic.
        """
        layers = self.structure.layers
        names = [layer.name for layer in layers for _ in layer.filter_ids]
        indices = [i for layer in layers for i in range(len(layer.filter_ids))]
        ids = [id_ for layer in layers for id_ in layer.filter_ids]
        table = {"layer": names, "filter": np.array(indices), "filter_id": np.array(ids)}
        return {**table, **dict(zip(self.snapshot.statistics, self.snapshot.values, strict=True))}

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the table of `columns` as a pandas DataFrame.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingPackageError(
                "to_dataframe requires pandas: pip install pandas; without it, columns() returns "
                "the same table as NumPy arrays"
            ) from error
        return pandas.DataFrame(self.columns())

    def __eq__(self, other: object) -> bool:
        return self is other  # a comparison of all arrays is nobody's intention

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.4g}"
        return f"<Batch {self.step}: {len(self)} layers{loss}>"

    def _repr_html_(self) -> str:
        return batch_html(self)
