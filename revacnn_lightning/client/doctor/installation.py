"""Checks of what is installed."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from revacnn_lightning import __version__
from revacnn_lightning.client.doctor.finding import Finding
from revacnn_lightning.errors import RevacnnError
from revacnn_lightning.protocol.base_socket import has_encryption, libzmq_version
from revacnn_lightning.protocol.messages import PROTOCOL_VERSION

__all__ = ["check_installation"]

DISTRIBUTION = "revacnn-lightning"
# What brings a package -> the packages, and what it is for.
EXTRAS = {
    "train": (("torch", "pytorch-lightning", "scipy"), "training"),
    "viewer": (("bokeh", "tornado", "scikit-learn", "umap-learn", "openTSNE"), "viewing"),
    "inspect": (("captum",), "attribution of activations"),
    "record": (("mcap",), "recordings"),
    "mcp": (("mcp",), "agents"),
    "tls": (("cryptography",), "the certificate of `revacnn view --self-signed`"),
}
REQUIRED = ("msgspec", "numpy", "pyzmq")
MIN_PYTHON = (3, 10)


def check_installation(find_viewer: Callable[[], Path]) -> Iterator[Finding]:
    """Yield findings about versions and packages.

    Args:
        find_viewer: returns the folder of the Bokeh application, or raises `RevacnnError`.
    """
    yield Finding("ReVACNN", "ok", f"release {__version__}, protocol {PROTOCOL_VERSION}")
    yield _check_python()
    yield from (_check_package(name, DISTRIBUTION) for name in REQUIRED)
    yield _check_curve()
    for extra, (packages, purpose) in EXTRAS.items():
        yield from _check_extra(extra, packages, purpose)
    if find_spec("bokeh") is not None:
        yield _check_viewer(find_viewer)


def _check_python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= MIN_PYTHON:
        return Finding("Python", "ok", version)
    needed = ".".join(map(str, MIN_PYTHON))
    return Finding("Python", "problem", version, f"use Python {needed} or newer")


def _check_curve() -> Finding:
    version = f"libzmq {libzmq_version()}"
    if has_encryption():
        return Finding("encryption", "ok", f"{version} with CURVE")
    advice = "install pyzmq from a wheel: pip install --force-reinstall --only-binary :all: pyzmq"
    return Finding("encryption", "problem", f"{version} without CURVE", advice)


def _check_extra(extra: str, packages: tuple[str, ...], purpose: str) -> Iterator[Finding]:
    installed = [name for name in packages if _version(name)]
    if packages[0] not in installed:
        advice = f"for {purpose}: pip install '{DISTRIBUTION}[{extra}]'"
        yield Finding(f"[{extra}]", "note", f"{packages[0]} is not installed", advice)
        return
    install = f"{DISTRIBUTION}[{extra}]"
    for name in packages:
        if name == "pytorch-lightning" and name not in installed and _version("lightning"):
            name = "lightning"  # either one serves
        yield _check_package(name, install)


def _check_package(name: str, install: str) -> Finding:
    version = _version(name)
    advice = f"pip install --upgrade '{install}'"
    if not version:
        return Finding(name, "problem", "is not installed", advice)
    minimum = _minimum(name)
    if minimum and _numbers(version) < _numbers(minimum):
        return Finding(name, "problem", f"{version}, older than {minimum}", advice)
    return Finding(name, "ok", version)


def _check_viewer(find_viewer: Callable[[], Path]) -> Finding:
    try:
        return Finding("viewer", "ok", str(find_viewer()))
    except RevacnnError as error:
        return Finding(
            "viewer", "problem", str(error), f"pip install --force-reinstall {DISTRIBUTION}"
        )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _minimum(name: str) -> str:
    """Return the oldest version that this package requires of another one; "" if any will do."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # run from a clone that is not installed
        return ""
    for requirement in requirements:
        found = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\d.]+)", requirement)
        if found and found[1].lower() == name.lower():
            return found[2]
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release segment of a version: (2, 10) of ``2.10rc1``."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
