"""Turns every exception that is not ours into one that says that nothing was changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from revacnn_lightning.errors import RevacnnError, SteeringError

__all__ = ["only_steering_errors"]

log = logging.getLogger(__name__)


@contextmanager
def only_steering_errors(error_class: type[SteeringError]) -> Iterator[None]:
    """Raise ``error_class`` in place of any exception inside that is not a `RevacnnError`.

    Whatever is changed inside must be changed in a transaction, which the exception has rolled
    back by then. The log gets the traceback.
    """
    try:
        yield
    except RevacnnError:
        raise
    except Exception as error:  # a bug of ours must not reach the training
        log.warning("Internal error in an edit; it was rolled back", exc_info=True)
        raise error_class(
            f"internal error ({type(error).__name__}: {error}); nothing was changed. Please report "
            "it, with the traceback in the log"
        ) from error
