"""The page in a real Chromium: what a first visitor sees and does, with mouse and with keyboard only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lungct_hf import LungCTClassifier
from space_server import Server

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if not Path(CHROMIUM).exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt install chromium, or set CHROMIUM", allow_module_level=True)


@dataclass
class Visit:
    page: playwright_api.Page
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright_api.Browser]:
    with playwright_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(params=["desktop-light", "phone-dark"])
def visit(
    request: pytest.FixtureRequest, browser: playwright_api.Browser, server: Server, tmp_path: Path
) -> Iterator[Visit]:
    phone = request.param == "phone-dark"
    context = browser.new_context(
        viewport={"width": 360, "height": 740} if phone else {"width": 1200, "height": 800},
        color_scheme="dark" if phone else "light",
    )
    seen = Visit(context.new_page())
    seen.page.set_default_timeout(30_000)
    seen.page.on("console", lambda line: line.type == "error" and seen.errors.append(line.text))
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.on("request", lambda sent: seen.hosts.add(urlsplit(sent.url).hostname or urlsplit(sent.url).scheme))
    seen.page.goto(server.url)
    seen.page.locator("#classify").wait_for()
    yield seen
    seen.page.screenshot(path=tmp_path / f"{request.param}.png", full_page=True)
    assert seen.errors == []
    assert seen.hosts - {"127.0.0.1", "data", "blob"} == set(), "nothing may come from another host"
    context.close()


def probabilities(page: playwright_api.Page) -> dict[str, str]:
    rows = page.locator("#result li")
    rows.first.wait_for()
    return {
        row.locator(".lc-class").inner_text().split()[0]: row.locator(".lc-value").inner_text() for row in rows.all()
    }


def expected(run_dir: Path, file: Path) -> dict[str, str]:
    classifier = LungCTClassifier.from_pretrained(run_dir / "model")
    return {k: f"{v:.1%}" for k, v in zip(classifier.labels, map(float, classifier.predict(file)[0]), strict=True)}


def test_upload_press_read(visit: Visit, run_dir: Path, slices: dict[str, Path]) -> None:
    page = visit.page
    notice = page.locator("#notice")
    assert notice.inner_text() == "Research only. Not a medical device. Never use it for a diagnosis."
    box, height = notice.bounding_box(), page.viewport_size["height"]
    assert box is not None and box["y"] + box["height"] < height, "above the fold"
    assert "trained on generated phantoms" in page.locator("header").inner_text()

    page.set_input_files("#slice-file input[type=file]", slices["wide.tif"])
    assert page.locator("#viewer img").get_attribute("alt") == "The uploaded slice, 240 by 120 pixels"
    page.click("#classify")
    assert probabilities(page) == expected(run_dir, slices["wide.tif"])
    assert page.locator("#result li", has_text="highest").count() == 1
    facts = page.locator("#model").inner_text()
    assert "local directory" in facts and "mobilenetv2_035" in facts and "45 slices of generated phantoms" in facts
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no sideways scrolling"

    # Another file takes the old result away before it is classified itself.
    page.get_by_label("Clear").click()
    page.get_by_text("No result yet").wait_for()
    page.set_input_files("#slice-file input[type=file]", slices["grey.jpg"])
    page.locator("#viewer img[alt*='120 by 120']").wait_for()
    assert page.locator("#result li").count() == 0
    page.click("#classify")
    assert probabilities(page) == expected(run_dir, slices["grey.jpg"])


def test_the_keyboard_is_enough(visit: Visit, run_dir: Path, slices: dict[str, Path]) -> None:
    page = visit.page

    def tab_to(selector: str) -> None:
        for _ in range(15):
            page.keyboard.press("Tab")
            if page.evaluate("s => !!document.activeElement.closest(s)", selector):
                return
        pytest.fail(f"Tab does not reach {selector}")

    # The dialog itself is the browser's, and a busy headless one does not always report it: see that it is asked for.
    page.locator("#slice-file input[type=file]").evaluate(
        "input => input.addEventListener('click', e => { e.preventDefault(); window.dialogs = 1 })"
    )
    tab_to("#slice-file")
    page.keyboard.press("Enter")
    page.wait_for_function("window.dialogs === 1")
    page.set_input_files("#slice-file input[type=file]", slices["grey.png"])
    page.locator("#viewer img").wait_for()
    tab_to("#classify")
    page.keyboard.press("Enter")
    assert probabilities(page) == expected(run_dir, slices["grey.png"])


def test_a_bad_upload_is_told_in_the_page(visit: Visit, tmp_path: Path) -> None:
    page, file = visit.page, tmp_path / "notes.txt"
    file.write_text("not a picture")
    page.set_input_files("#slice-file input[type=file]", file)
    page.locator("#viewer [role=alert]", has_text="This file cannot be used").wait_for()
    page.click("#classify")
    page.locator(".toast-body", has_text="This file cannot be used").wait_for()
    assert page.locator("#result li").count() == 0


def test_the_page_names_its_title_and_language(visit: Visit) -> None:
    assert visit.page.title() == "Lung CT slice classifier"
    assert visit.page.evaluate("document.documentElement.lang") == "en"
    assert visit.page.locator("h1").count() == 1
