"""Code that ``torch.compile`` has made of a network before an edit."""

from __future__ import annotations

import sys

__all__ = ["reset_compiled_code"]


def reset_compiled_code() -> None:
    """Make ``torch.compile`` compile again.

    Compiled code ignores added and removed hooks. Code for former sizes counts against
    ``torch.compiler.config.recompile_limit``, after which a network silently runs without compiled
    code, or raises with ``fullgraph=True``.

    Where nothing is compiled there is nothing to reset: with a GPU, it would first import torch's
    compiler, which takes seconds.
    """
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and getattr(dynamo.convert_frame, "FRAME_COUNTER", True):
        dynamo.reset()
