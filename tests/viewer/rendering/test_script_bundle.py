"""The bundle of modules does what the modules do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from viewer.rendering.script_bundle import bundle_modules, modules_in_import_order
from viewer.tab.page_assets import STATIC

MODULES = {
    "main.js": """/** Comments with "import" and export are none.
 * import {not} from "./here.js" */
import {twice, Sum as Total, later} from "./parts/sum.js"
import {
  one,
  twice as again,
} from "./parts/forward.js"

export const unused = 1
void later().then((value) => {
  console.log(twice(one), again(2), new Total().value, value, import.meta.url.toString().slice(-10))
})
""",
    "parts/sum.js": """import {one} from "./numbers.js"
const local = 3
export class Sum { value = one + local }
export const twice = (x) => 2 * x
export async function later() { return helper() }
function helper() { return local }
""",
    "parts/forward.js": """import {one} from "./numbers.js"
export {twice} from "./sum.js"
const local = one
export {one} from "./numbers.js"
export function same() { return local }
""",
    "parts/numbers.js": "export const one = 1\n",
    "alone.js": "export const alone = 1\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    return tmp_path


def run_node(*arguments: str | Path) -> str:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    done = subprocess.run([node, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_module_follows_those_that_it_imports(folder: Path) -> None:
    names = modules_in_import_order(folder, "main.js")
    assert names == ["parts/numbers.js", "parts/sum.js", "parts/forward.js", "main.js"]
    assert modules_in_import_order(folder, "alone.js", "parts/sum.js") == ["alone.js", *names[:2]]


def test_a_bundle_does_what_its_modules_do(folder: Path) -> None:
    bundle = folder / "bundle.js"
    begin = f'const moduleFolder = "{folder.as_uri()}/"\n'
    bundle.write_text(begin + bundle_modules(folder, "main.js"), encoding="utf-8")
    expected = run_node(folder / "main.js")
    assert expected.startswith("2 4 4 3 ")
    assert expected.endswith("/main.js\n")
    assert run_node(bundle) == expected


@pytest.mark.parametrize(
    "line",
    ["export let x = 1", "export default 1", 'import "./alone.js"', 'await import("./alone.js")'],
)
def test_a_module_that_is_not_understood_is_named(folder: Path, line: str) -> None:
    (folder / "alone.js").write_text(f"const y = 2\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"alone\.js"):
        bundle_modules(folder, "alone.js")


def test_the_page_has_all_of_its_modules_in_one_script(tmp_path: Path) -> None:
    """The browser made a hundred requests before the first picture."""
    text = bundle_modules(STATIC, "main.js")
    assert "</script" not in text
    (tmp_path / "bundle.mjs").write_text(f"const moduleFolder = ''\n{text}", encoding="utf-8")
    run_node("--check", tmp_path / "bundle.mjs")
    workers = {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*_worker.js")}
    known = {
        *modules_in_import_order(STATIC, "main.js"),
        *modules_in_import_order(STATIC, *workers),
    }
    scripts = {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.js")}
    assert scripts - known == {"charts/chart_functions.js"}  # written into the page as it is
