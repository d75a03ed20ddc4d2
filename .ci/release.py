"""Check that a release is consistent, and print its notes: ``python .ci/release.py [TAG]``.

The package, ``CITATION.cff`` and the newest section of ``CHANGELOG.md`` must have one version, and
the two files one date. Given a tag, it must be this version, and nothing may be left under
*Unreleased*.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
SECTION = re.compile(r"^## \[(.+?)\](?: - (\S+))?\n(.*?)(?=^## \[|\Z)", re.MULTILINE | re.DOTALL)


class Section(NamedTuple):
    """A section of the changelog; ``date`` is "" of what is not released."""

    version: str
    date: str
    notes: str


def sections(changelog: str) -> list[Section]:
    """Return the sections of a changelog, the newest first."""
    return [Section(one[1], one[2] or "", one[3].strip()) for one in SECTION.finditer(changelog)]


def cited(citation: str, field: str) -> str:
    """Return the value of a field of CITATION.cff; "" if there is none."""
    found = re.search(rf'^{field}: "?([^"\n]+)"?$', citation, re.MULTILINE)
    return "" if found is None else found[1]


def find_problems(root: Path, tag: str = "") -> list[str]:
    """Return what is not consistent, in words."""
    package = (root / "revacnn_lightning" / "__init__.py").read_text(encoding="utf-8")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    unreleased, newest, *_ = sections((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    found = VERSION.search(package)
    version = "" if found is None else found[1]
    pairs = {
        "CHANGELOG.md has the version": (newest.version, version),
        "CITATION.cff has the version": (cited(citation, "version"), version),
        "CITATION.cff has the date": (cited(citation, "date-released"), newest.date),
    }
    if tag:
        pairs["the tag is"] = (tag, f"v{version}")
    problems = [
        f"{what} {has!r}, not {must!r}" for what, (has, must) in pairs.items() if has != must
    ]
    if unreleased.version != "Unreleased":
        problems.append("the first section of CHANGELOG.md is not [Unreleased]")
    elif tag and unreleased.notes:
        problems.append("CHANGELOG.md has entries under [Unreleased]")
    return problems


def main(arguments: list[str]) -> int:
    """Print the notes of the newest version, or what is not consistent."""
    problems = find_problems(ROOT, *arguments[:1])
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(sections((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))[1].notes)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
