"""What a training may leave behind: hooks, wrapped methods, modes, patches, ports, threads."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from benchmarks.left_alone.training import Training

__all__ = ["global_torch_state", "hooks_and_attributes_on", "still_open_endpoints"]

# Namespaces in which no function may be replaced.
PATCHABLE: tuple[Any, ...] = (
    torch, torch.Tensor, torch.nn.functional, torch.autograd, torch.autograd.graph, torch.random,
    nn.Module, nn.Conv2d, nn.Linear, nn.Parameter, Optimizer, torch.optim.lr_scheduler.LRScheduler,
    pl.Trainer, pl.LightningModule, pl.LightningDataModule,
)  # fmt: skip
THREAD_SECONDS = 5.0  # a thread may take a moment to end


def hooks_and_attributes_on(training: Training) -> dict[str, str]:
    """Return what hangs on the modules, parameters and optimizers: place -> number or names."""
    found: dict[str, str] = {}
    for i, root in enumerate(training.modules):
        for name, module in root.named_modules():
            found |= {f"module {i} {name} {k}": v for k, v in _hooks_of(module).items()}
        for name, parameter in root.named_parameters():
            found |= {f"module {i} {name} {k}": v for k, v in _tensor_hooks(parameter).items()}
    for i, trainer in enumerate(training.trainers):
        for j, optimizer in enumerate(trainer.optimizers):
            found |= {f"optimizer {i}.{j} {k}": v for k, v in _hooks_of(optimizer).items()}
    return found


def _hooks_of(owner: nn.Module | Optimizer) -> dict[str, str]:
    attributes = vars(owner)
    found = {"attributes": str(sorted(k for k in attributes if not k.startswith("_fabric")))}
    for key, value in attributes.items():
        if "hooks" in key and hasattr(value, "__len__"):
            found[key] = str(len(value))
        elif callable(value) and not isinstance(value, (nn.Module, type)):
            found[key] = getattr(value, "__qualname__", type(value).__name__)
    return found


def _tensor_hooks(tensor: torch.Tensor) -> dict[str, str]:
    keys = ("_backward_hooks", "_post_accumulate_grad_hooks")
    found = {key: str(len(getattr(tensor, key, None) or ())) for key in keys}
    return {**found, "attributes": str(sorted(k for k in vars(tensor) if "dynamo" not in k))}


def global_torch_state() -> dict[str, Any]:
    """Return torch's global hooks, modes and flags, and the functions that can be patched."""
    owners = ("torch.nn.modules.module", "torch.optim.optimizer")
    found: dict[str, Any] = {
        f"global {name}": len(value)
        for owner in owners
        for name, value in vars(import_module(owner)).items()
        if name.startswith("_global_") and hasattr(value, "__len__")
    }
    found |= {
        "function modes": torch.overrides._len_torch_function_stack(),  # type: ignore[attr-defined]
        "dispatch modes": len(_get_current_dispatch_mode_stack()),
        "saved tensor hooks": torch._C._autograd._top_saved_tensors_default_hooks(True) is not None,
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "threads of torch": torch.get_num_threads(),
    }
    for owner in PATCHABLE:
        found |= {f"{owner.__name__}.{k}": id(v) for k, v in vars(owner).items() if callable(v)}
    return found


def new_threads(before: Iterable[threading.Thread]) -> list[str]:
    """Return the names of the threads that have been started and do not end."""
    deadline = time.monotonic() + THREAD_SECONDS
    while new := set(threading.enumerate()) - set(before):
        if time.monotonic() > deadline:
            return sorted(thread.name for thread in new)
        time.sleep(0.01)
    return []


def still_open_endpoints(endpoints: Iterable[str]) -> list[str]:
    """Return those of the endpoints, such as ``tcp://127.0.0.1:4001``, that are still open."""
    deadline = time.monotonic() + THREAD_SECONDS
    open_ports = list(endpoints)
    while open_ports and time.monotonic() < deadline:
        open_ports = [endpoint for endpoint in open_ports if _accepts(endpoint)]
        if open_ports:
            time.sleep(0.05)
    return open_ports


def _accepts(endpoint: str) -> bool:
    if endpoint.startswith("ipc://"):
        return Path(endpoint.removeprefix("ipc://")).exists()
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def connection_file_names(runtime: Path) -> list[str]:
    """Return the names of the files in a runtime directory."""
    return sorted(path.name for path in runtime.rglob("*")) if runtime.exists() else []
