"""Which blocks of the network a tab shows closed."""

from __future__ import annotations

from collections.abc import Sequence

from ..layout.folding import (
    closed_block_of,
    closed_blocks_after_reveal,
    find_blocks,
    fold_blocks,
    initially_closed_blocks,
    innermost_open_block_of,
)

__all__ = ["BlockFolding"]


class BlockFolding:
    """The closed blocks of one tab. An edit changes none of them: new blocks are open.

    Attributes:
        closed: paths of the closed blocks. Inside a closed block, others may be closed, too.
    """

    def __init__(self) -> None:
        self.closed: frozenset[str] = frozenset()
        self._is_started = False

    def forget_network(self) -> None:
        """Forget the network, because another run is shown."""
        self.closed, self._is_started = frozenset(), False

    def fold_initially(self, layer_names: Sequence[str]) -> None:
        """Fold a network that is shown for the first time."""
        if not self._is_started:
            self.closed, self._is_started = initially_closed_blocks(layer_names), True

    def is_hidden(self, layer: int, layer_names: Sequence[str]) -> bool:
        """Return whether a layer is drawn inside a closed block."""
        return closed_block_of(layer, layer_names, self.closed) is not None

    def open_around(self, layer: int, layer_names: Sequence[str]) -> None:
        """Open all blocks around a layer."""
        self.closed = closed_blocks_after_reveal(layer, layer_names, self.closed)

    def open(self, layer: int, layer_names: Sequence[str]) -> bool:
        """Open the closed block in which a layer is drawn; return whether there is one."""
        block = closed_block_of(layer, layer_names, self.closed)
        if block is not None:
            self.closed -= {block.path}
        return block is not None

    def close(self, layer: int, layer_names: Sequence[str]) -> bool:
        """Close the innermost open block around what is drawn of a layer; return as `open` does."""
        block = innermost_open_block_of(layer, layer_names, self.closed)
        if block is not None:
            self.closed |= {block.path}
        return block is not None

    def set_closed(self, path: str, layer_names: Sequence[str], *, is_closed: bool) -> None:
        """Close or open the block of a path; without effect if there is none."""
        if path in {block.path for block in find_blocks(layer_names)}:
            self.closed = self.closed | {path} if is_closed else self.closed - {path}

    def layer_columns_away(self, layer: int, column_steps: int, layer_names: Sequence[str]) -> int:
        """Return the layer so many drawn columns from another; of a closed block, the first."""
        units = fold_blocks(layer_names, self.closed)
        place = next(i for i, unit in enumerate(units) if layer in unit.layers)
        target = max(0, min(place + column_steps, len(units) - 1))
        return layer if target == place else units[target].first
