"""Every error this package raises on purpose.

::

    RevacnnError
    ├── SteeringError               about changing the network
    │   ├── Refused                 the request cannot be done; nothing was touched
    │   │   └── StaleStructure      it was made for an older structure of the network
    │   └── EditFailed              the edit was begun, failed its check, and was rolled back
    ├── ProtocolError               a message that cannot be understood
    │   └── ProtocolVersionError    the two sides speak different protocol versions
    ├── ConnectionFileError         no run to attach to, or its connection file is unusable
    └── RequestTimeout              the training did not answer in time

Messages are sentences that say what was found and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "ConnectionFileError",
    "EditFailedError",
    "EditRefusedError",
    "ProtocolError",
    "ProtocolVersionError",
    "RequestTimeoutError",
    "RevacnnError",
    "StaleStructureError",
    "SteeringError",
]


class RevacnnError(Exception):
    """Base of all errors of this package."""


class SteeringError(RevacnnError):
    """A request to change the network was not carried out; the network is as it was before."""


class EditRefusedError(SteeringError):
    """The request cannot be carried out, for the reason given; nothing was touched."""


class StaleStructureError(EditRefusedError):
    """The request was made for an older structure of the network, so its indices may be wrong."""


class EditFailedError(SteeringError):
    """The edit did not pass its verifying forward and was rolled back."""


class ProtocolError(RevacnnError):
    """A message could not be understood."""


class ProtocolVersionError(ProtocolError):
    """The training and the viewer speak different versions of the protocol."""


class ConnectionFileError(RevacnnError):
    """There is no run to attach to, or its connection file cannot be used."""


class RequestTimeoutError(RevacnnError):
    """The training did not answer a request in time."""
