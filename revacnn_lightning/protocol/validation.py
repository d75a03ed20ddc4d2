"""Check requests that were made in Python, where nothing enforces the types of their fields."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from revacnn_lightning.errors import EditRefusedError
from revacnn_lightning.protocol.requests import RequestBody

__all__ = ["validate_request"]


def validate_request(body: Any) -> RequestBody:
    """Check a request, and return it as the other side of the wire would decode it.

    NumPy scalars and arrays become plain numbers and lists.

    Raises:
        EditRefusedError: a field has an invalid type or value, or ``body`` is not a request.
    """
    if not isinstance(body, RequestBody):
        names = ", ".join(kind.__name__ for kind in get_args(RequestBody))
        raise EditRefusedError(f"{body!r} is not a request; the requests are {names}")
    _check_choices(body)
    name = type(body).__name__
    try:
        encodable = msgspec.to_builtins(body, enc_hook=_to_plain)
        request: RequestBody = msgspec.convert(encodable, type(body))
    except (msgspec.ValidationError, TypeError) as error:
        raise EditRefusedError(f"invalid {name}: {error}; see help({name})") from error
    return request


def _check_choices(body: RequestBody) -> None:
    """msgspec reports an invalid choice without the valid ones, so report them here."""
    for name, hint in get_type_hints(type(body)).items():
        if get_origin(hint) is Literal and getattr(body, name) not in get_args(hint):
            valid = ", ".join(map(repr, get_args(hint)))
            raise EditRefusedError(
                f"invalid {type(body).__name__}: {name} is {getattr(body, name)!r}; "
                f"it must be one of {valid}"
            )


def _to_plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy and torch
        return value.tolist()
    raise TypeError(f"unexpected {type(value).__name__} {value!r}")
