"""Write the tables of protocol.md from the structs and limits in the code.

python docs/protocol_tables.py           update protocol.md
python docs/protocol_tables.py --check   exit with 1 if it is not up to date
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from msgspec import NODEFAULT, Struct
from msgspec import inspect as types

from revacnn_lightning.protocol import (
    access_messages,
    authenticator,
    class_lens,
    encoding,
    evidence,
    forwarder,
    forwarder_main,
    growth,
    inspection_requests,
    inspections,
    messages,
    prices,
    rank_messages,
    requests,
    run_sockets,
)
from revacnn_lightning.protocol.connection_file import Connection

PAGE = Path(__file__).parent / "protocol.md"
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
COMMENT = re.compile(r"#\s*(.*)$")
FIELD = re.compile(r"^    (\w+): ")

TELEMETRY = (
    messages.Snapshot,
    messages.Structure,
    messages.Status,
    inspections.LayerDetail,
    inspections.FilterInspection,
    inspections.ImagePass,
    prices.FilterPrices,
    evidence.LayerEvidence,
    growth.GrowthGains,
    class_lens.ClassLens,
    class_lens.ClassAnswers,
    class_lens.Confusion,
    access_messages.RequestOutcome,
    rank_messages.TroubledRanks,
    rank_messages.RankValues,
)
LIMITS = (
    (encoding.MAX_REQUEST_BYTES, "bytes of a frame of a request; a longer one disconnects you"),
    (run_sockets.MAX_SUBSCRIPTION_BYTES, "bytes of a subscription; a longer one disconnects you"),
    (inspection_requests.MAX_PICTURE_SIDE, "pixels of the height and the width of a picture"),
    (inspection_requests.MAX_CHUNK_BYTES, "bytes of its pixels in a request"),
    (inspection_requests.MAX_PATCHES, "patches of an image that is painted over"),
    (messages.MAX_ID_LENGTH, "characters of the `id` of a request"),
    (run_sockets.CLIENT_RATE, "requests per second of a client; further ones are refused"),
    (run_sockets.CLIENT_BURST, "requests of a client that may arrive together"),
    (authenticator.RATE, "connections per second of all clients; further ones wait"),
    (
        forwarder_main.MAX_CONNECTIONS,
        "connections to each TCP port, and for local requests",
    ),
    (
        forwarder.TCP.rates_and_bursts[1][0],
        "bytes of requests per second of a client by TCP; others wait",
    ),
    (
        forwarder.LOCAL.rates_and_bursts[0][0],
        "bytes of requests per second of a local client; others wait",
    ),
    (run_sockets.STATE_COST, "requests that `send_state` counts as"),
    (run_sockets.REPLY_QUEUE, "replies that wait for a client; more are dropped"),
    (run_sockets.SEND_QUEUE, "telemetry messages that wait for a client; more are dropped"),
    (encoding.MAX_FRAMES, "frames of a message of the run"),
    (encoding.MAX_HEADER_BYTES, "bytes of a header of the run"),
    (encoding.MAX_BUFFER_BYTES, "bytes of all buffers of a message of the run"),
)


def render(page: str) -> str:
    """Return the page with its tables up to date."""
    return BLOCK.sub(lambda block: block[1] + "\n" + BLOCKS[block[2]]() + "\n" + block[3], page)


# ---------------------------------------------------------------------- blocks


def connection_block() -> str:
    return table_of(Connection)


def request_block() -> str:
    return table_of(messages.Request)


def edits_block() -> str:
    return "\n".join(section(kind, 4) for kind in get_args(requests.Edit))


def commands_block() -> str:
    return "\n".join(section(kind, 4) for kind in get_args(requests.Command))


def keys_block() -> str:
    return "\n".join(section(kind, 4) for kind in get_args(requests.KeyCommand))


def access_block() -> str:
    return section(access_messages.Access, 3)


def replies_block() -> str:
    return "\n".join(section(kind, 3) for kind in get_args(messages.Reply))


def telemetry_block() -> str:
    return "\n".join(section(kind, 3) for kind in TELEMETRY)


def parts_block() -> str:
    """The structs that messages contain."""
    roots = (*TELEMETRY, *get_args(messages.Reply), *get_args(requests.Command))
    return "\n".join(section(kind, 4) for kind in parts_of(roots))


def limits_block() -> str:
    rows = ((f"{value:,.0f}", meaning) for value, meaning in LIMITS)
    return table(("limit", "of"), rows)


BLOCKS = {
    "connection": connection_block,
    "request": request_block,
    "edits": edits_block,
    "commands": commands_block,
    "keys": keys_block,
    "replies": replies_block,
    "access": access_block,
    "telemetry": telemetry_block,
    "parts": parts_block,
    "limits": limits_block,
}


# ---------------------------------------------------------------------- structs


def section(kind: type[Struct], level: int) -> str:
    """Return a heading, the docstring and the table of a struct."""
    text, _ = docstring_of(kind)
    return f"{'#' * level} `{wire_name(kind)}`\n\n{text}\n\n{table_of(kind)}"


def wire_name(kind: type[Struct]) -> str:
    """Return the topic of a message, the type of a request, or the name of a part."""
    return str(kind.__struct_config__.tag or kind.__name__)


def table_of(kind: type[Struct]) -> str:
    """Return a row per field: its name, type and default on the wire, and its meaning."""
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    comments = comments_of(kind)
    if not info.fields:
        return "No fields.\n"
    rows = (
        (
            f"`{one.encode_name}`",
            type_name(one.type),
            default_of(one),
            comments.get(one.name, "") if one.name == one.encode_name else "",
        )
        for one in info.fields
    )
    return table(("field", "type", "default", "meaning"), rows)


def default_of(field: types.Field) -> str:
    if field.required:
        return "required"
    if field.default_factory is not NODEFAULT:
        value = field.default_factory()
        if isinstance(value, (np.ndarray, float, Struct)):  # empty, or the present time
            return "optional"
        return f"`{json.dumps(msgspec.to_builtins(value))}`"
    return f"`{json.dumps(field.default)}`"


def type_name(kind: types.Type) -> str:
    """Return the name of a type, as a reader of any language understands it."""
    if isinstance(kind, types.UnionType):
        return " or ".join(type_name(one) for one in kind.types if not is_request(one)) or "request"
    if isinstance(kind, types.LiteralType):
        return " or ".join(f'`"{value}"`' for value in kind.values)
    if isinstance(kind, (types.ListType, types.VarTupleType)):
        return f"list of {type_name(kind.item_type)}"
    if isinstance(kind, types.TupleType):
        return f"({', '.join(map(type_name, kind.item_types))})"
    if isinstance(kind, types.DictType):
        return f"map of string to {type_name(kind.value_type)}"
    if isinstance(kind, types.StructType):
        return f"[{wire_name(kind.cls)}](#{wire_name(kind.cls).lower()})"
    if isinstance(kind, types.CustomType):
        return "array"
    return SIMPLE_TYPES[type(kind)]


SIMPLE_TYPES: dict[type, str] = {
    types.BytesType: "bytes",
    types.StrType: "string",
    types.IntType: "integer",
    types.FloatType: "number",
    types.BoolType: "boolean",
    types.NoneType: "null",
}


def is_request(kind: types.Type) -> bool:
    return isinstance(kind, types.StructType) and kind.cls in get_args(requests.RequestBody)


def parts_of(kinds: Iterable[type[Struct]]) -> list[type[Struct]]:
    """Return the structs in the fields of these structs, and in theirs, in order."""
    found: dict[type[Struct], None] = {}

    def visit(kind: types.Type) -> None:
        if isinstance(kind, types.StructType):
            if kind.cls not in kinds and not is_request(kind):
                found[kind.cls] = None
            for one in kind.fields:
                visit(one.type)
        for name in ("types", "item_types"):
            for inner in getattr(kind, name, ()):
                visit(inner)
        for name in ("item_type", "value_type"):
            if hasattr(kind, name):
                visit(getattr(kind, name))

    kinds = tuple(kinds)
    for kind in kinds:
        visit(types.type_info(kind))
    return list(found)


# ---------------------------------------------------------------------- meanings


def comments_of(kind: type[Struct]) -> dict[str, str]:
    """Return what the comments at the fields, and the docstring's attributes, say of each field."""
    comments: dict[str, str] = {}
    before: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        comment = COMMENT.search(line)
        if found := FIELD.match(line):
            text = " ".join([*before, *([comment[1]] if comment else [])])
            comments[found[1]] = markdown(text, kind)
            before = []
        elif comment and line.strip().startswith("#"):
            before.append(comment[1])
        else:
            before = []
    return {**comments, **docstring_of(kind)[1]}


