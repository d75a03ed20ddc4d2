"""A process group of the package's own, in which the processes of one training agree on edits.

It uses gloo and tensors on the CPU, whatever the training uses: its messages are small, and must
neither mix with the training's collectives nor wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from revacnn_lightning.errors import EditFailedError

__all__ = ["LostRankError", "SideProcessGroup"]

# Longer than any edit. A process that has died is noticed immediately: its connections close.
TIMEOUT = timedelta(minutes=10)
MAX_REASON_BYTES = 500
ROOT = 0


class LostRankError(EditFailedError):
    """Another rank of the training has ended, or does not reply."""


class SideProcessGroup:
    """Collectives of the processes of one training. All of them must call the same ones.

    Creating one is a collective, too.

    Attributes:
        rank: the rank of this process.
        size: the number of processes.

    Raises:
        LostRankError: the other processes do not create theirs, or one has ended. So does every
            method.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        try:
            group: Any = dist.new_group(backend="gloo", timeout=TIMEOUT)
        except RuntimeError as error:
            raise LostRankError(str(error)) from error
        self._group = group
        # The group itself starts a broadcast with half the time of `dist.broadcast`, which checks
        # the arguments each time.
        self._broadcast = dist.BroadcastOptions()
        self._broadcast.rootRank, self._broadcast.asyncOp = ROOT, True

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0, which serves viewers and plans edits."""
        return self.rank == ROOT

    def close(self) -> None:
        """Close the connections: others that wait for this process get an error."""
        # They close only when nothing refers to the group any more.
        group, self._group = self._group, None
        try:
            dist.destroy_process_group(group)
        except (RuntimeError, ValueError, AssertionError):  # the training has destroyed all groups
            return

    # ------------------------------------------------------------------ from rank 0 to all

    def start_broadcast(self, values: Tensor) -> Any:
        """Start to send small ``values`` of rank 0 into those of the others."""
        try:
            return self._group.broadcast([values], self._broadcast)
        except RuntimeError as error:
            raise LostRankError(str(error)) from error

    def wait(self, work: Any) -> None:
        """Wait until a broadcast is complete."""
        try:
            work.wait()
        except RuntimeError as error:
            raise LostRankError(str(error)) from error

    def broadcast(self, values: Tensor) -> None:
        """Send ``values``, on the CPU, of rank 0 into those of the others."""
        self.wait(self.start_broadcast(values))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes from rank 0; the others call `receive_bytes`."""
        self.broadcast(torch.tensor([len(data)]))
        if data:
            self.broadcast(torch.frombuffer(bytearray(data), dtype=torch.uint8))

    def receive_bytes(self) -> bytes:
        """Return what rank 0 sends."""
        size = torch.zeros(1, dtype=torch.int64)
        self.broadcast(size)
        data = torch.zeros(int(size), dtype=torch.uint8)
        if len(data):
            self.broadcast(data)
        return data.numpy().tobytes()

    def copy_from_rank_zero(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors of the others the values of those of rank 0, which have the same shapes."""
        with torch.no_grad():
            for tensor in tensors:
                values = tensor.detach().cpu().contiguous()
                self.broadcast(values.reshape(-1).view(torch.uint8))
                if not self.is_root:
                    tensor.detach().copy_(values)

    # ------------------------------------------------------------------ among all

    def check_agreement(self, value: int, failure: str = "") -> None:
        """Check that no rank has failed, and that all have the same ``value`` (int64).

        Raises:
            EditFailedError: in every rank. It names those that have failed or differ.
        """
        own = torch.tensor([int(bool(failure)), value])
        found = [torch.zeros_like(own) for _ in range(self.size)]
        self._gather(found, own)
        if any(int(failed) for failed, _ in found):
            raise EditFailedError("; ".join(self._gather_reasons(failure)))
        differing = [str(rank) for rank, (_, v) in enumerate(found) if v != found[ROOT][1]]
        if differing:
            whose = ("rank " if len(differing) == 1 else "ranks ") + ", ".join(differing)
            raise EditFailedError(
                f"the weights or the optimizer state of {whose} differ from those of rank 0; "
                "the edit was rolled back in all ranks"
            )

    def start_sum(self, values: Tensor) -> Any:
        """Start to add up ``values``, on the CPU, in place."""
        return self._start(dist.all_reduce, values, dist.ReduceOp.SUM)

    def start_maximum(self, values: Tensor) -> Any:
        """Start to replace ``values``, on the CPU, by the maximum over all ranks."""
        return self._start(dist.all_reduce, values, dist.ReduceOp.MAX)

    def start_gather(self, own: Tensor) -> tuple[Any, list[Tensor]]:
        """Start to gather tensors of the same shape; return also where they arrive, by rank."""
        found = [torch.zeros_like(own) for _ in range(self.size)]
        return self._start(dist.all_gather, found, own), found

    def _start(self, collective: Callable[..., Any], *args: Any) -> Any:
        try:
            return collective(*args, group=self._group, async_op=True)
        except RuntimeError as error:
            raise LostRankError(str(error)) from error

    def _gather_reasons(self, failure: str) -> list[str]:
        own = torch.zeros(MAX_REASON_BYTES, dtype=torch.uint8)
        text = failure.encode()[:MAX_REASON_BYTES]
        if text:
            own[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        found = [torch.zeros_like(own) for _ in range(self.size)]
        self._gather(found, own)
        texts = [each.numpy().tobytes().rstrip(b"\0").decode(errors="ignore") for each in found]
        return [f"rank {rank}: {text}" for rank, text in enumerate(texts) if text]

    def _gather(self, found: list[Tensor], own: Tensor) -> None:
        try:
            dist.all_gather(found, own, group=self._group)
        except RuntimeError as error:
            raise LostRankError(str(error)) from error
