"""Makes the pictures of the documentation from the real program: ``make pictures``.

Trains some networks, one after another, and opens the viewer's page on each in Chromium, in both
themes. Writes ``docs/pictures/NAME-dark.webp`` and ``NAME-light.webp``; ``--only NAME ...`` makes
some of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from revacnn_lightning import Run, attach
from revacnn_lightning.client.viewer_process import ViewerProcess

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PICTURES = DOCS / "pictures"
sys.path.insert(0, str(ROOT))  # for `tests`

from tests.browser.chromium import ARGUMENTS, executable  # noqa: E402
from tests.documentation import python_blocks  # noqa: E402

THEMES = ("dark", "light")
SIZE = {"width": 1600, "height": 960}
SCALE = 1.25  # device pixels per pixel of the page
QUALITY = 82
PATIENCE = 120_000  # milliseconds; the machine may be busy
SETTLE = 3_000  # until animations have ended and layouts have been computed

# A training of a network of torchvision on noise.
NOISE = """
import torch, torchvision
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from revacnn_lightning import ReVACNN

class {model}(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torchvision.models.get_model("{model}", weights=None, num_classes=10)
    def forward(self, images):
        return self.net(images)
    def training_step(self, batch, batch_idx):
        output = self(batch[0])
        loss = torch.nn.functional.cross_entropy(getattr(output, "logits", output), batch[1])
        self.log("train_loss", loss)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9)

torch.manual_seed(0)
data = DataLoader(TensorDataset(torch.randn(64, 3, 64, 64), torch.arange(64) % 10), batch_size=4)
options = dict(max_epochs=10_000, logger=False, enable_checkpointing=False)
Trainer(**options, callbacks=[ReVACNN()]).fit({model}(), data)
"""
# The training of the quickstart with faults: two dead filters, and two that stay equal.
FAULTS = """
torch.manual_seed(0)
model = Digits()
first, norm, _, second = model.features[:4]
with torch.no_grad():
    norm.weight[3], norm.bias[3], norm.weight[9], norm.bias[9] = 0, -1, 0, -1
    first.weight[6] = first.weight[5]
    first.bias[6] = first.bias[5]
    second.weight[:, 6] = second.weight[:, 5]
