"""Check an installed package from outside the clone: ``python .ci/installed.py PART``.

PART is ``train``, ``viewer`` or ``all``, the parts that are installed in this environment. `make
dist` runs it with the wheel and with the source distribution.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import metadata, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).parent / "revacnn"
SECONDS = 600  # the machine may be busy
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

TRAINING = """
import torch
from pytorch_lightning import LightningModule, Trainer
from revacnn_lightning import ReVACNN

class Network(LightningModule):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(1, 4, 3)
        self.classifier = torch.nn.Linear(4 * 6 * 6, 2)
    def training_step(self, batch, batch_idx):
        return self.classifier(self.features(batch).relu().flatten(1)).square().mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

data = torch.utils.data.DataLoader(torch.randn(64, 1, 8, 8), batch_size=8)
Trainer(max_epochs=100000, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, callbacks=[ReVACNN()]).fit(Network(), data)
"""


def main() -> None:
    """Run the checks of one part; a failure is an error."""
    part = sys.argv[1]
    check_installation(part)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as runs:
        os.environ["REVACNN_RUNTIME_DIR"] = runs  # else, it edits the newest run on this machine
        {"train": check_training, "viewer": check_viewer, "all": check_quickstart}[part](
            Path(folder)
        )
    print(f"The installed package works: {part}")


def check_installation(part: str) -> None:
    """Check where the package lies, its metadata, its typed marker and what it brought along."""
    import revacnn_lightning

    installed = Path(revacnn_lightning.__file__).parent
    assert ROOT not in installed.parents or "site-packages" in installed.parts, installed
    assert (installed / "py.typed").is_file(), "the package has no typed marker"
    printed = run(COMMAND, "--version").split()
    assert printed == ["revacnn", version("revacnn-lightning")], printed
    fields = metadata("revacnn-lightning")
    assert fields["Requires-Python"] == ">=3.10", fields["Requires-Python"]
    assert fields["Description-Content-Type"] == "text/markdown", "the README is not shown"
    assert "Typing :: Typed" in fields.get_all("Classifier", [])
    has_torch = importlib.util.find_spec("torch") is not None
    assert has_torch == (part != "viewer"), f"torch is installed: {has_torch}"


def check_training(folder: Path) -> None:
    """Edit a training that runs, and undo the edit."""
    script = folder / "train.py"
    script.write_text(TRAINING, encoding="utf-8")
    with process(sys.executable, script):
        edit(folder, second_block())
        print(run(COMMAND, "doctor"))


def check_viewer(folder: Path) -> None:
    """Open the page with its token, and be refused without."""
    with process(COMMAND, "view", "--no-open") as output:
        open_page(output)
        print(run(COMMAND, "doctor"))


def check_quickstart(folder: Path) -> None:
    """Follow the quickstart: launch its training, open the page, make its edit."""
    script = folder / "train.py"
    script.write_text(quickstart()[0], encoding="utf-8")
    with process(COMMAND, "launch", "--no-open", script) as output:
        open_page(output)
        edit(folder, second_block())
        print(run(COMMAND, "doctor"))


def quickstart() -> list[str]:
    """Return the Python code of the quickstart."""
    return BLOCK.findall((ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8"))


def second_block() -> str:
    """Return the edit of the quickstart, which waits for the training."""
    code = quickstart()[1].replace("attach()", f"attach(wait={SECONDS})")
    return code + "\nassert reply.plan.parameters_after > reply.plan.parameters_before\n"


def edit(folder: Path, code: str) -> None:
    """Run ``code`` as a script of its own."""
    script = folder / "edit.py"
    script.write_text(code, encoding="utf-8")
    print(run(sys.executable, script))


def open_page(output: Path) -> None:
    """Open the page whose address a process has printed."""
    address = wait_for_address(output)
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(address, timeout=SECONDS) as page:
        assert "ReVACNN" in page.read().decode()
    assert status_of(address.partition("?")[0]) == 403, "the page opens without its token"


def status_of(address: str) -> int:
    """Return the status of the response to a client without a cookie."""
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as page:
            return page.status
    except urllib.error.HTTPError as error:
        return error.code


def wait_for_address(output: Path) -> str:
    """Return the first address in a file that a process writes."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if match := re.search(r"https?://\S+(?=\s)", output.read_text(encoding="utf-8")):
            return match.group()
        time.sleep(0.2)
    raise AssertionError(f"no address in: {output.read_text(encoding='utf-8')}")


def run(*command: str | Path) -> str:
    """Run a command in an empty folder and return what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=SECONDS
        ).stdout


@contextlib.contextmanager
def process(*command: str | Path) -> Iterator[Path]:
    """Run a command in the background, end it by SIGTERM, and yield the file that it prints to."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.txt"
        with output.open("w", encoding="utf-8") as file:
            running = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
        try:
            yield output
        except BaseException:
            print(output.read_text(encoding="utf-8"))
            raise
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(SECONDS)
            finally:
                running.kill()


if __name__ == "__main__":
    main()
