"""What a script knows of the filters of a run: which are dead, and what is wrong with them."""

from __future__ import annotations

from revacnn_lightning.client.run_messages import NonblockingRunClient
from revacnn_lightning.diagnostics.dead_filters import DeadFilterTracker
from revacnn_lightning.diagnostics.verdicts import Verdict
from revacnn_lightning.history.network_verdicts import NetworkVerdicts
from revacnn_lightning.protocol.connection_file import Connection
from revacnn_lightning.protocol.evidence import LayerEvidence
from revacnn_lightning.protocol.filter_columns import find_previous_columns
from revacnn_lightning.protocol.messages import Message, Snapshot, Structure

__all__ = ["RunVerdicts"]


class RunVerdicts(NonblockingRunClient):
    """The findings of a `Run`. The viewer has its own, which all tabs share."""

    def __init__(self, connection: Connection) -> None:
        self._dead_filters = DeadFilterTracker()
        self._verdicts = NetworkVerdicts()
        super().__init__(connection)

    def dead_filters(self, layer: str) -> list[int]:
        """Return the indices of a layer's dead filters in the current `structure`.

        A filter is dead if its activation was exactly zero in all batches that this object has
        received of the last 20. `poll`, `batches` and `wait_for` receive them.

        Raises:
            ValueError: the network has no such layer.
        """
        first, mask = 0, self._dead_filters.mask()
        for one in self.structure.layers if self.structure is not None else ():
            last = first + len(one.filter_ids)
            if one.name == layer:
                return [i for i, dead in enumerate(mask[first:last]) if dead and one.observed]
            first = last
        raise ValueError(f"the network has no watched layer {layer}: see Run.structure")

    def verdicts(self) -> list[Verdict]:
        """Return what is wrong with the network, what is worth most to act on first.

        They follow from the last 50 batches that `poll`, `batches` or `wait_for` has received, and
        from what `evidence` or a viewer has requested; the page Verdicts defines each.
        """
        dead = self._dead_filters
        return self._verdicts.verdicts(dead.mask() if dead.is_known else None)

    def _update_state(self, message: Message) -> None:
        super()._update_state(message)
        if isinstance(message, Snapshot):
            self._count_silent_batches(message)
            self._verdicts.add(message)
        elif isinstance(message, LayerEvidence):
            self._verdicts.add_evidence(message)

    def _update_structure(self, structure: Structure) -> None:
        before = self.structure
        super()._update_structure(structure)
        if self.structure is not structure:  # an older one that has arrived late
            return
        if before is not None and before.run != structure.run:
            before = None
        if before is None or before.version != structure.version:
            self._dead_filters.reorder_filters(find_previous_columns(before, structure))
            self._verdicts.update_structure(before, structure)

    def _count_silent_batches(self, snapshot: Snapshot) -> None:
        if "activation" in snapshot.statistics and snapshot.version == self._version():
            activation = snapshot.values[snapshot.statistics.index("activation")]
            if len(activation) == self._dead_filters.n_filters:
                self._dead_filters.add(snapshot.step, activation)
