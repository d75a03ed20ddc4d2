"""Finds copies of the model's modules that training updates from the model, not by learning.

Examples are averaged models (EMA, SWA), momentum encoders, target networks and the snapshots of
callbacks. They may be registered in the model, be kept in its other attributes, or belong to a
callback. A copy must keep the structure of its origin: the next update fails otherwise.

A module is a copy of another one of the same structure if no optimizer trains it, and

- it is inside `torch.optim.swa_utils.AveragedModel`, or in the `CopyHolder.pairs` of its holder, or
- its weights resemble those of the other module (`copy_evidence.SIMILAR`).

The second kind is certain if a callback holds the copy, if its name says so, or if its values have
changed without an optimizer. Otherwise it might be a frozen teacher with the student's start
values, which must not change: edits that change its function are refused (`ModuleCopy.doubt`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn
from torch.optim.swa_utils import AveragedModel

from revacnn_lightning.steering.holders import object_walk
from revacnn_lightning.steering.holders.copy_evidence import (
    SIMILAR,
    TrainedParameters,
    UntrainedChanges,
    weight_similarity,
)
from revacnn_lightning.steering.holders.model_copy import CopyRestriction, ModelPartCopy
from revacnn_lightning.steering.holders.module_matching import (
    are_modules_overlapping,
    has_identifying_weights,
    is_inside_module,
    is_pruned,
    names_by_structure,
    structure_hash,
)
from revacnn_lightning.steering.planning.plan import EditPlan
from revacnn_lightning.telemetry.module_tree import list_named_modules

__all__ = ["CopySearch", "ModuleCopy"]

# Two origins whose similarities to a copy differ by less than this are ambiguous.
SAME_SIMILARITY = 1e-3
# Parts of names that only copies have which training updates.
NAMES_OF_COPIES = ("averag", "ema", "momentum", "shadow", "swa", "target")


@dataclass(eq=False)
class ModuleCopy(ModelPartCopy):
    """A module that is a copy of a part of the model.

    Attributes:
        path: the name of the copy in ``root``; "" for ``root``. For a registered copy, ``root`` is
            the model.
        origin: the name of the module in the model that it is a copy of; "" for the model.
        is_unpruned: whether the origin is pruned with `torch.nn.utils.prune`, but not the copy.
    """

    path: str
    origin: str
    is_unpruned: bool = False

    @property
    def module(self) -> nn.Module:
        """The copy itself."""
        return self.root.get_submodule(self.path)

    def name_in_copy(self, name: str) -> str | None:
        """Return the name in ``root`` of what ``name`` is in the model; None outside the origin."""
        if not is_inside_module(name, self.origin):
            return None
        rest = name[len(self.origin) :].lstrip(".")
        if self.is_unpruned:
            if rest.endswith("_mask"):
                return None
            rest = rest.removesuffix("_orig")
        return ".".join(part for part in (self.path, rest) if part)

    def refusal(self, plan: EditPlan) -> str:
        """Return why a plan cannot be performed on the copy; "" if it can."""
        removed = [edit.host for edit in plan.layers if edit.action == "replace"]
        hosts = [host for host in removed if is_inside_module(self.origin, host)]
        if all(host == self.origin and self.path for host in hosts):
            return ""
        return (
            f"{self.holder} is a copy of {self.origin}, which therefore cannot be removed; train "
            "without it to remove the layer"
        )

    def concerns_layer_at(self, host_name: str) -> bool:
        """Return whether a module is inside the origin."""
        return is_inside_module(host_name, self.origin)


class CopySearch:
    """Finds the copies of one model.

    Args:
        declared: module of the model -> the module that it is a copy of, or None if it is not a
            copy. Nothing else decides about these.
    """

    def __init__(
        self,
        model: nn.Module,
        trained: TrainedParameters,
        values: UntrainedChanges,
        declared: Mapping[str, str | None] | None = None,
    ) -> None:
        self._model = model
        self._trained = trained
        self._values = values
        self._declared = declared or {}
        self._modules = dict(list_named_modules(model))
        self._structures: dict[int, int] = {}
        self._known = set(map(id, self._modules.values()))
        self.found: list[object_walk.FoundTorchObject] = []  # also what are no modules
        self.copies: list[ModuleCopy] = []
        self.restrictions: list[CopyRestriction] = []

    @cached_property
    def _by_structure(self) -> dict[int, list[str]]:
        """Structure -> the names of the model's modules that have it; most searches need none."""
        return names_by_structure(self._model)

    def run(self, holders: Sequence[object_walk.CopyHolder]) -> None:
        """Find the copies in the model, in its attributes and in the holders."""
        self._find_declared()
        self._find_in("", self._model, is_trusted=False)
        for holder in holders:
            self._take_pairs(holder)
            self._take_needed(holder)
        self._find_outside("", self._model, is_trusted=False)
        for holder in holders:
            self._find_outside(holder.name, holder.value, is_trusted=True)

    # ---------------------------------------------------------------- inside the model

    def _find_declared(self) -> None:
        for name, origin in self._declared.items():
            if origin is not None and name in self._modules:
                self._pair(name, self._model, name, origin)

    def _find_in(self, holder: str, root: nn.Module, *, is_trusted: bool) -> None:
        """Find the copies among the modules of ``root``, outermost first."""
        if root is self._model and self._trained.has_all_weights_of(root):
            return
        found: list[str] = []
        averages = [n for n, m in root.named_modules() if isinstance(m, AveragedModel)]
        for name, module in root.named_modules():
            label = ".".join(part for part in (holder, name) if part)
            if root is not self._model and id(module) in self._known:
                found.append(name)  # of the model, or a copy that was found already
            if self._is_settled(label, name, found) or not self._may_be_copy(root, module):
                continue
            is_certain = any(is_inside_module(name, each) for each in averages)
            copy = self._judge(label, root, name, is_certain=is_certain, is_trusted=is_trusted)
            if copy is not None:
                found.append(name)
                self._add(copy)

    def _is_settled(self, label: str, name: str, found: Sequence[str]) -> bool:
        """Return whether a module belongs to a copy that was found, or is declared."""
        return any(is_inside_module(name, each) for each in found) or any(
            is_inside_module(label, each) for each in self._declared
        )

    def _may_be_copy(self, root: nn.Module, module: nn.Module) -> bool:
        is_registered = root is self._model
        return (
            module is not self._model
            and has_identifying_weights(module)
            and not self._trained.has_any_of(module, is_registered=is_registered)
        )

    def _judge(
        self, label: str, root: nn.Module, name: str, *, is_certain: bool, is_trusted: bool
    ) -> ModuleCopy | None:
        """Return the copy that a module is, if it is one."""
        module = root.get_submodule(name)
        origins = self._origins(root, name, module)
        scored = ((weight_similarity(module, self._modules[o]), o) for o in origins)
        ranked = sorted(scored, key=lambda pair: -pair[0])
        if not ranked or (ranked[0][0] < SIMILAR and not (is_certain and len(ranked) == 1)):
            return None
        best, origin = ranked[0]
        rivals = [o for s, o in ranked[1:] if best - s < SAME_SIMILARITY]
        if rivals:
            doubt = _which(label, origin, rivals[0])
        elif is_certain or is_trusted or _is_named_like_a_copy(label):
            doubt = ""
        else:
            doubt = "" if self._values.has_changed(module) else _whether(label, origin)
        inside = root is self._model
        return ModuleCopy(
            label, root, name, origin,
            doubt=doubt, is_ambiguous=bool(rivals), is_registered=inside,
        )  # fmt: skip

    def _origins(self, root: nn.Module, name: str, module: nn.Module) -> Iterator[str]:
        """Yield the modules of the model that may be the origin of a module."""
        copies = [copy.path for copy in self.copies if copy.root is self._model]
        for origin in self._by_structure.get(structure_hash(module, self._structures), []):
            is_part = root is self._model and are_modules_overlapping(origin, name)
            if not is_part and not any(is_inside_module(origin, path) for path in copies):
                yield origin

    # ---------------------------------------------------------------- outside the model

    def _find_outside(self, name: str, value: object, *, is_trusted: bool) -> None:
        known = frozenset(self._known - {id(value)})
        for found in object_walk.walk_held_torch_objects(name, value, known):
            self.found.append(found)
            module = found.value
            if isinstance(module, nn.Module) and id(module) not in self._known:
                origin = self._declared.get(found.path)
                if origin is not None:
                    self._pair(found.path, module, "", origin)
                else:
                    self._find_in(found.path, module, is_trusted=is_trusted)
                self._known |= {id(each) for each in module.modules()}

    def _take_pairs(self, holder: object_walk.CopyHolder) -> None:
        """Take the copies that a holder knows."""
        names = {id(module): name for name, module in self._modules.items()}
        for module, copy in holder.pairs:
            if id(module) in names and id(copy) not in self._known:
                self._known |= {id(each) for each in copy.modules()}
                origin = names[id(module)]
                self._pair(f"{holder.name}'s copy of {origin or 'the model'}", copy, "", origin)

    def _take_needed(self, holder: object_walk.CopyHolder) -> None:
        """Note which modules a holder uses."""
        names = {id(module): name for name, module in self._modules.items()}
        for module in holder.needed:
            if id(module) in names:
                name = names[id(module)]
                reason = f"{holder.name} uses {name}, which therefore cannot be removed"
                self.restrictions.append(
                    CopyRestriction(name, f"{reason}; exclude the layer there", only_removal=True)
                )

    def _pair(self, label: str, root: nn.Module, path: str, origin: str) -> None:
        """Take a copy whose origin is known; note a restriction where it has another structure."""
        copy, module = root.get_submodule(path), self._modules.get(origin)
        if module is None:
            reason = f"the model has no module {origin!r}, which {label} is declared a copy of"
            self.restrictions.append(CopyRestriction("", f"{reason}; correct copies="))
        elif structure_hash(copy, self._structures) == structure_hash(module, self._structures):
            inside = root is self._model
            self._add(ModuleCopy(label, root, path, origin, is_registered=inside))
        elif is_pruned(module) and not is_pruned(copy):
            self._add(ModuleCopy(label, root, path, origin, is_unpruned=True))
        elif type(copy) is type(module) and _child_names(copy) == _child_names(module) != []:
            for name in _child_names(module):
                parts = [".".join(part for part in (each, name) if part) for each in (path, origin)]
                self._pair(label, root, parts[0], parts[1])
        elif has_identifying_weights(module):
            self.restrictions.append(
                CopyRestriction(
                    origin,
                    f"{label} has another structure than {origin or 'the model'}, so it cannot be "
                    "edited along; make it after all changes of the model, or train without it",
                )
            )

    def _add(self, copy: ModuleCopy) -> None:
        """Add a copy; two callbacks of one class get different names."""
        same = sum(each.holder.partition(" #")[0] == copy.holder for each in self.copies)
        self.copies.append(replace(copy, holder=f"{copy.holder} #{same + 1}") if same else copy)


def _child_names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


def _is_named_like_a_copy(label: str) -> bool:
    return any(word in label.lower() for word in NAMES_OF_COPIES)


def _whether(label: str, origin: str) -> str:
    return (
        f"{label} resembles {origin or 'the model'}, and has not changed so far: it may be updated "
        f"from {origin or 'the model'} later, or be a frozen network of its own; pass the option "
        f"copies={{{label!r}: {origin!r}}} to edit both, or copies={{{label!r}: None}} to "
        "edit one alone"
    )


def _which(label: str, origin: str, rival: str) -> str:
    return (
        f"{label} may be a copy of {origin} or of {rival}; pass the option copies={{{label!r}: "
        f"{origin!r}}} or copies={{{label!r}: {rival!r}}} to say which"
    )
