"""The public names of the package, the cost of importing it, and the direction of imports."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

import revacnn_lightning
from revacnn_lightning import errors
from revacnn_lightning.protocol.requests import Edit
from tests.import_graph import ROOT, build_import_graph, find_cycle, find_imports, find_modules

PUBLIC_NAMES = {
    # the callback, a loop without a Trainer, and the client of a run
    "LoopRun", "ReVACNN", "Run", "attach", "load_edited", "monitor", "show",
    # edits and commands
    "AddFilters", "ControlPruning", "ControlRun", "DiscardTrial", "Freeze", "InsertLayer",
    "KeepTrial", "MergeFilters", "Patch",
    "PruneTo", "Redo", "Reinitialize",
    "RemoveFilters", "RemoveLayer", "ScaleLearningRate", "SetFilter", "SetGradientClipping",
    "SetHyperparameter",
    "SetPolicy", "StartRecording", "StopRecording", "TryEdits", "Undo", "Unfreeze",
    # what a run returns
    "Alert", "Applied", "Batch", "BatchStream", "ClassAnswers", "ClassLens", "Confusion",
    "Connection", "EmbeddedViewer", "Figure", "FilterInspection", "History", "ImagePass", "KeyInfo",
    "LayerDetail", "LayerEvidence", "LayerInfo", "LossChange", "PendingRequest", "PlanSummary",
    "PreferredImage", "Prices", "Proposal", "PruningState", "RankValues", "Snapshot", "Status",
    "Structure", "Trial", "TrialCost", "TrialState", "Verdict",
    # exceptions
    "ConnectionFileError", "EditFailedError", "EditRefusedError", "KeyRefusedError",
    "MissingPackageError", "ObserverKeyError", "ProtocolError", "ProtocolVersionError",
    "RecordingError", "RequestTimeoutError",
    "RevacnnError", "RunEndedError", "StaleStructureError", "SteeringError",
}  # fmt: skip

# In annotations of what they return: of Python and pandas, variables of types, unions of messages,
# and half of a key pair, which is not for users.
NOT_PUBLIC = {
    "Any", "AsyncIterator", "DataFrame", "Iterator", "Keys", "Message", "None", "Path", "Reply",
    "Result", "TypeVar",
}  # fmt: skip

# Lowest first. A module belongs to the longest prefix of its name and may import modules of its
# own prefix and of lower floors.
PACKAGE_FLOORS = [
    ["errors"],
    ["diagnostics.dead_filters"],  # the client of a run uses it, too
    ["protocol"],
    ["telemetry", "diagnostics"],
    ["history"],
    ["recording"],
    ["client"],
    ["page_server"],
    ["steering.computed_tensors"],
    ["steering.tracing", "steering.blocks", "steering.edit_mark"],
    ["steering.planning"],
    ["steering.filter_ids", "steering.holders"],
    ["steering.execution"],
    ["steering.journal"],
    ["steering.undo", "steering.journal_text"],
    ["steering.edited_models", "steering.error_guard"],
    ["steering.tentative_edits"],
    ["steering.editor"],
    ["steering.split_editor"],
    ["steering.checkpoint"],
    ["steering.loading"],
    ["steering"],
    ["runtime"],
    ["callback", "cli", "monitoring"],
    ["__main__"],
]
VIEWER_FLOORS = [
    ["layout", "embedding", "rendering", "bokeh_compat", "page_access"],
    ["runs"],
    ["rendering.findings"],  # describes what a run holds
    ["tab"],
    ["components"],
    ["tab.page_components"],
    ["tab.page"],
    ["main", "app_hooks", "auth"],
]
FORBIDDEN = {
    "revacnn_lightning.client": {
        "torch", "pytorch_lightning", "lightning", "bokeh", "zmq", "revacnn_lightning.telemetry",
    },
    "revacnn_lightning.protocol": {"torch", "pytorch_lightning", "lightning", "bokeh"},
    "revacnn_lightning.history": {
        "torch", "pytorch_lightning", "lightning", "zmq", "bokeh", "revacnn_lightning.telemetry",
    },
    "revacnn_lightning.recording": {
        "torch", "pytorch_lightning", "lightning", "zmq", "bokeh", "revacnn_lightning.telemetry",
    },
    "revacnn_lightning.telemetry": {
        "pytorch_lightning", "lightning", "zmq", "bokeh", "revacnn_lightning.protocol",
    },
    "revacnn_lightning.page_server": {
        "torch", "pytorch_lightning", "lightning", "zmq", "revacnn_lightning.telemetry",
        "revacnn_lightning.client",
    },
    "revacnn_lightning.steering": {"pytorch_lightning", "lightning", "zmq", "bokeh"},
    "revacnn_lightning.runtime": {"pytorch_lightning", "lightning", "zmq", "bokeh"},
    "viewer": {
        "torch", "torchvision", "pytorch_lightning", "lightning", "revacnn_lightning.telemetry",
        "revacnn_lightning.steering", "revacnn_lightning.runtime", "revacnn_lightning.callback",
    },
}  # fmt: skip
MODULES = {**find_modules("revacnn_lightning"), **find_modules("viewer")}


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


# ---------------------------------------------------------------------- public names


def test_the_public_names_are_these():
    assert set(revacnn_lightning.__all__) == PUBLIC_NAMES
    assert list(revacnn_lightning.__all__) == sorted(revacnn_lightning.__all__)
    assert set(dir(revacnn_lightning)) >= PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(revacnn_lightning, name).__name__ == name


def test_all_edits_and_exceptions_are_public():
    assert {edit.__name__ for edit in get_args(Edit)} <= PUBLIC_NAMES
    assert set(errors.__all__) <= PUBLIC_NAMES


def public_functions(value: type | Callable[..., object]) -> Iterator[Callable[..., object]]:
    """Iterate over a function, or over the public methods and properties of a class."""
    if inspect.isfunction(value):
        yield value
        return
    for name, member in inspect.getmembers(value):
        function = member.fget if isinstance(member, property) else member
        is_own = (getattr(function, "__module__", "") or "").startswith("revacnn_lightning.")
        if inspect.isfunction(function) and is_own and not name.startswith("_"):
            yield function


def test_what_a_public_method_returns_is_public():
    """So that the code of a user can name it in an annotation, and the API page describes it."""
    returned = {
        word
        for name in PUBLIC_NAMES
        for function in public_functions(getattr(revacnn_lightning, name))
        for word in re.findall(r"[A-Z]\w+", str(inspect.signature(function).return_annotation))
    }
    assert returned - NOT_PUBLIC <= PUBLIC_NAMES


def test_every_exception_ends_in_error_and_is_in_the_tree_of_the_docstring():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.RevacnnError)
        assert name.endswith("Error")
        assert name in (errors.__doc__ or "")


def test_an_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        revacnn_lightning.Nothing  # noqa: B018


def test_importing_the_package_or_the_client_loads_neither_torch_nor_lightning():
    code = (
        "import sys, revacnn_lightning, revacnn_lightning.cli\n"
        "from revacnn_lightning import attach, show, Run, RemoveFilters, EditRefusedError\n"
        "from revacnn_lightning import Applied, Batch\n"
        "from revacnn_lightning.client import run, tools, mcp_server, embedded_viewer\n"
        "from revacnn_lightning.protocol import sockets, messages, requests\n"
        "print(sorted({'torch', 'pytorch_lightning', 'lightning', 'bokeh'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- imports


@pytest.mark.parametrize(
    ("package", "floors"),
    [("revacnn_lightning", PACKAGE_FLOORS), ("viewer", VIEWER_FLOORS)],
    ids=["revacnn_lightning", "viewer"],
)
def test_modules_import_only_from_lower_floors(package: str, floors: list[list[str]]):
    floor_of = {f"{package}.{name}": i for i, names in enumerate(floors) for name in names}

    def prefix_of(module: str) -> str:
        prefixes = [prefix for prefix in floor_of if is_within(module, prefix)]
        assert prefixes, f"{module} is on no floor: add it to the table"
        return max(prefixes, key=len)

    for module, imported in build_import_graph(package).items():
        for other in imported - {package}:
            own, its = prefix_of(module), prefix_of(other)
            assert own == its or floor_of[its] < floor_of[own], f"{module} imports {other}"


def test_there_is_no_import_cycle():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle(build_import_graph("revacnn_lightning", "viewer")) == []


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_packages_do_not_import_what_they_must_not_know(package: str):
    for module, file in MODULES.items():
        if is_within(module, package):
            for name in find_imports(module, file):
                bad = [one for one in FORBIDDEN[package] if is_within(name, one)]
                assert not bad, f"{module} imports {name}"


@pytest.mark.parametrize(
    ("library", "users"),
    [
        (
            "zmq",
            {
                f"revacnn_lightning.protocol.{name}"
                for name in (
                    "authenticator",
                    "base_socket",
                    "flood_protected_socket",
                    "run_sockets",
                    "senders",
                    "viewer_sockets",
                )
            },
        ),
        ("pytorch_lightning", {"revacnn_lightning.callback"}),
        ("lightning", {"revacnn_lightning.callback"}),
    ],
)
def test_one_module_imports(library: str, users: set[str]):
    found = set()
    for module, file in find_modules("revacnn_lightning").items():
        if any(is_within(name, library) for name in find_imports(module, file)):
            found.add(module)
    assert found == users


def test_nothing_is_pickled_or_evaluated():
    for module, file in MODULES.items():
        assert not {"eval", "exec"} & _called_names(file), module
        imported = {name.split(".")[0] for name in find_imports(module, file)}
        assert not {"pickle", "dill", "shelve"} & imported, module


def _called_names(file: Path) -> set[str]:
    return {
        node.func.id
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
