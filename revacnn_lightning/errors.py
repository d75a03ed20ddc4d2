"""All exceptions that this package raises on purpose.

::

    RevacnnError
    ├── SteeringError                 a request to change the network was not carried out
    │   ├── EditRefusedError          the request cannot be carried out; nothing was changed
    │   │   ├── StaleStructureError   the request refers to an older structure of the network
    │   │   ├── ObserverKeyError      the key only observes the run
    │   │   └── RunEndedError         the run has ended and carries out no more requests
    │   └── EditFailedError           the edit failed its verification and was rolled back
    ├── ProtocolError                 a message is malformed or cannot be sent
    │   └── ProtocolVersionError      the two sides use different protocol versions
    ├── ConnectionFileError           there is no run to attach to, or its file is unusable
    │   └── KeyRefusedError           the run does not admit the key: revoked, expired or unknown
    ├── RecordingError                a file is not a recording that can be read
    ├── RequestTimeoutError           the run did not reply in time
    └── MissingPackageError           an optional package is not installed

Every message says what was found and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "ConnectionFileError",
    "EditFailedError",
    "EditRefusedError",
    "KeyRefusedError",
    "MissingPackageError",
    "ObserverKeyError",
    "ProtocolError",
    "ProtocolVersionError",
    "RecordingError",
    "RequestTimeoutError",
    "RevacnnError",
    "RunEndedError",
    "StaleStructureError",
    "SteeringError",
]


class RevacnnError(Exception):
    """Base class of all exceptions of this package."""


class SteeringError(RevacnnError):
    """A request to change the network was not carried out; the network is unchanged."""


class EditRefusedError(SteeringError):
    """The request cannot be carried out; nothing was changed."""


class StaleStructureError(EditRefusedError):
    """The request refers to an older structure of the network, so its indices may be wrong."""


class ObserverKeyError(EditRefusedError):
    """The key of this client only observes the run; nothing was changed."""


class RunEndedError(EditRefusedError):
    """The run has ended and carries out no more requests."""


class EditFailedError(SteeringError):
    """The edit failed its verification and was rolled back."""


class ProtocolError(RevacnnError):
    """A message is malformed or cannot be sent."""


class ProtocolVersionError(ProtocolError):
    """The run and the viewer use different protocol versions."""


class ConnectionFileError(RevacnnError):
    """There is no run to attach to, or its connection file is unusable."""


class KeyRefusedError(ConnectionFileError):
    """The run does not admit the key of this client: it was revoked, has expired or is unknown."""


class RecordingError(RevacnnError):
    """A file is not a recording, or this version cannot read it."""


class RequestTimeoutError(RevacnnError):
    """The run did not reply in time."""


class MissingPackageError(RevacnnError, ImportError):
    """An optional package is not installed."""
