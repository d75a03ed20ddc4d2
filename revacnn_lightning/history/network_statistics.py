"""The statistics of a run by layer: the means over the filters, and which filters are dead."""

from __future__ import annotations

import numpy as np

from revacnn_lightning.diagnostics.dead_filters import DeadFilterTracker
from revacnn_lightning.history.time_series import mean_per_segment
from revacnn_lightning.protocol.filter_columns import find_previous_columns
from revacnn_lightning.protocol.messages import Snapshot, Structure

__all__ = ["NetworkAndDeadFilterTracker"]


class NetworkAndDeadFilterTracker:
    """Tracks the network of a run and its dead filters, and averages statistics by layer.

    Attributes:
        structure: the network as it was published last; None before.
        offsets: index of each layer's first filter, int64 (layers + 1,).
    """

    def __init__(self) -> None:
        self.structure: Structure | None = None
        self.offsets = np.zeros(1, np.int64)
        self._dead = DeadFilterTracker()
        self._is_observed = np.zeros(0, bool)  # (filters,)

    @property
    def layer_names(self) -> list[str]:
        """The layers, in forward order."""
        return [] if self.structure is None else [one.name for one in self.structure.layers]

    def update_structure(self, structure: Structure) -> bool:
        """Adopt the network as it was published; return whether it has changed."""
        known, self.structure = self.structure, structure
        if known is not None and (known.run, known.version) == (structure.run, structure.version):
            return False
        self._dead.reorder_filters(find_previous_columns(known, structure))
        widths = np.array([len(layer.filter_ids) for layer in structure.layers], np.int64)
        self.offsets = np.cumsum([0, *widths])
        observed = np.array([layer.observed for layer in structure.layers], bool)
        self._is_observed = np.repeat(observed, widths)
        return True

    def has_structure_of(self, snapshot: Snapshot) -> bool:
        """Return whether a batch was trained with this network."""
        is_current = self.structure is not None and snapshot.version == self.structure.version
        shape = (len(snapshot.statistics), int(self.offsets[-1]))
        return is_current and snapshot.values.shape == shape

    def add_activation(self, snapshot: Snapshot) -> bool:
        """Add the activation of a batch of this network; return False if it has none."""
        if "activation" not in snapshot.statistics:
            return False
        row = snapshot.values[snapshot.statistics.index("activation")]
        self._dead.add(snapshot.step, row)
        return True

    def dead_mask(self) -> np.ndarray | None:
        """Return which filters are dead, bool (filters,); None while this is unknown."""
        return self._dead.mask() & self._is_observed if self._dead.is_known else None

    def layer_means(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Return the means of the statistics of a batch over the filters of each layer.

        Each has the shape (layers,). ``dead_share`` is the share of dead filters, if it is known.
        """
        if len(self.offsets) < 2:
            return {}
        rows, names = snapshot.values, list(snapshot.statistics)
        dead = self.dead_mask()
        if dead is not None:
            rows, names = np.vstack([rows, dead.astype(np.float32)]), [*names, "dead_share"]
        return dict(zip(names, mean_per_segment(rows, self.offsets), strict=True))
