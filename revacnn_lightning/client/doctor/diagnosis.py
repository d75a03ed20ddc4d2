"""All checks, in the order in which a viewer depends on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from revacnn_lightning.client.doctor.finding import Finding
from revacnn_lightning.client.doctor.installation import check_installation
from revacnn_lightning.client.doctor.page import check_page
from revacnn_lightning.client.doctor.reachability import check_run
from revacnn_lightning.client.doctor.run_files import check_connection_files, check_runtime_dir
from revacnn_lightning.protocol.connection_file import Connection

__all__ = ["diagnose"]

DEFAULT_PAGE = "http://127.0.0.1:5006/"


def diagnose(
    connection_file: Path | None, find_viewer: Callable[[], Path], page_address: str | None = None
) -> Iterator[Finding]:
    """Make all checks, and yield each finding as soon as it is known.

    Args:
        connection_file: that of the run to check; None checks all runs on this machine.
        find_viewer: returns the folder of the Bokeh application, or raises `RevacnnError`.
        page_address: None checks the default address, at which no page need be served.
    """
    yield from check_installation(find_viewer)
    yield from check_runtime_dir()
    runs: list[Connection] = []
    yield from check_connection_files(connection_file, runs)
    for run in runs:
        yield from check_run(run)
    yield check_page(page_address or DEFAULT_PAGE, is_expected=page_address is not None)
