"""Gradient clipping on the wire, also where one side does not know it."""

from __future__ import annotations

import msgspec
import pytest

from revacnn_lightning.errors import ProtocolError
from revacnn_lightning.protocol.encoding import decode, encode
from revacnn_lightning.protocol.messages import GradientClipping, Request, Status
from revacnn_lightning.protocol.requests import SetGradientClipping, is_steering


def status(clipping: GradientClipping | None) -> Status:
    return Status("run", "training", 3, 0, 0.0, gradient_clipping=clipping)


def test_a_status_says_how_gradients_are_clipped() -> None:
    for clipping in (
        None,
        GradientClipping(None, refusal="a loop"),
        GradientClipping(0.5, "value"),
    ):
        assert decode(encode(status(clipping))) == status(clipping)


def test_the_status_of_an_older_run_says_nothing_of_it() -> None:
    frames = encode(status(GradientClipping(1.0)))
    fields = msgspec.msgpack.decode(frames[-1])
    found = fields.pop("gradient_clipping")
    assert found == {"value": 1.0, "algorithm": "norm", "note": "", "refusal": ""}
    assert decode([*frames[:-1], msgspec.msgpack.encode(fields)]) == status(None)


def test_an_algorithm_of_a_newer_run_is_shown_by_its_name() -> None:
    newer = GradientClipping(2.0, "percentile")
    received = decode(encode(status(newer)))
    assert isinstance(received, Status)
    assert received.gradient_clipping is not None
    assert received.gradient_clipping.describe() == "percentile 2"


def test_a_field_of_a_newer_request_is_refused() -> None:
    """What a run does not know must not be left out of what it does."""
    frames = encode(Request("id", SetGradientClipping(1.0)))
    fields = msgspec.msgpack.decode(frames[-1])
    fields["body"]["group"] = 1
    with pytest.raises(ProtocolError, match="group"):
        decode([*frames[:-1], msgspec.msgpack.encode(fields)])


def test_an_observer_may_plan_clipping_but_not_set_it() -> None:
    assert is_steering(SetGradientClipping(1.0))
    assert not is_steering(SetGradientClipping(1.0), dry_run=True)
