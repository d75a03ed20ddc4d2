"""Loads an edited model from a checkpoint without a trainer."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import decimal
import fractions
import inspect
import pathlib
import re
import sys
import types
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import torch
from torch import nn

from revacnn_lightning.errors import SteeringError
from revacnn_lightning.steering.checkpoint import STATE_KEY, adopt_structure, find_edit_state

__all__ = ["load_edited", "read_checkpoint"]

M = TypeVar("M", bound=nn.Module)
File = str | Path | IO[bytes]

# Common values of hyperparameters. Unpickling them runs no code but their own.
SAFE_TYPES: list[type] = [
    argparse.Namespace, datetime.date, datetime.datetime, datetime.timedelta, decimal.Decimal,
    fractions.Fraction, pathlib.PurePosixPath, pathlib.PureWindowsPath, type(Path()), range, slice,
    types.SimpleNamespace, uuid.UUID,
]  # fmt: skip
# (module, class) of types of other packages, which are safe if the package is loaded.
SAFE_TYPES_OF_OTHERS = [
    ("lightning_fabric.utilities.data", "AttributeDict"),
    ("lightning.fabric.utilities.data", "AttributeDict"),
    ("omegaconf.dictconfig", "DictConfig"),
    ("omegaconf.listconfig", "ListConfig"),
    ("omegaconf.base", "ContainerMetadata"),
    ("omegaconf.base", "Metadata"),
    ("omegaconf.nodes", "AnyNode"),
    ("omegaconf.nodes", "BooleanNode"),
    ("omegaconf.nodes", "FloatNode"),
    ("omegaconf.nodes", "IntegerNode"),
    ("omegaconf.nodes", "StringNode"),
]
# Parts of the containers of omegaconf.
OMEGACONF_PARTS: list[Any] = [Any, bool, defaultdict, dict, float, int, list, str]


def load_edited(
    make: Callable[..., M],
    path: File,
    map_location: Any = "cpu",
    *,
    weights_only: bool | None = True,
    strict: bool | None = None,
    edits_from: File | None = None,
    **kwargs: Any,
) -> M:
    """Return the edited model of a checkpoint, in evaluation mode. Needs no Trainer.

    Args:
        make: the unedited model class, or a function that returns an unedited model. It is called
            with those of the checkpoint's hyperparameters that it accepts, and with ``kwargs``.
            Then the model's ``configure_model`` is called, if it has one.
        path: a checkpoint file.
        map_location: as for ``torch.load``.
        weights_only: as for ``torch.load``. By default only tensors, plain data and common types of
            hyperparameters are loaded, such as paths and namespaces; False also loads any other
            object, which may run code: set it only for a file that you trust.
        strict: whether the names of all weights must match; by default, as the model's
            ``strict_loading`` says, else True.
        edits_from: another checkpoint of the same structure, for a file with weights only that
            does not contain its edits.

    Raises:
        SteeringError: the file is not a checkpoint, holds objects that are not loaded by default,
            or ``make`` returns another network.
    """
    checkpoint = read_checkpoint(path, map_location, weights_only)
    weights = checkpoint.get("state_dict")
    if weights is None:
        raise SteeringError(f"{_name(path)} is not a checkpoint: it has no 'state_dict'")
    if edits_from is not None:
        state = find_edit_state(read_checkpoint(edits_from, "cpu", weights_only))
        checkpoint = {**checkpoint, STATE_KEY: state} if state is not None else checkpoint
    model = _make(make, checkpoint, kwargs)
    adopt_structure(model, checkpoint)
    if callable(hook := getattr(model, "on_load_checkpoint", None)):
        hook(checkpoint)
    strict = bool(getattr(model, "strict_loading", True)) if strict is None else strict
    try:
        model.load_state_dict(checkpoint["state_dict"], strict=strict)
    except RuntimeError as error:
        raise SteeringError(_why_not_loaded(path, checkpoint, error)) from error
    return model.eval()


def _why_not_loaded(path: File, checkpoint: Mapping[str, Any], error: Exception) -> str:
    if find_edit_state(checkpoint) is not None:
        return f"the weights do not fit the edited network: {error}"
    return (
        f"the weights do not fit: {error}. {_name(path)} contains no edits. If the network was "
        "edited, it was saved by a trainer without ReVACNN, or with weights only after training; "
        "pass edits_from=, another checkpoint of the same run"
    )


def read_checkpoint(
    path: File, map_location: Any = "cpu", weights_only: bool | None = True
) -> dict[str, Any]:
    """Read a checkpoint; by default only tensors, plain data and `SAFE_TYPES`.

    Raises:
        SteeringError: the file is not a checkpoint, or holds objects that are not loaded.
    """
    allow = getattr(torch.serialization, "safe_globals", None)  # since torch 2.5
    try:
        with (
            allow(_safe_types())
            if allow and weights_only is not False
            else contextlib.nullcontext()
        ):
            checkpoint = torch.load(path, map_location=map_location, weights_only=weights_only)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises many types for a file that is not a checkpoint
        raise SteeringError(_why_not_read(path, error)) from error
    if not isinstance(checkpoint, dict):
        raise SteeringError(f"{_name(path)} is not a checkpoint: it has no 'state_dict'")
    return checkpoint


def _safe_types() -> list[Any]:
    loaded = [
        getattr(sys.modules[module], name, None)
        for module, name in SAFE_TYPES_OF_OTHERS
        if module in sys.modules
    ]
    parts = OMEGACONF_PARTS if "omegaconf" in sys.modules else []
    return [*SAFE_TYPES, *parts, *(each for each in loaded if isinstance(each, type))]


def _why_not_read(path: File, error: Exception) -> str:
    _, is_refused, reason = str(error).partition("WeightsUnpickler error: ")
    if not is_refused:
        return f"{_name(path)} is not a readable checkpoint: {error}"
    unsafe = re.search(r"GLOBAL (\S+)", reason)
    what = unsafe[1] if unsafe else reason.strip().partition("\n")[0]
    return (
        f"{_name(path)} contains {what}, which is not loaded, because it could run code. If you "
        "trust the file, pass weights_only=False, or allow the type with "
        "torch.serialization.safe_globals"
    )


def _name(path: File) -> str:
    return Path(path).name if isinstance(path, (str, Path)) else "the file"


def _make(make: Callable[..., M], checkpoint: Mapping[str, Any], kwargs: dict[str, Any]) -> M:
    """Return the unedited model, with all its layers."""
    hyper_parameters = dict(checkpoint.get("hyper_parameters") or {})
    argument = checkpoint.get("hparams_name")
    if argument in inspect.signature(make).parameters and argument != "kwargs":
        kind = checkpoint.get("hparams_type")
        whole = kind(hyper_parameters) if callable(kind) else hyper_parameters
        hyper_parameters = {argument: whole}
    model = make(**{**_accepted(make, hyper_parameters), **kwargs})
    if callable(configure := getattr(model, "configure_model", None)):
        configure()
    return model


def _accepted(make: Callable[..., Any], hyper_parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters that ``make`` has an argument for."""
    parameters = inspect.signature(make).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(hyper_parameters)
    named = {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}
    return {key: value for key, value in hyper_parameters.items() if key in named}
