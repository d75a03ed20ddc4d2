"""Requests made in Python are validated like those that arrive over the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import numpy as np
import pytest

from revacnn_lightning import (
    AddFilters,
    ControlRun,
    EditRefusedError,
    Freeze,
    InsertLayer,
    Redo,
    Reinitialize,
    RemoveFilters,
    RemoveLayer,
    SetFilter,
    SetGradientClipping,
    SetHyperparameter,
    Undo,
)
from revacnn_lightning.protocol.encoding import decode, encode
from revacnn_lightning.protocol.inspection_requests import OwnIndex, Patch
from revacnn_lightning.protocol.messages import Applied, PlanSummary, Request
from revacnn_lightning.protocol.requests import InspectLayer, RequestBody
from revacnn_lightning.protocol.trial_requests import TrialEdit
from revacnn_lightning.protocol.validation import validate_request


@pytest.mark.parametrize(
    "body",
    [
        AddFilters("conv1", 2, split_from=0),
        RemoveFilters("conv1", [1, 2]),
        InsertLayer("conv1", "dirac"),
        Freeze("conv1"),
        SetFilter("conv1", 0, [1, 2], [0.5, 0.5]),
        Undo(2),
        Redo(2),
        Reinitialize("conv1", [1], zero_outgoing=False),
        ControlRun("step"),
        SetHyperparameter(0, 0, "lr", 0.1),
        SetGradientClipping(1.0, "value"),
        SetGradientClipping(None),
        InspectLayer("conv1", kernel_slice="mean"),
    ],
    ids=lambda body: type(body).__name__,
)
def test_valid_requests_are_unchanged(body: Any):
    assert validate_request(body) == body
    request = Request("id", body)
    assert decode(encode(request)) == request


def test_numpy_values_become_plain_ones():
    body = RemoveFilters("conv1", np.array([1, 2]))  # type: ignore[arg-type]
    assert validate_request(body) == RemoveFilters("conv1", [1, 2])
    assert validate_request(AddFilters("conv1", np.int64(3))) == AddFilters("conv1", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (InsertLayer("conv1", "conv"), "kind is 'conv'; it must be one of 'residual', 'dirac'"),  # type: ignore[arg-type]
        (ControlRun("wait"), "action is 'wait'; it must be one of 'send_state', 'pause'"),  # type: ignore[arg-type]
        (SetHyperparameter(0, 0, "momentum", 0.9), "one of 'lr', 'weight_decay'"),  # type: ignore[arg-type]
        (SetGradientClipping(1.0, "max"), "one of 'norm', 'value'"),  # type: ignore[arg-type]
        (InspectLayer("conv1", kernel_slice="first"), "one of 'strongest', 'mean'"),  # type: ignore[arg-type]
        (AddFilters("conv1", "2"), r"Expected `int`, got `str` - at `\$.count`"),  # type: ignore[arg-type]
        (AddFilters("conv1", 1.5), r"Expected `int`, got `float` - at `\$.count`"),  # type: ignore[arg-type]
        (RemoveFilters("conv1", 3), r"Expected `array`, got `int` - at `\$.filters`"),  # type: ignore[arg-type]
        (RemoveFilters(None, [0]), r"Expected `str`, got `null` - at `\$.layer`"),  # type: ignore[arg-type]
        # An id of its own: the object's address would differ between processes.
        pytest.param(RemoveLayer(object()), "unexpected object", id="object"),  # type: ignore[arg-type]
        (SetFilter("conv1", 0, [1], ["much"]), r"Expected `float`, got `str` - at `\$.weights"),  # type: ignore[list-item]
        ("remove conv1", "is not a request; the requests are AddFilters, RemoveFilters"),
        (None, "is not a request"),
        (Applied("id", 0, 0, PlanSummary("")), "is not a request"),
    ],
    ids=str,
)
def test_invalid_requests_are_refused_with_the_reason(body: Any, reason: str):
    with pytest.raises(EditRefusedError, match=reason):
        validate_request(body)


def _example(hint: Any) -> Any:
    """Return a valid value of a field."""
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if get_args(hint) and get_origin(get_args(hint)[0]) is Annotated:
        return _example(get_args(hint)[0])
    examples = [
        (OwnIndex, -1), (list[int], [1]), (list[float], [0.5]), (list[Patch], [Patch(0, 0, 1, 1)]),
        (tuple[int, int], (1, 1)), (bytes, bytes(3)), (str, "conv1"), (int, 2), (float, 0.5),
        (bool, True), (list[TrialEdit], [RemoveFilters("conv1", [0])]),
    ]  # fmt: skip
    return next(value for kind, value in examples if kind in (hint, *get_args(hint)))


@pytest.mark.parametrize("kind", get_args(RequestBody), ids=lambda kind: kind.__name__)
def test_every_field_of_every_request_is_validated(kind: Any):
    valid = {field.name: _example(field.type) for field in msgspec.structs.fields(kind)}
    assert validate_request(kind(**valid)) == kind(**valid)
    for name in valid:
        with pytest.raises(EditRefusedError, match=f"invalid {kind.__name__}"):
            validate_request(kind(**{**valid, name: object()}))
