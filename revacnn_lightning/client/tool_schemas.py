"""JSON schemas of the arguments of tools, from the structs that take them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from revacnn_lightning.errors import EditRefusedError

__all__ = ["decode_arguments", "input_schema", "snake_case", "tool_description"]


def decode_arguments(tool_type: type[Struct], arguments: Mapping[str, Any]) -> Any:
    """Return the arguments of a tool as a struct of the given type.

    Raises:
        EditRefusedError: an argument is unknown, missing or invalid.
    """
    fields = dict(arguments)
    tag = tool_type.__struct_config__.tag
    if tag is not None:
        fields["type"] = tag
    try:
        return msgspec.convert(fields, tool_type)
    except msgspec.ValidationError as error:
        raise EditRefusedError(f"invalid arguments: {error}") from error


def input_schema(tool_type: type[Struct]) -> dict[str, Any]:
    """Return the JSON schema of a struct's fields, without its tag."""
    definitions = dict(msgspec.json.schema(tool_type)["$defs"])
    schema: dict[str, Any] = dict(definitions.pop(tool_type.__name__))
    properties = {name: one for name, one in schema["properties"].items() if name != "type"}
    required = [name for name in schema.get("required", []) if name != "type"]
    whole = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return {**whole, "$defs": definitions} if definitions else whole


def tool_description(tool_type: type[Struct]) -> str:
    """Return the docstring of a struct as the description of its tool."""
    return inspect.cleandoc(tool_type.__doc__ or "").replace("`", "")


def snake_case(name: str) -> str:
    """Return a class name as the name of a tool: ``AddFilters`` becomes ``add_filters``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
