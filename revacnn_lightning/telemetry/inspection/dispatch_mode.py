"""The base of the package's dispatch modes."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["NoCompileDispatchMode"]


class NoCompileDispatchMode(TorchDispatchMode):
    """A `TorchDispatchMode` under which nothing is compiled, so torch need not import dynamo."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
