"""ReVACNN for Lightning: watch every filter of a CNN while it trains, and change the network.

Importing this package loads neither torch nor Lightning (a machine that only views needs
neither); each public name is loaded from its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from revacnn_lightning.callback import ReVACNN
    from revacnn_lightning.errors import EditRefusedError, RevacnnError
    from revacnn_lightning.protocol.client import Run, attach
    from revacnn_lightning.steering.checkpoint import load_edited

# public name -> the module that holds it
_HOMES = {
    "ReVACNN": "revacnn_lightning.callback",
    "EditRefusedError": "revacnn_lightning.errors",
    "RevacnnError": "revacnn_lightning.errors",
    "Run": "revacnn_lightning.protocol.client",
    "attach": "revacnn_lightning.protocol.client",
    "load_edited": "revacnn_lightning.steering.checkpoint",
}

__all__ = ["EditRefusedError", "ReVACNN", "RevacnnError", "Run", "attach", "load_edited"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
