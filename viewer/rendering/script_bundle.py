"""The page's modules as one script: each as a file of its own would be one more request.

A hundred requests take a browser longer than all else before the first picture, and seconds over a
slow connection. The modules keep to the few forms of import and export that are understood here:

- ``import {name, other as alias} from "./path.js"``
- ``export const``, ``export function``, ``export async function``, ``export class``
- ``export {name} from "./path.js"``
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["bundle_modules", "modules_in_import_order"]

IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)"$', re.MULTILINE)
FORWARD = re.compile(r'^export \{([^}]*)\} from "([^"]+)"$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async function|function|const|class) ([\w$]+))", re.MULTILINE)
OTHER = re.compile(r"^(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)
OWN_URL = "import.meta.url"


def modules_in_import_order(folder: Path, *entries: str) -> list[str]:
    """Return the paths of modules and all that they import, each after those that it imports.

    Args:
        folder: the folder of the modules.
        entries: the paths in the folder of the modules to start with, such as ``"main.js"``.
    """
    found: dict[str, None] = {}  # in order

    def add(name: str) -> None:
        if name in found:
            return
        for imported in _imports(name, (folder / name).read_text(encoding="utf-8")):
            add(imported)
        found[name] = None

    for entry in entries:
        add(entry)
    return list(found)


def bundle_modules(folder: Path, entry: str) -> str:
    """Return one script that does what the module ``entry`` does.

    Where a module refers to its own address, the script refers to ``moduleFolder``, which has to be
    defined: the URL of the folder.

    Raises:
        ValueError: a module has an import or an export of another form.
    """
    names = modules_in_import_order(folder, entry)
    modules = [_wrapped(name, (folder / name).read_text(encoding="utf-8")) for name in names]
    return "\n".join(["const bundledModules = {}", *modules])


def _imports(name: str, text: str) -> Iterator[str]:
    for match in (*IMPORT.finditer(text), *FORWARD.finditer(text)):
        yield _resolve(name, match[2])


def _resolve(name: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _wrapped(name: str, text: str) -> str:
    """Return a module as the call of a function, which returns what the module exports."""
    exported = [match[2] for match in EXPORT.finditer(text)]
    for match in FORWARD.finditer(text):
        source = f'bundledModules["{_resolve(name, match[2])}"]'
        exported += [f"{one.strip()}: {source}.{one.strip()}" for one in match[1].split(",")]

    def assign(match: re.Match[str]) -> str:
        names = match[1].replace(" as ", ": ")
        return f'const {{{names}}} = bundledModules["{_resolve(name, match[2])}"]'

    text = EXPORT.sub(r"\1", FORWARD.sub("", IMPORT.sub(assign, text)))
    if unknown := OTHER.search(text):
        raise ValueError(f"{name}: {unknown[0]!r} is none of the forms of script_bundle.py")
    text = text.replace(OWN_URL, f'new URL("{name}", moduleFolder)')
    returned = f"return {{{', '.join(exported)}}}"
    return f'bundledModules["{name}"] = (() => {{\n{text}\n{returned}\n}})()'
