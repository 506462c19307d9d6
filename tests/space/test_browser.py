"""The page in a real Chromium: what a first visitor sees and does, with mouse and with keyboard only, wide and small.

LUNGCT_SCREENSHOTS=docs writes the pictures that the README shows.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from hub_server import HubServer
from lungct_hf import LungCT
from lungct_hf.classes import Classes
from lungct_hf.known_sets import schema_1_classes
from published import put, write_published
from runtime.small_model import TWO
from space_server import APP, LUNGCT, Server

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
NOTICE = "Research only. Not a medical device. Never use it for a diagnosis."
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
axe_api = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed")
if not Path(CHROMIUM).exists():
    pytest.skip(f"no browser at {CHROMIUM}: apt install chromium, or set CHROMIUM", allow_module_level=True)


# No animation that ends is running.
_AT_REST = (
    "document.getAnimations().every(a => a.playState !== 'running' || !isFinite(a.effect.getTiming().iterations))"
)


@dataclass
class Visit:
    page: playwright_api.Page
    name: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def check(self) -> None:
        """No serious or critical finding of axe-core, no sideways scrolling."""
        self.page.wait_for_function(_AT_REST)  # half-way through fading in, a text lacks contrast
        found = axe_api.Axe().run(self.page)["violations"]
        serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == []
        assert self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no sideways scrolling"

    def picture(self, what: str) -> None:
        """A screenshot for the docs, small enough for a repository."""
        folder = os.environ.get("LUNGCT_SCREENSHOTS")
        if folder and not self.name.startswith("zoomed"):
            taken = Image.open(io.BytesIO(self.page.screenshot(full_page=True)))
            path = Path(folder) / f"demo-{what}-{self.name}.png"
            taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
            assert path.stat().st_size < 200_000


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright_api.Browser]:
    with playwright_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


SIZES = {"wide-light": (1200, 800), "phone-dark": (360, 740), "zoomed-light": (600, 400)}  # 1200 x 800 at 200 %


@contextmanager
def visiting(browser: playwright_api.Browser, server: Server, size: str) -> Iterator[Visit]:
    """A visitor with a screen of this size. Afterwards: no error was met and nobody else was asked for anything."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=size.rpartition("-")[2])
    seen = Visit(context.new_page(), size)
    seen.page.set_default_timeout(60_000)
    seen.page.on("console", lambda line: line.type == "error" and seen.errors.append(line.text))
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.on("request", lambda sent: seen.hosts.add(urlsplit(sent.url).hostname or urlsplit(sent.url).scheme))
    seen.page.goto(server.url)
    seen.page.locator("#example-0").wait_for()
    yield seen
    assert seen.errors == []
    assert seen.hosts - {"127.0.0.1", "data", "blob"} == set(), "nothing may come from another host"
    context.close()


@pytest.fixture(params=SIZES)
def visit(request: pytest.FixtureRequest, browser: playwright_api.Browser, server: Server) -> Iterator[Visit]:
    with visiting(browser, server, request.param) as seen:
        yield seen


def shown(page: playwright_api.Page) -> dict[str, str]:
    rows = page.locator("#result .lc-bars li")
    rows.first.wait_for()
    return {row.locator(".lc-name").inner_text(): row.locator(".lc-value").inner_text() for row in rows.all()}


def expected(run_dir: Path, file: Path, *, force: bool = False) -> dict[str, str]:
    (one,) = LungCT.from_pretrained(run_dir / "model").predict(file, force=force)
    return {label: f"{value:.1%}" for label, value in one.probabilities.items()}


def choose(page: playwright_api.Page, selector: str, *files: Path) -> None:
    page.set_input_files(f"{selector} input[type=file]", list(files))


def test_a_slice_is_answered_looked_at_and_replaced(visit: Visit, run_dir: Path, slices: dict[str, Path]) -> None:
    page = visit.page
    notice = page.locator("#notice")
    assert notice.inner_text() == NOTICE
    box, height = notice.bounding_box(), page.viewport_size["height"]
    assert box is not None and box["y"] + box["height"] < height, "above the fold"
    page.get_by_text("It is useless on patients").wait_for()
    visit.check()

    choose(page, "#slice-file", slices["slice.dcm"])
    assert shown(page) == expected(run_dir, slices["slice.dcm"])
    assert page.locator("#viewer img").first.get_attribute("alt") == "The slice, 192 by 192 pixels"
    assert page.locator("#result .lc-badge").inner_text().split()[-1] in ("say", *schema_1_classes())
    before = page.locator("#viewer img").first.get_attribute("src")
    page.get_by_label("mediastinum").check()
    page.locator("#viewer figcaption", has_text="C 40 W 400").wait_for()
    assert page.locator("#viewer img").first.get_attribute("src") != before
    assert shown(page) == expected(run_dir, slices["slice.dcm"]), "the model was given its own window"
    page.locator("#opacity input[type=range]").fill("20")
    page.wait_for_function("getComputedStyle(document.querySelector('.lc-heat')).opacity == '0.2'")
    visit.picture("slice")
    visit.check()

    # Another file takes the old result away; a picture has no HU, so there is no window to choose.
    page.get_by_label("Clear").click()
    page.get_by_text("No result yet").wait_for()
    choose(page, "#slice-file", slices["grey.jpg"])
    assert shown(page) == expected(run_dir, slices["grey.jpg"])
    assert not page.locator("#preset").is_visible()


