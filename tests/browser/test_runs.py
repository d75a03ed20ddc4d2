"""Runs that begin, end, crash and go on beside each other, as a page meets them in Chromium."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_page import nodes, ready, width
from tests.viewer.processes import free_port, serve, server, training

pytestmark = pytest.mark.browser


def run_of(page: Any) -> str:
    """The run that the page's address names."""
    found = re.search(r"[?&]run=(\w+)", page.evaluate("location.href"))
    assert found is not None
    return found.group(1)


def test_before_any_run_the_page_says_how_to_start_one(tmp_path: Path, open_page: Any) -> None:
    with server(tmp_path) as address:
        page = open_page(address)
        page.wait_for_selector("#empty:not([hidden])")
        expect(page.locator("#empty")).to_contain_text("callbacks=[ReVACNN()]")
        expect(page.locator("#problem")).to_contain_text("No training is running")
        with training(tmp_path, "--net", "digits"):
            ready(page)
            assert page.is_hidden("#empty")
            assert len(run_of(page)) == 12


def test_a_killed_run_stays_readable_and_the_next_one_is_offered(
    tmp_path: Path, open_page: Any
) -> None:
    with server(tmp_path) as address:
        with training(tmp_path, "--net", "digits") as process:
            page = ready(open_page(address))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            page.wait_for_selector("#dot[data-kind=gone]")
        notice = "exited unexpectedly; last message at "
        expect(page.locator("#ended")).to_contain_text(
            re.compile(notice + r"\d\d:\d\d:\d\d at batch \d+")
        )
        expect(page.locator("#run-state")).to_contain_text(notice)
        assert page.is_hidden("#ended .next")
        for button in ("#add", "#edit-input", "#restart-ascent", "#request-growth"):
            assert page.get_attribute(button, "aria-disabled") == "true", button
        assert page.is_hidden("#controls")
        with training(tmp_path, "--net", "alexnet"):
            page.wait_for_selector("#ended .next:not([hidden])")
            assert len(nodes(page, "conv2")) == width(page, "conv2") == 16  # still there
            node = nodes(page, "conv2")[3]
            page.mouse.click(node["x"], node["y"])
            page.wait_for_function("revacnn.parts.selection_panel.layer == 'conv2'")
            expect(page.locator("#ended .next")).to_contain_text("AlexNet")
            before = run_of(page)
            page.click("#ended .next")
            page.wait_for_function("revacnn.nodes('features.0').length == 64")
            page.wait_for_selector("#ended", state="hidden")
            assert run_of(page) != before


def test_a_run_that_has_finished_says_so(tmp_path: Path, open_page: Any) -> None:
    with training(tmp_path, "--net", "digits", "--end-after", "12"), server(tmp_path) as address:
        page = ready(open_page(address))
        page.wait_for_selector("#ended[data-kind=finished]")
        expect(page.locator("#ended")).to_contain_text(
            re.compile(r"DigitsNet finished at batch \d+")
        )
        page.reload()  # the server still holds what it has seen
        page.wait_for_selector("#ended[data-kind=finished]")
        page.wait_for_function("revacnn.nodes('conv2').length == 16")


def test_two_runs_in_two_tabs_and_a_reload_stays(tmp_path: Path, open_page: Any) -> None:
    with training(tmp_path, "--net", "digits"), server(tmp_path) as address:
        one = ready(open_page(address))
        with training(tmp_path, "--net", "alexnet"):
            other = open_page(address)
            ready(other)
            other.wait_for_selector("#runs:not([hidden])")
            other.select_option("#runs", index=0)
            other.wait_for_function("revacnn.nodes('features.0').length == 64")
            assert run_of(one) != run_of(other)
            assert width(one, "conv2") == 16
            other.reload()
            ready(other)
            assert len(nodes(other, "features.0")) == 64
            batch = "revacnn.parts.header.fields.find((one) => one.label == 'Batch').value"
            for page, still in ((one, one.evaluate(batch)), (other, other.evaluate(batch))):
                page.wait_for_function(f"(value) => {batch} != value", arg=still)
            other.click('.column[data-layer="features.3"] button.more')
            other.wait_for_selector("#staging .row[data-plan=planned]")
            other.click("#staging button.apply")
            other.wait_for_selector("#reply[data-state=applied]")
            assert one.is_hidden("#reply")
            expect(one.locator("#records")).to_contain_text("No changes yet")