options = dict(max_epochs=10_000, logger=False, enable_checkpointing=False)
Trainer(**options, callbacks=[ReVACNN()]).fit(model, data)
"""
GALLERY = ("resnet18", "squeezenet1_1", "googlenet", "mobilenet_v3_small", "densenet121")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="make only these pictures")
    only = parser.parse_args().only
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["REVACNN_RUNTIME_DIR"] = folder
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        for session in SESSIONS:
            if only is None or set(only) & set(session.pictures):
                session.photograph(browser, only)


class Session:
    """A training, and the pictures that are made of it.

    Attributes:
        pictures: their names.
    """

    def __init__(
        self,
        command: list[str],
        pictures: dict[str, Callable[[Page], Any]],
        batches: int,
        prepare: Callable[[Page, Run], None] = lambda page, run: None,
    ) -> None:
        self.command = command
        self.pictures = pictures
        self.batches = batches
        self.prepare = prepare

    def photograph(self, browser: Browser, only: list[str] | None) -> None:
        print(f"Training of {', '.join(self.pictures)}", flush=True)
        with running(self.command), viewing() as address:
            # The viewer compares the batches before and after an edit that it has received.
            with opened(browser, address, THEMES[0]) as page, attach() as run:
                self.prepare(page, run)
                run.wait_for(lambda run: run.batch and run.batch.step >= self.batches)
            for theme in THEMES:
                self._photograph_theme(browser, address, theme, only)

    def _photograph_theme(
        self, browser: Browser, address: str, theme: str, only: list[str] | None
    ) -> None:
        with opened(browser, address, theme) as page:
            for name, find in self.pictures.items():
                target = find(page)
                page.wait_for_timeout(SETTLE)
                if only is None or name in only:
                    save(target.screenshot(), PICTURES / f"{name}-{theme}.webp")
                    print(f"{name}-{theme}.webp", flush=True)


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def viewing() -> Iterator[str]:
    """Serve the page of the newest run; yield its address."""
    viewer = ViewerProcess.start()
    try:
        yield viewer.address
    finally:
        viewer.stop()


@contextmanager
def opened(browser: Browser, address: str, theme: str) -> Iterator[Page]:
    context = browser.new_context(
        viewport=SIZE, device_scale_factor=SCALE, color_scheme=theme, reduced_motion="reduce"
    )
    context.add_cookies([{"name": "revacnn-hints", "value": "dismissed", "url": address}])
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_function("() => window.revacnn && revacnn.ready")  # the page forbids eval
    page.wait_for_timeout(SETTLE)
    yield page
    context.close()


def save(png: bytes, path: Path) -> None:
    Image.open(BytesIO(png)).convert("RGB").save(path, quality=QUALITY, method=6)


# ---------------------------------------------------------------------- what is on the pictures


def select(page: Page, layer: str, index: int) -> None:
    node = page.evaluate(f"revacnn.nodes({layer!r}).find((node) => node.index === {index})")
    page.mouse.click(node["x"], node["y"])
    page.mouse.move(5, 5)  # closes the tooltip


def network(page: Page) -> Any:
    return page.locator("#network")


def staged(page: Page) -> Any:
    page.locator(".column button.more").nth(1).click()
    page.locator("#staging .row[data-plan=planned]").wait_for()
    return page.locator("#network")


def trial(page: Page) -> Any:
    """Try a removal. The training waits, so the page of the second theme shows the same trial."""
    done = page.locator("#trial[data-stage=undecided]")
    if not done.is_visible():
        select(page, "features.3", 4)
        page.keyboard.press("Delete")
        batches = page.locator("#staging [data-key=batches]")
        batches.fill("60")
        batches.press("Tab")
        page.locator("#staging button.try[aria-disabled=false]").click()
    done.wait_for()
    return page.locator("#network")


def prices(page: Page) -> Any:
    page.locator("#price-colors").click()
    page.locator("#request-growth").click()
    page.locator("#growth li").first.wait_for()
    return page.locator("#network")


def verdicts(page: Page) -> Any:
    select(page, "features.0", 5)
    page.keyboard.press("1")
    page.wait_for_function("() => document.querySelectorAll('#verdicts li').length >= 2")
    wait_for_layouts(page)
    return page.locator("#layer-panel")


def whole_page(page: Page) -> Any:
    page.keyboard.press("Escape")
    # The image that the maps of the first theme have chosen has no gradients.
    page.locator('#network-input-tools [data-image="batch"]').click()
    select(page, "features.conv2", 4)
    wait_for_layouts(page)
    return page


def wait_for_layouts(page: Page) -> None:
    """Wait until the four views of the layer are arranged."""
    texts = "[...document.querySelectorAll('.views .view')].map((view) => view.innerText).join()"
    page.wait_for_function(f"() => !/Computing|No data/.test({texts})")


def pane(number: int, layer: str = "features.conv2", seconds: float = 2) -> Callable[[Page], Any]:
    def find(page: Page) -> Any:
        select(page, layer, 4)
        page.keyboard.press(str(number))
        page.wait_for_timeout(1000 * seconds)
        return page.locator("#layer-panel")

    return find


def layer(page: Page) -> Any:
    panel = pane(1)(page)
    wait_for_layouts(page)
    return panel


def maps(page: Page) -> Any:
    panel = pane(2)(page)
    page.locator('[data-name="maps"] [data-image="1"]').click()
    page.locator("#prediction").wait_for()
    return panel


def table(page: Page) -> Any:
    page.keyboard.press("g")
    return page.locator("#network")


def part(selector: str) -> Callable[[Page], Any]:
    return lambda page: page.locator(selector)


def keys(page: Page) -> Any:
    page.keyboard.press("?")
    return page.locator("#keys")


def edit(page: Page, run: Run) -> None:
    """Apply two edits, so that the charts and the list of changes show them."""
    run.wait_for(lambda run: run.batch and run.batch.step >= 120)
    select(page, "features.conv2", 4)
    for _ in range(4):
        page.keyboard.press("+")
    apply(page)
    run.wait_for(lambda run: run.batch and run.batch.step >= 260)
    select(page, "features.conv3", 7)
    page.keyboard.press("Delete")
    apply(page)


def apply(page: Page) -> None:
    page.locator("#staging button.apply[aria-disabled=false]").click()
    page.locator("#reply[data-state=applied]").wait_for()


PYTHON = sys.executable
QUICKSTART = python_blocks(DOCS / "quickstart.md")[0].code
photograph_quickstart = Session(
    [PYTHON, "-c", QUICKSTART], {"quickstart": network, "staged": staged}, batches=200
)
photograph_trial = Session([PYTHON, "-c", QUICKSTART], {"trial": trial}, batches=200)
photograph_verdicts = Session(
    [PYTHON, "-c", QUICKSTART.partition("if __name__")[0] + FAULTS],
    {"verdicts": verdicts},
    batches=400,
)
photograph_demo = Session(
    [
        *(PYTHON, str(ROOT / "examples" / "01_digits.py"), "--data", "photos", "--pace", "40"),
        *("--epochs", "1000"),  # it must not end before the last picture
    ],
    {
        "page": whole_page,
        "network": network,
        "layer": layer,
        "maps": maps,
        "inspection": pane(3, seconds=15),
        "statistics": pane(4),
        "histograms": pane(5, seconds=10),
        "charts": part("footer"),
        "changes": part("#changes"),
        "controls": part("header"),
        "prices": prices,
        "keys": keys,
    },
    batches=420,
    prepare=edit,
)
photograph_classes = Session(
    [PYTHON, str(ROOT / "examples" / "01_digits.py"), "--pace", "40", "--epochs", "1000"],
    {"classes": pane(6, layer="features.conv3", seconds=30)},
    batches=1_000,
)
photograph_folded = Session(
    [PYTHON, "-c", NOISE.format(model="resnet50")], {"folded": network, "table": table}, batches=25
)
photograph_gallery = [
    Session([PYTHON, "-c", NOISE.format(model=name)], {f"gallery-{name}": network}, batches=25)
    for name in GALLERY
]
SESSIONS = (
    photograph_quickstart, photograph_trial, photograph_verdicts, photograph_demo,
    photograph_classes, photograph_folded, *photograph_gallery,
)  # fmt: skip

if __name__ == "__main__":
    main()