def test_what_is_no_slice_is_said_in_words_and_answered_when_forced(
    visit: Visit, run_dir: Path, slices: dict[str, Path], tmp_path: Path
) -> None:
    page, notes, photo = visit.page, tmp_path / "notes.txt", slices["colour photo.webp"]
    choose(page, "#slice-file", photo)
    page.locator("#result", has_text="I can't say: this is not a slice the model can judge").wait_for()
    page.locator("#result", has_text="The picture is in colour").wait_for()
    assert page.locator("#result .lc-bars").count() == 0
    visit.check()
    page.get_by_label("Answer even when the input check").check()
    assert shown(page) == expected(run_dir, photo, force=True)
    page.get_by_label("Clear").click()
    page.get_by_text("No result yet").wait_for()
    notes.write_text("not a picture")
    choose(page, "#slice-file", notes)
    page.locator("#result", has_text="This file cannot be used").wait_for()


def test_a_study_is_decided_opened_and_downloaded(visit: Visit, run_dir: Path, slices: dict[str, Path]) -> None:
    page = visit.page
    page.get_by_role("tab", name="Study").click()
    choose(page, "#study-files", slices["study.zip"])
    thumbs = page.locator(".lc-thumb")
    thumbs.first.wait_for()
    study = LungCT.from_pretrained(run_dir / "model").predict_study(slices["study.zip"])
    assert thumbs.count() == len(study.slices) == 4
    for place, one in enumerate(study.slices):
        name = {"abstain": "I can't say", "error": "not read", "refused": "not judged"}.get(one.decision, one.decision)
        assert thumbs.nth(place).get_attribute("aria-label") == f"Slice {place + 1} of 4: {name}"
        assert name in thumbs.nth(place).inner_text(), "the decision is a word, not only a colour"
    assert "3 of 4 slices were used" in page.locator("#study").inner_text()

    thumbs.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.locator(".lc-opened h3", has_text="Slice 2").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator(".lc-opened h3", has_text="Slice 3").wait_for()
    assert page.locator(".lc-opened img").first.get_attribute("alt") == "The slice"

    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert len(rows) == 5 and {row["notice"] for row in rows} == {NOTICE}
    with page.expect_download() as download:
        page.get_by_role("link", name="Download JSON").click()
    answer = json.loads(Path(download.value.path()).read_text())
    assert (answer["decision"], answer["notice"], answer["used"]) == (study.decision, NOTICE, 3)
    visit.picture("study")
    visit.check()


def test_the_model_tab_shows_the_grouped_figure_with_its_interval_first(visit: Visit, run_dir: Path) -> None:
    page = visit.page
    page.get_by_role("tab", name="Model").click()
    page.locator("#model dl").wait_for()
    text = page.locator("#model").inner_text()
    metrics = json.loads((run_dir / "model" / "evaluation" / "metrics.json").read_text())
    interval = metrics["test"]["intervals"]["balanced_accuracy"]
    said = f"{interval['value']:.1%} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]".replace("%", " %", 1)
    assert said in text and text.index(said) < text.index("Accuracy")
    assert "leak gap" in text and "this model: " in text and "nearest neighbour, no learning" in text
    assert "45 slices of generated phantoms" in text and "passed: 3 known slices" in text and "local directory" in text
    plots = page.locator(".lc-plots img")
    assert plots.count() >= 4 and all(plot.get_attribute("alt") for plot in plots.all())
    visit.picture("model")
    visit.check()


LONG = Classes(
    tuple(f"squamous cell carcinoma of the left lower lobe, stage {number} <b>" for number in range(20)),
    tuple(f"squamous cell carcinoma of the left lower lobe, stage {number} <b>" for number in range(3, 20)),
)


