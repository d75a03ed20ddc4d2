"""Finds plain tensors that are copies of the model's: dicts and lists of them, and single ones.

An own moving average is often a dict by name (``{n: p.clone() for n, p in ...}``) or a list in the
order of ``parameters()``. A dict with the names of tensors belongs to these tensors. A list or a
single tensor does if its values resemble theirs; otherwise it has the same shapes by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from revacnn_lightning.steering.holders.copy_evidence import SIMILAR, tensor_similarity
from revacnn_lightning.steering.holders.model_copy import CopyRestriction
from revacnn_lightning.steering.holders.module_copies import ModuleCopy
from revacnn_lightning.steering.holders.object_walk import FoundTorchObject
from revacnn_lightning.steering.holders.tensor_copy import TensorCopy, make_module_tree
from revacnn_lightning.steering.holders.tensor_listings import TensorListing, TensorListings

__all__ = ["find_tensor_copies"]

VERY_SIMILAR = 0.9  # from which a single tensor is a copy
LONG = 4  # a list of as many tensors has the shapes of a module's not by chance
SMALLEST_FLAT = 16


class _Search:
    def __init__(self, model: nn.Module, registered: list[str], taken: set[int]) -> None:
        self.listings = TensorListings(model, registered)
        self._taken = taken | {id(t) for t in self.listings.tensors.values()}
        self._names = {id(t): name for name, t in self.listings.tensors.items()}
        self.copies: list[TensorCopy] = []
        self.restrictions: list[CopyRestriction] = []

    def take(self, found: FoundTorchObject) -> None:
        """Note what was found if it is a copy, or a restriction if it cannot be edited."""
        value = found.value
        if isinstance(value, Tensor):
            self._take_single(found.path, value)
        elif isinstance(value, dict):
            self._take_dict(found.path, value)
        elif isinstance(value, (list, tuple)):
            self._take_list(found.path, value)

    def _take_dict(self, path: str, value: dict[Any, Any]) -> None:
        keys, tensors = list(value), list(value.values())
        ids = [id(key) if isinstance(key, Tensor) else key for key in keys]
        if all(isinstance(i, int) and i in self._names for i in ids):
            listings = [self._listing_of([self._names[i] for i in ids])]
        else:
            listings = list(self._listings_with_names(keys))
        self._take(path, value, tensors, [v for v in listings if self._fits(v, tensors)], keys)

    def _listing_of(self, names: Sequence[str]) -> TensorListing:
        """Return the listing of these tensors, in this order."""
        for listings in self.listings.by_scope.values():
            for listing in listings:
                if set(listing.full_names) == set(names):
                    start = len(listing.scope) + 1 if listing.scope else 0
                    return TensorListing(
                        listing.scope, listing.kind, tuple(n[start:] for n in names)
                    )
        return TensorListing("", "chosen", tuple(names))

    def _listings_with_names(self, keys: Sequence[Any]) -> Iterable[TensorListing]:
        """Yield a listing of every module in which all keys are names of tensors."""
        if not all(isinstance(key, str) for key in keys):
            return
        for scope, listings in self.listings.by_scope.items():
            for start in ("", "module.", "model."):
                names = tuple(key.removeprefix(start) for key in keys)
                if keys[0].startswith(start) and set(names) <= set(listings[-1].names):
                    kinds = [v.kind for v in listings if set(v.names) == set(names)]
                    # Of a module without buffers, both listings have these names. The whole state
                    # serves a copy that is loaded again, and does not disturb an average.
                    yield TensorListing(scope, kinds[-1] if kinds else "chosen", names)
                    break

    def _take_list(self, path: str, tensors: Sequence[Tensor]) -> None:
        listings = self.listings.by_shapes.get(tuple(_shape(t) for t in tensors), [])
        self._take(path, tensors, tensors, listings, [])

    def _take(
        self,
        path: str,
        container: Any,
        tensors: Sequence[Tensor],
        listings: Sequence[TensorListing],
        keys: Sequence[Any],
    ) -> None:
        """Take the listing whose values are the most similar."""
        if not listings or id(container) in self._taken:
            return
        if not keys and all(id(t) in self._taken for t in tensors):
            return
        self._taken.add(id(container))
        unique = {tuple(listing.full_names): listing for listing in reversed(listings)}
        ranked = sorted(
            ((self._similarity(listing, tensors), listing) for listing in unique.values()),
            key=lambda pair: -pair[0],
        )
        best, listing = ranked[0]
        is_named = any(isinstance(key, Tensor) or "." in str(key) for key in keys)
        if best < SIMILAR and not is_named and len(tensors) < LONG:
            return
        if len(ranked) > 1 and ranked[1][0] > best - 1e-3:
            reason = f"{path} may hold copies of {listing.scope} or of {ranked[1][1].scope}"
            self._refuse([v for _, v in ranked], f"{reason}; keep them by their names in the model")
        else:
            self._add(path, container, tensors, listing, keys, has_values=best >= SIMILAR)

    def _take_single(self, path: str, tensor: Tensor) -> None:
        if id(tensor) in self._taken or is_lazy(tensor) or tensor.numel() < 2:
            return
        if tensor.ndim == 1:
            self._check_not_flat(path, tensor)
            return
        same = [
            (tensor_similarity([(t, tensor)]), name)
            for name, t in self.listings.tensors.items()
            if _shape(t) == _shape(tensor) and t.is_floating_point() == tensor.is_floating_point()
        ]
        similar = [name for s, name in same if s >= VERY_SIMILAR]
        if len(similar) == 1 and bool(tensor.detach().any()):
            listing = TensorListing("", "chosen", (similar[0],))
            self._add(path, None, [tensor], listing, [], has_values=True)

    def _check_not_flat(self, path: str, tensor: Tensor) -> None:
        if tensor.numel() < SMALLEST_FLAT:
            return
        for scope, listings in self.listings.by_scope.items():
            for listing in listings:
                parts = [
                    self.listings.tensors[name].detach().flatten() for name in listing.full_names
                ]
                if len(parts) > 1 and sum(p.numel() for p in parts) == tensor.numel():
                    flat = torch.cat([p.double().cpu() for p in parts])
                    if tensor_similarity([(flat, tensor)]) >= SIMILAR:
                        reason = (
                            f"{path} holds the parameters of {scope or 'the model'} in one vector"
                        )
                        self._refuse([listing], f"{reason}; keep them by their names in the model")
                        return

    # ---------------------------------------------------------------- results

    def _add(
        self,
        path: str,
        container: Any,
        tensors: Sequence[Tensor],
        listing: TensorListing,
        keys: Sequence[Any],
        *,
        has_values: bool,
    ) -> None:
        by_name = dict(zip(listing.full_names, tensors, strict=True))
        aliases = {n for n, t in by_name.items() if _is_alias(t, self.listings.tensors[n])}
        foreign = {n for n, t in by_name.items() if id(t) in self._taken}
        parts = [n for n, t in by_name.items() if n not in aliases | foreign and _is_part(t)]
        if parts:
            reason = f"{path} keeps the copy of {parts[0]} in the memory of a larger tensor"
            self._refuse([listing], f"{reason}; clone it")
            return
        self._taken |= {id(tensor) for tensor in tensors}
        self.copies.append(
            TensorCopy(path, make_module_tree(by_name), listing=listing, container=container,
                       keys=tuple(keys), has_values=has_values, aliases=frozenset(aliases),
                       foreign=frozenset(foreign))
        )  # fmt: skip

    def _refuse(self, listings: Sequence[TensorListing], reason: str) -> None:
        self.restrictions += [CopyRestriction(listing.scope, reason) for listing in listings]

    def _fits(self, listing: TensorListing, tensors: Sequence[Tensor]) -> bool:
        return all(
            _shape(self.listings.tensors[name]) == _shape(tensor)
            for name, tensor in zip(listing.full_names, tensors, strict=True)
        )

    def _similarity(self, listing: TensorListing, tensors: Sequence[Tensor]) -> float:
        pairs = zip(listing.full_names, tensors, strict=True)
        own = [(self.listings.tensors[name], tensor) for name, tensor in pairs]
        return tensor_similarity([(a, b) for a, b in own if a.ndim > 1])


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return () if is_lazy(tensor) else tuple(tensor.shape)


def _is_alias(tensor: Tensor, other: Tensor) -> bool:
    return tensor is not other and tensor.data_ptr() == other.data_ptr() != 0


def _is_part(tensor: Tensor) -> bool:
    storage = tensor.untyped_storage().nbytes()
    return storage > tensor.numel() * tensor.element_size()


def find_tensor_copies(
    model: nn.Module, candidates: Iterable[FoundTorchObject], modules: Sequence[ModuleCopy]
) -> tuple[list[TensorCopy], list[CopyRestriction]]:
    """Return the copies of tensors among what a walk has found, and why some cannot be edited.

    Args:
        modules: the copies of modules. Their tensors are edited with them, and nothing is taken to
            be a copy of those that are registered.
    """
    tensors = [found for found in candidates if not isinstance(found.value, (nn.Module, Optimizer))]
    if not tensors:
        return [], []
    outside = [copy.module for copy in modules if not copy.is_registered]
    taken = {id(t) for module in outside for t in (*module.parameters(), *module.buffers())}
    search = _Search(model, [copy.path for copy in modules if copy.is_registered], taken)
    for found in tensors:
        search.take(found)
    return search.copies, search.restrictions