def test_the_page_comes_back_after_the_server_and_stays_with_its_run(
    tmp_path: Path, open_page: Any
) -> None:
    with training(tmp_path, "--net", "digits"):
        with server(tmp_path) as address:
            page = ready(open_page(address))
            run, port = run_of(page), address.split(":")[2].split("/")[0]
        page.wait_for_function("revacnn.waitingForServer")
        expect(page.locator("#run-state")).to_contain_text("reconnecting")
        with training(tmp_path, "--net", "alexnet"), server(tmp_path, port=int(port)):
            page.wait_for_function("window.revacnn?.ready && !revacnn.waitingForServer")
            assert run_of(page) == run
            page.wait_for_function("revacnn.nodes('conv2').length == 16")


def test_a_page_waits_for_its_server_and_reloads_with_the_next(
    tmp_path: Path, open_page: Any
) -> None:
    port = free_port()
    with training(tmp_path, "--net", "digits"):
        with server(tmp_path, port=port) as address:
            page = ready(open_page(address))
            run = run_of(page)
        expect(page.locator("#run-state")).to_contain_text("unreachable; reconnecting")
        assert page.get_attribute("#dot", "data-kind") == "gone"
        assert len(nodes(page, "conv2")) == 16  # what it showed last stays
        page.evaluate("window.mark = true")
        page.wait_for_timeout(1500)
        assert page.get_by_text("Client connection was lost").count() == 0  # said once, by us
        with server(tmp_path, port=port):
            page.wait_for_function("window.mark == null")
            ready(page)
            assert run_of(page) == run
            assert page.get_attribute("#dot", "data-kind") == "training"


def test_a_server_that_hangs_is_not_mistaken_for_one_at_work(
    tmp_path: Path, open_page: Any
) -> None:
    with training(tmp_path, "--net", "digits"), serve(tmp_path) as (address, process_id):
        page = ready(open_page(address))
        page.click('.column[data-layer="conv2"] button.more')
        page.wait_for_selector("#staging button.apply[aria-disabled=false]")
        title = page.title()
        os.kill(process_id, signal.SIGSTOP)
        page.wait_for_selector("#app[data-lost=true]")
        expect(page.locator("#run-state")).to_contain_text("does not respond")
        expect(page.locator("#ended")).to_contain_text(
            re.compile(r"has not responded since \d\d:\d\d:\d\d")
        )
        assert page.evaluate("document.getElementById('staging').inert")
        page.evaluate("revacnn.sendCommand('apply_staged')")
        page.evaluate("window.mark = true")
        os.kill(process_id, signal.SIGCONT)
        page.wait_for_selector("#app[data-lost=false]")
        page.wait_for_selector("#dot[data-kind=training]")
        page.wait_for_selector("#ended", state="hidden")
        assert page.title().split()[0] == title.split()[0]
        batch = "revacnn.parts.header.fields.find((one) => one.label == 'Batch').value"
        page.wait_for_function(f"(value) => {batch} != value", arg=page.evaluate(batch))
        assert page.evaluate("window.mark")  # not loaded again
        assert width(page, "conv2") == 16  # what was clicked in the meantime is not carried out


def test_a_page_goes_on_with_the_run_that_resumes_its_run(tmp_path: Path, open_page: Any) -> None:
    resume = ("--net", "digits", "--resume", "c0ffee" * 2)
    with server(tmp_path) as address:
        with training(tmp_path, *resume, "--past", "900") as process:
            page = ready(open_page(address))
            killed = run_of(page)
            node = nodes(page, "conv2")[3]
            page.mouse.click(node["x"], node["y"])
            page.wait_for_function("revacnn.parts.selection_panel.layer == 'conv2'")
            selected = page.evaluate("revacnn.selection")
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            page.wait_for_selector("#dot[data-kind=gone]")
        with training(tmp_path, *resume, "--past", "800"):
            page.wait_for_selector("#dot[data-kind=training]")
            expect(page.locator("#reply")).to_contain_text("Resumed from a checkpoint")
            expect(page.locator("#reply")).to_contain_text("after the checkpoint are lost")
            page.wait_for_selector("#ended", state="hidden")
            assert run_of(page) != killed
            assert page.evaluate("revacnn.selection.selected") == selected["selected"]