@pytest.mark.parametrize(
    ("classes", "sizes"),
    [(TWO, ["phone-dark"]), pytest.param(LONG, list(SIZES), marks=pytest.mark.slow)],
    ids=["two", "twenty"],
)
def test_a_model_of_any_number_of_classes_is_shown(
    browser: playwright_api.Browser,
    serving,
    slices: dict[str, Path],
    tmp_path: Path,
    classes: Classes,
    sizes: list[str],
) -> None:
    model = write_published(tmp_path / "model", classes)
    answers = LungCT.from_pretrained(model)
    with serving([*LUNGCT, "demo", str(model)]) as server:
        for size in sizes:
            with visiting(browser, server, size) as visit:
                page = visit.page
                choose(page, "#slice-file", slices["slice.dcm"])
                (one,) = answers.predict(slices["slice.dcm"])
                if len(classes) > 8:
                    page.locator("summary", has_text="12 classes that are less probable").click()
                assert shown(page) == {name: f"{chance:.1%}" for name, chance in one.probabilities.items()}
                most = max(one.probabilities, key=lambda name: one.probabilities[name])
                assert page.locator("#result .lc-bars li", has_text="highest").locator(".lc-name").inner_text() == most
                visit.check()
                visit.picture(f"slice-{len(classes)}")
                page.get_by_role("tab", name="Study").click()
                choose(page, "#study-files", slices["study.zip"])
                page.locator(".lc-thumb").first.wait_for()
                visit.check()
                visit.picture(f"study-{len(classes)}")
                page.get_by_role("tab", name="Model").click()
                page.locator("#model dl").wait_for()
                visit.picture(f"model-{len(classes)}")
                text = page.locator("#model").inner_text()
                facts = page.locator("#model dl").inner_text()
                assert all(name in facts for name in classes)
                assert facts.count("counts as disease") == len(classes.positive)
                assert ("Finding disease" in text) == bool(classes.positive)
                assert ("Macro AUROC" in text) == (len(classes) > 2)
                visit.check()


def test_the_keyboard_is_enough(visit: Visit, run_dir: Path, slices: dict[str, Path]) -> None:
    page = visit.page

    def tab_to(selector: str) -> None:
        for _ in range(30):
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
    tab_to("#example-2")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "focus is seen"
    page.keyboard.press("Enter")
    page.locator("#result", has_text="This phantom shows: spiculated nodule").wait_for()
    tab_to("#opacity")
    page.locator("#opacity input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("getComputedStyle(document.querySelector('.lc-heat')).opacity == '0.6'")
    page.get_by_role("tab", name="Slice").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    tab_to("#example-study")
    page.keyboard.press("Enter")
    page.locator(".lc-thumb").first.wait_for()
    assert page.locator(".lc-thumb").count() == 9


def test_the_page_names_its_title_and_language(visit: Visit) -> None:
    assert visit.page.title() == "Lung CT slice classifier"
    assert visit.page.evaluate("document.documentElement.lang") == "en"
    assert visit.page.locator("h1").count() == 1


def test_a_visitor_chooses_an_older_version(
    browser: playwright_api.Browser, serving, hub: HubServer, access: dict[str, str], run_dir: Path, tmp_path: Path
) -> None:
    older = shutil.copytree(run_dir / "model", tmp_path / "older")
    record = json.loads((older / "lungct.json").read_text())
    record["provenance"]["data"]["slices"] = 21
    (older / "lungct.json").write_text(json.dumps(record))
    first, second = put(hub, older), put(hub, run_dir / "model")
    hub.repo("alice/tiny").tags |= {"v1.0.0": first, "v2.0.0": second}
    with serving(APP, LUNGCT_REVISION="v2.0.0", **access) as server:
        context = browser.new_context(viewport={"width": 1200, "height": 800})
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(server.url)
        page.locator("#answers", has_text=second[:7]).wait_for()
        page.get_by_role("tab", name="Model").click()
        page.locator("#model", has_text=second).wait_for()
        page.locator("#version input").click()
        page.get_by_role("option", name="v1.0.0").click()
        page.locator("#model", has_text=first).wait_for()
        assert "21 slices" in page.locator("#model").inner_text() and second not in page.locator("#model").inner_text()
        page.locator("#answers", has_text=first[:7]).wait_for()
        page.get_by_role("tab", name="Slice").click()
        page.locator("#example-0").click()
        page.locator("#result .lc-bars li").first.wait_for()

        other = browser.new_context().new_page()  # chosen by one visitor, for that visitor alone
        other.goto(server.url)
        other.locator("#answers", has_text=second[:7]).wait_for()
        other.context.close()
        context.close()
