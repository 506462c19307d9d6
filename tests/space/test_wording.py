"""What a visitor reads: any number of classes, told apart by word and shape and not by colour alone, and no HTML of a
class's name."""

from __future__ import annotations

import re
import sys
from html import unescape

import pytest

from helpers import ROOT
from lungct_hf.classes import MOST, Classes
from lungct_hf.known_sets import known_sets

sys.path.append(str(ROOT / "space"))

import wording  # noqa: E402 - it lies in the Space's folder

STYLE = (ROOT / "space" / "style.css").read_text()
MANY = Classes(
    tuple(f"finding {number}" for number in range(MOST)), tuple(f"finding {number}" for number in range(40))
)


def of_bars(html: str) -> list[str]:
    return re.findall(r'<span class="lc-name">(.*?)</span>', html)


@pytest.mark.parametrize("classes", [*(known.classes for known in known_sets().values()), MANY], ids=len)
def test_every_decision_has_a_word_a_shape_and_a_colour_of_the_style(classes: Classes) -> None:
    marks = {name: wording.mark(name, classes) for name in (*classes, *wording.NO_CLASS)}
    for name, (shape, colour) in marks.items():
        assert re.search(rf"^\.{colour} {{ --lc: #[0-9a-f]{{6}}; }}$", STYLE, re.M) or colour == "lc-refused"
        assert shape in wording.badge(name, classes) and wording.name_of(name) in unescape(
            wording.badge(name, classes)
        )
    filled = {marks[name][0] for name in classes.positive}
    assert filled.isdisjoint(marks[name][0] for name in marks if name not in classes.positive), "disease by its shape"
    if len(classes) <= 8:
        assert len({shape for shape, _ in marks.values()}) == len(marks), "no two decisions share a shape"


def test_the_bars_of_few_classes_keep_their_order_and_those_of_many_begin_with_the_probable() -> None:
    few = Classes(("a", "b"), ("b",))
    said = wording.decision_html("b", None, None, {"a": 0.3, "b": 0.7}, few, of="slice")
    assert of_bars(said) == ["a", "b"] and "Among its 2 classes" in said and "counts as disease" in said
    chances = {name: (number + 1) / 5050 for number, name in enumerate(MANY)}
    said = wording.bars(chances, "abstain", MANY)
    assert of_bars(said) == sorted(MANY, key=lambda name: -chances[name]), "all of them, none left out"
    assert of_bars(said.partition("<details>")[0]) == [f"finding {number}" for number in range(99, 91, -1)]


def test_an_answer_that_nobody_stands_by_wears_no_badge_of_a_class() -> None:
    """Neither from outside the training source nor past the input check, whatever the force switch asks for."""
    classes, chances = Classes(("a", "b"), ("b",)), {"a": 0.1, "b": 0.9}
    for reason in ("unlike-training-source", "not-ct"):
        said = wording.decision_html("b", reason, None, chances, classes, of="slice")
        badges = re.findall(r'<span class="lc-badge (\S+)">', said)
        assert badges == ["lc-abstain"] and "only because it was told to answer" in said
    said = wording.decision_html("abstain", "unlike-training-source", None, chances, classes, of="slice")
    assert "made differently" in said and "train a model on slices from there" in said
    assert "lc-badge lc-positive" in wording.decision_html("b", None, None, chances, classes, of="slice")


def test_a_name_of_a_class_is_text() -> None:
    evil = Classes(("<img src=x onerror=alert(1)>", 'b" onclick="alert(1)'), ())
    for decision in (*evil, "abstain"):
        said = wording.decision_html(decision, None, None, dict.fromkeys(evil, 0.5), evil, of="slice")
        assert "<img" not in said and 'onclick="' not in said and "&lt;img" in said


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("mode", "background"), [("", "#ffffff"), (".dark ", "#1e293b")])
def test_every_colour_of_a_decision_can_be_read(mode: str, background: str) -> None:
    """WCAG 2.1, 1.4.3: 4.5 to 1, on the page's lightest and on its lightest dark ground."""
    found = re.findall(rf"^{re.escape(mode)}\.lc-[\w-]+ {{ --lc: (#[0-9a-f]{{6}}); }}$", STYLE, re.M)
    assert len(found) >= 10
    for colour in found:
        light, dark = sorted((luminance(colour), luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


def test_from_elsewhere_there_is_a_reason_and_advice_and_no_class_stands_out() -> None:
    classes, chances = Classes(("a", "b"), ("b",)), {"a": 0.1, "b": 0.9}
    for decision in ("abstain", "b"):  # as it is, and told to answer
        said = wording.decision_html(decision, "unlike-training-source", None, chances, classes, of="slice")
        assert "made differently" in unescape(said) and "What to do: train a model on slices from there" in said
        assert re.findall(r'<span class="lc-badge (\S+)">', said) == ["lc-abstain"] and "lc-top" not in said
    beside = wording.worth_html("Worth <b>.", "Only & phantoms")
    assert "Worth &lt;b&gt;." in beside and "<strong>Only &amp; phantoms</strong>" in beside
