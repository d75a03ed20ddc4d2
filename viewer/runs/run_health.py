"""What a run is doing."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["RunStatus"]


class RunStatus(Struct, frozen=True):
    """What a run is doing, as shown in the page's header.

    Attributes:
        kind: selects the color of the dot: ``waiting``, ``connecting``, ``training``,
            ``validating``, ``paused``, ``silent`` (connected, but no message arrives),
            ``unreachable`` (not connected), ``refused`` (its key is not admitted), ``finished``,
            ``failed``, ``gone`` or ``recording``, which is a run that ended before.
        text: description for the user.
    """

    kind: str
    text: str

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended and accepts no more requests."""
        return self.kind in ("finished", "failed", "gone", "recording")

    @property
    def is_final(self) -> bool:
        """Whether the run will accept no request from this viewer any more."""
        return self.has_ended or self.kind == "refused"

    @property
    def refusal(self) -> str:
        """Why the run receives no requests, as a sentence; "" if it does."""
        if self.kind == "recording":
            return "This is a recording: it cannot be edited or controlled."
        if self.has_ended:
            return f"The run has ended: {self.text}"
        if self.kind in ("unreachable", "refused"):
            return f"The training receives no changes now: {self.text}."
        return ""
