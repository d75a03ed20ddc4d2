"""One edit in several processes, each with a replica of the model: in all of them, or in none.

Rank 0 plans, performs and verifies. The others perform its plan, get the values that it has drawn,
and verify that the network runs on their own data. In the end, all compare a checksum of the
weights and of the optimizer state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.steering.planning.lookup import find_owner_and_tensor
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.telemetry.split_tensors import has_split_parameters, local_part

__all__ = [
    "Peers",
    "checksum",
    "checksum_and_nonfinite_count",
    "perform_and_agree",
    "shape_checksum",
]

log = logging.getLogger(__name__)

ROW = 1021  # words of a tensor at a distance of a multiple of this may swap without being noticed
WORD = 8  # bytes: sums of smaller integers would convert each of them first
MODULUS = (1 << 61) - 1


class Peers(Protocol):
    """The processes that train replicas of a model. All of them call the same methods."""

    def announce(self, plan: EditPlan) -> None:
        """Let the other processes perform this plan. Only rank 0 calls it."""

    def copy_from_rank_zero(self, tensors: Sequence[Tensor]) -> None:
        """Give the tensors of the others the values of those of rank 0."""

    def check_agreement(self, value: int, failure: str = "") -> None:
        """Check that no process has failed and that all pass the same value.

        Raises:
            EditFailedError: in all processes.
        """


def perform_and_agree(
    peers: Peers,
    model: nn.Module,
    get_optimizers: Callable[[], Sequence[Optimizer]],
    plans: Sequence[EditPlan],
    perform: Callable[[], object] = lambda: None,
    verify: Callable[[], object] = lambda: None,
) -> None:
    """Perform an edit in this process, and check that it has succeeded in all.

    Args:
        plans: the plans that are performed or reverted.
        perform: changes the model; rank 0 has done so, and has verified the result.
        verify: checks the result, with the values of rank 0.

    Raises:
        EditFailedError: it failed in one process; all must roll back.
    """
    peers.check_agreement(*_outcome(perform, lambda: shape_checksum(model)))
    peers.copy_from_rank_zero(list(_parameters_of(model, plans)))
    peers.check_agreement(*_outcome(verify, lambda: checksum(model, get_optimizers())))


def _outcome(step: Callable[[], object], value: Callable[[], int]) -> tuple[int, str]:
    """Return a value after a step and "", or 0 and why it failed: the others wait for it."""
    try:
        step()
        return value(), ""
    except RevacnnError as error:
        return 0, str(error)
    except Exception as error:  # all processes must learn of it
        log.warning("A process could not perform an edit", exc_info=True)
        return 0, f"{type(error).__name__}: {error}"


def _parameters_of(model: nn.Module, plans: Sequence[EditPlan]) -> Iterator[nn.Parameter]:
    """Yield the parameters that plans change, once each, in an order that all processes share.

    Buffers are not among them: DistributedDataParallel sends those of rank 0 to all, unless the
    user wants those of each process.
    """
    names = {value.tensor for plan in plans for value in plan.values}
    names |= {edit.tensor for plan in plans for edit in plan.tensors}
    names |= {value.gain for plan in plans for value in plan.values}
    names |= {edit.gain for plan in plans for edit in plan.tensors}
    names |= {edit.entry_gain for plan in plans for edit in plan.tensors}
    hosts = tuple(
        f"{layer.host}.{layer.child}" if layer.child else layer.host
        for plan in plans
        for layer in plan.layers
    )
    found: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in names or name.startswith(tuple(f"{host}." for host in hosts)):
            found[id(parameter)] = parameter
    for name in sorted(names):  # of a parametrization, which named_parameters calls otherwise
        try:
            tensor = find_owner_and_tensor(model, name)[1]
        except AttributeError:  # an undo has removed its layer
            continue
        if isinstance(tensor, nn.Parameter):
            found[id(tensor)] = tensor
    yield from found.values()


# ---------------------------------------------------------------- checksums


def shape_checksum(model: nn.Module) -> int:
    """Return a number that differs if models have other parameters or sizes."""
    total = 0
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        for part in (*name.encode(), *tensor.shape):
            total = (total * 1_000_003 + part + 1) % MODULUS
    return total


def checksum(model: nn.Module, optimizers: Sequence[Optimizer]) -> int:
    """Return a number that differs, almost certainly, if weights or optimizer state differ.

    If the parameters are split among the ranks, each of them has another part: it is that of the
    shapes.
    """
    if has_split_parameters(model):
        return shape_checksum(model)
    parameters = list(model.parameters())
    tensors: list[Tensor] = [*parameters]
    for optimizer in optimizers:
        for parameter in parameters:
            state = optimizer.state.get(parameter, {})
            tensors += [v for _, v in sorted(state.items()) if isinstance(v, Tensor)]
    sums = [_sum_of(tensor) for tensor in tensors]
    total = shape_checksum(model)
    for value in torch.stack([one.cpu() for one in sums]).tolist() if sums else []:
        total = (total * 1_000_003 + value) % MODULUS
    return total


def checksum_and_nonfinite_count(
    model: nn.Module, optimizers: Sequence[Optimizer]
) -> tuple[int, int]:
    """Return the `checksum`, and how many weights are infinite or NaN.

    If the parameters are split among the ranks, the checksum is 0: they have different parts.
    """
    parameters = [local_part(p) for p in model.parameters() if p.is_floating_point()]
    counts = [(~torch.isfinite(parameter)).sum() for parameter in parameters]
    nonfinite = int(torch.stack([each.cpu() for each in counts]).sum()) if counts else 0
    return 0 if has_split_parameters(model) else checksum(model, optimizers), nonfinite


def _sum_of(tensor: Tensor) -> Tensor:
    """Return a sum over the bits of a tensor that depends on their positions; it may overflow."""
    flat = tensor.detach().reshape(-1)
    size = flat.element_size()
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32}.get(size, torch.int64)
    bits = flat.view(integers).reshape(-1)
    if bits.storage_offset() * size % WORD:
        bits = bits.clone()  # words begin at multiples of their size
    paired = len(bits) - len(bits) % max(WORD // size, 1)
    words, rest = bits[:paired].view(torch.int64), bits[paired:].to(torch.int64)
    whole = len(words) - len(words) % ROW
    columns = words[:whole].view(-1, ROW).sum(0)
    columns[: len(words) - whole] += words[whole:]
    columns[ROW - len(rest) :] += rest
    weights = torch.arange(1, ROW + 1, device=bits.device) * 7_919
    return (columns * weights).sum()
