"""What is tested in environments of their own: versions, and the built packages.

``make test-versions`` runs the sessions for the versions that pyproject.toml promises. Each
installs from a different end of the promised ranges and runs the tests that need no browser. An
interpreter that is not installed is skipped by name. Nox names what it ran and skipped; the first
lines of each session name the versions.

``make dist`` builds the packages and runs the sessions that install them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["viewer_oldest", "viewer_newest", "train_oldest"]

DIST = Path("dist")
PARTS = {"train": "[train]", "viewer": "[viewer]", "all": "[train,viewer]"}

TEST_TOOLS = ["hypothesis>=6.90", "pytest>=8.0", "pytest-timeout>=2.3", "pytest-xdist>=3.5"]
TRAIN_TOOLS = ["rich>=13.0", "scikit-learn>=1.5"]
# The parts that import no torch, without the tests that train.
VIEWER_TESTS = [
    *("tests/viewer", "tests/client", "tests/history", "tests/page_server"),
    *("tests/protocol", "--ignore=tests/protocol/test_protocol_page.py"),
    *("tests/recording", "--ignore=tests/recording/test_without_mcap.py"),
]
# Those of the training side, without the ones that take longest.
TRAIN_TESTS = ["tests/telemetry", "tests/steering", "tests/runtime", "tests/diagnostics"]
NO_DOWNLOADS = {"UV_PYTHON_DOWNLOADS": "never"}


def install(session: nox.Session, *requirements: str) -> None:
    """Install the project with ``requirements`` and the tools, and print the versions."""
    session.install(*requirements, env=NO_DOWNLOADS)
    # Those of the tools that the oldest versions allow.
    session.install(*TEST_TOOLS, env=NO_DOWNLOADS)
    session.run("uv", "pip", "list", external=True, env=NO_DOWNLOADS)


def run_tests(session: nox.Session, tests: list[str], *options: str) -> None:
    """Run ``tests``, or what is given on the command line after ``--``."""
    workers = ["--numprocesses", "auto", "--dist", "loadfile"]
    pytest = ["python", "-m", "pytest", *workers, "-m", "not slow", "-p", "no:cacheprovider"]
    pytest += options
    session.run(*pytest, *(session.posargs or tests), env={"OMP_NUM_THREADS": "1"})


@nox.session(python="3.10")
def viewer_oldest(session: nox.Session) -> None:
    """Test the viewer, without torch, on the oldest Python and the oldest versions."""
    install(session, "--resolution", "lowest-direct", "--editable", ".[viewer,record,tls]")
    # Tornado 6.6 checks the Host of a request in another way than the versions before it.
    session.install("tornado<6.6", env=NO_DOWNLOADS)
    run_tests(session, VIEWER_TESTS)


@nox.session(python=["3.12", "3.13"])
def viewer_newest(session: nox.Session) -> None:
    """Test the viewer, without torch, on newer Pythons and the newest versions."""
    install(session, "--editable", ".[viewer,record,tls,mcp]")
    run_tests(session, VIEWER_TESTS)


@nox.session(python=["3.13"])
def viewer_preview(session: nox.Session) -> None:
    """Test the viewer on the preview of the next Bokeh. A failure is reported, not an error."""
    install(session, "--editable", ".[viewer,record,tls,mcp]")
    session.install("--upgrade", "--prerelease", "allow", "bokeh", env=NO_DOWNLOADS)
    try:
        run_tests(session, VIEWER_TESTS)
    except nox.command.CommandFailed:
        session.warn("The tests fail on the preview of Bokeh. This is allowed.")


@nox.session(python="3.10")
def train_oldest(session: nox.Session) -> None:
    """Test the training side on the oldest Python, torch and Lightning."""
    install(session, "--resolution", "lowest-direct", "--editable", ".[train,inspect,record]")
    session.install(*TRAIN_TOOLS, env=NO_DOWNLOADS)
    # torch warns of its own code, for example of nested schedules: not errors here.
    run_tests(session, TRAIN_TESTS, "-W", "default")


@nox.session
@nox.parametrize("kind", ["wheel", "sdist"])
@nox.parametrize("part", list(PARTS))
def installed(session: nox.Session, part: str, kind: str) -> None:
    """Install a package that ``make dist`` has built, and use it from an empty folder."""
    [package] = DIST.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    requirement = f"revacnn-lightning{PARTS[part]} @ {package.resolve().as_uri()}"
    session.install("--reinstall-package", "revacnn-lightning", requirement)
    check = Path(".ci", "installed.py").resolve()
    with session.chdir(session.create_tmp()):
        session.run("python", "-I", str(check), part)


@nox.session
def sdist_tests(session: nox.Session) -> None:
    """Unpack the source distribution and run its own tests without a browser: ten minutes.

    Those with a browser are only imported: `make check` runs them.
    """
    [package] = DIST.glob("*.tar.gz")
    folder = Path(session.create_tmp())
    for earlier in folder.glob("revacnn_lightning-*"):  # may have files that this one lacks
        shutil.rmtree(earlier)
    session.run("tar", "--extract", f"--file={package}", f"--directory={folder}", external=True)
    [sources] = folder.glob("revacnn_lightning-*")
    with session.chdir(sources):
        session.install("torch", "torchvision", "--editable", ".[dev]")
        session.run(
            "python", "-m", "pytest", "--collect-only", "--quiet", "--quiet", "tests/browser"
        )
        run_tests(session, ["tests", "--ignore", "tests/browser"])
