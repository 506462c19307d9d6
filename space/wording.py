"""Every sentence and every piece of HTML that more than one tab shows."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from typing import Any

from PIL import Image

from lungct_hf import Prediction
from lungct_hf.classes import Classes
from lungct_hf.decision import SENTENCES as ABSTAIN_SENTENCES
from lungct_hf.decision import WHAT_TO_DO
from lungct_hf.runtime.prediction import NOTICE
from lungct_hf.slices.report import SENTENCES, WARNINGS

TITLE = "Lung CT slice classifier"
KINDS = "DICOM, PNG, JPEG, TIFF, WebP, BMP or NIfTI"
# A shape and a word for every decision: colour only repeats what they say. Filled shapes count as disease.
_OPEN, _FILLED, _COLOURS = "○◇□▽△", "▲◆■▼●", 4  # colours of each kind in style.css
NO_CLASS = {"abstain": "?", "refused": "✕", "error": "!"}
_NAMES = {"abstain": "I can't say", "refused": "not judged", "error": "not read"}
_BARS = 8  # classes whose bars are shown at once


def html(text: str) -> dict[str, Any]:
    """The arguments of a gr.HTML that only shows something."""
    return {"value": text, "js_on_load": None, "padding": False}


def header() -> str:
    """Title and notice: what stands above everything."""
    first, rest = NOTICE.split(". ", 1)
    return (
        f'<header class="lc-header"><h1>{TITLE}</h1>'
        f'<p class="lc-notice" id="notice" role="note"><strong>{first}.</strong> {rest}</p></header>'
    )


def training_warning(note: str | None) -> str:
    """What a visitor must know of a model before its first answer, LungCT.note; empty where there is nothing."""
    return f'<p class="lc-notice lc-warning" role="note">{escape(note)}</p>' if note else ""


def worth_html(worth: str, note: str | None) -> str:
    """The line that stands beside every decision, and before it what must be known of the training."""
    first = f"<strong>{escape(note)}</strong> " if note else ""
    return f'<p class="lc-small lc-worth">{first}{escape(worth)}</p>'


def name_of(decision: str) -> str:
    """A decision as a visitor reads it; not escaped."""
    return _NAMES.get(decision, decision)


def mark(decision: str, classes: Classes) -> tuple[str, str]:
    """The shape of a decision of a model with these classes, and its colour's name in style.css."""
    if decision not in classes:
        return NO_CLASS[decision], f"lc-{decision}"
    is_positive = decision in classes.positive
    alike = [name for name in classes if (name in classes.positive) is is_positive]
    shapes, place = _FILLED if is_positive else _OPEN, alike.index(decision)
    return shapes[place % len(shapes)], f"lc-{'positive' if is_positive else 'other'}-{place % _COLOURS}"


def badge(decision: str, classes: Classes) -> str:
    """Shape and word of a decision."""
    shape, colour = mark(decision, classes)
    return (
        f'<span class="lc-badge {colour}"><span aria-hidden="true">{shape}</span> {escape(name_of(decision))}</span>'
    )


def decision_html(
    decision: str,
    reason: str | None,
    detail: str | None,
    probabilities: Mapping[str, float] | None,
    classes: Classes,
    *,
    of: str,
) -> str:
    """The decision in words and the probabilities as bars. `of` is "slice" or "case"."""
    is_forced = decision in classes and reason is not None  # an answer that nobody stands by wears no class's badge
    head = f'<p class="lc-decision">{badge("abstain" if is_forced else decision, classes)}</p>'
    if decision in classes:
        name = f"<strong>{escape(decision)}</strong>"
        text = f"Among its {len(classes)} classes the model finds this {of} most like {name}."
        if decision in classes.positive:
            text += " That class counts as disease."
        if is_forced:
            text += f" It says so only because it was told to answer. {escape(_sentence(reason, detail))}"
            text += _advice(reason)
    else:
        said = {
            "refused": f"<strong>I can't say: this is not a {of} the model can judge.</strong> ",
            "error": "<strong>This file cannot be used.</strong> ",
        }.get(decision, "")
        text = said + escape(_sentence(reason, detail))
        if decision == "refused":
            text += " It was not shown to the model."
        text += _advice(reason)
    shown = "abstain" if is_forced else decision  # no class of such an answer is marked in the bars either
    return f"{head}<p>{text}</p>{bars(probabilities, shown, classes)}"


def _advice(reason: str | None) -> str:
    found = WHAT_TO_DO.get(reason or "")
    return f" <strong>{escape(found)}</strong>" if found else ""


def _sentence(reason: str | None, detail: str | None) -> str:
    return detail or ABSTAIN_SENTENCES.get(reason or "") or SENTENCES.get(reason or "") or ""


def bars(probabilities: Mapping[str, float] | None, decision: str, classes: Classes) -> str:
    """The calibrated probabilities in the order of the classes; of many classes the most probable ones first."""
    if not probabilities:
        return ""
    top = max(probabilities, key=lambda label: probabilities[label])
    shown = list(probabilities)
    if len(shown) > _BARS:
        shown.sort(key=lambda label: -probabilities[label])

    def bar(label: str) -> str:
        value = probabilities[label]
        return (
            f'<li class="{"lc-top" if label == top and decision in classes else ""}"><span class="lc-class">'
            f'<span aria-hidden="true">{mark(label, classes)[0]}</span> <span class="lc-name">{escape(label)}</span>'
            f"{' <em>highest</em>' if label == top else ''}</span> "
            f'<span class="lc-value">{value:.1%}</span>'
            f'<span class="lc-track" aria-hidden="true"><span style="width:{value:.2%}"></span></span></li>'
        )

    first, rest = ("".join(map(bar, part)) for part in (shown[:_BARS], shown[_BARS:]))
    listed = f'<ul class="lc-bars" aria-label="Class probabilities">{first}</ul>'
    if rest:
        listed += (
            f"<details><summary>{len(shown) - _BARS} classes that are less probable</summary>"
            f'<ul class="lc-bars" aria-label="Probabilities of the other classes">{rest}</ul></details>'
        )
    note = "A high value is not a finding."
    if decision == "abstain":
        note = "The model does not stand by these values; they are shown so that nothing is hidden."
    return f'{listed}<p class="lc-small">{note}</p>'


def prediction_html(one: Prediction, classes: Classes) -> str:
    """Everything there is to say about one slice."""
    detail = one.detail or (one.report.sentence if one.report and one.report.codes else None)
    said = decision_html(one.decision, one.reason, detail, one.probabilities, classes, of="slice")
    noticed = [WARNINGS[code] for code in one.report.warnings if code in WARNINGS] if one.report else []
    if noticed:
        said += '<p class="lc-small">Noticed: ' + " ".join(map(escape, noticed)) + "</p>"
    return said


def alert(sentence: str) -> str:
    return f'<p class="lc-alert" role="alert">{escape(sentence)}</p>'


def data_uri(picture: Image.Image, side: int = 640, kind: str = "PNG") -> str:
    """A picture inside the page, at most `side` pixels; nothing is written to the server's disk."""
    shown = picture.copy()
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    if shown.mode == "RGB":
        red, green, blue = shown.split()
        shown = red if red == green == blue else shown
    encoded = io.BytesIO()
    shown.save(encoded, kind, **({"quality": 82} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"


def signed(hu: float) -> str:
    """HU with a real minus sign."""
    return f"{hu:g}".replace("-", "\N{MINUS SIGN}")