def docstring_of(kind: type[Struct]) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring, and what its section of attributes says."""
    text, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    attributes: dict[str, str] = {}
    name = ""
    for line in listed.splitlines():
        if found := re.match(r"^    (\w+): (.*)", line):
            name = found[1]
            attributes[name] = found[2]
        elif name:
            attributes[name] += f" {line.strip()}"
    return markdown(text.strip(), kind), {
        key: markdown(value, kind) for key, value in attributes.items()
    }


def markdown(text: str, kind: type[Struct]) -> str:
    """Return a docstring's text in Markdown, with names as they are on the wire."""
    # Messages are named by their topics, whatever module of Python they are in.
    text = re.sub(r"`[a-z_]+\.([A-Z]\w+)`", r"`\1`", text.replace("``", "`"))
    names = {one.name: one.encode_name for one in msgspec.structs.fields(kind)}
    names |= {kind.__name__: wire_name(kind) for kind in get_args(messages.Message)}
    names |= {"None": "null", "True": "true", "False": "false"}
    text = re.sub(r"`(\w+)`", lambda found: f"`{names.get(found[1], found[1])}`", text)
    return re.sub(r"\b(None|True|False)\b", lambda found: names[found[1]], text)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def lines() -> Iterator[str]:
        names = list(columns)
        yield f"| {' | '.join(names)} |"
        yield f"|{'---|' * len(names)}"
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"

    return "\n".join(lines()) + "\n"


def main(arguments: list[str]) -> int:
    before = PAGE.read_text(encoding="utf-8")
    after = render(before)
    if "--check" in arguments:
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
