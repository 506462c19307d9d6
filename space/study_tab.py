"""The tab Study: many slices in, one decision, a strip of slices to open; all of it lives in the visitor's browser."""

from __future__ import annotations

import json
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lungct_hf import Prediction
from lungct_hf.classes import Classes
from lungct_hf.errors import LungCTError
from lungct_hf.runtime import Study
from lungct_hf.runtime.overlay import heat_layer
from lungct_hf.serving.limits import MAX_SLICES, MAX_UPLOAD, MB
from lungct_hf.serving.service import Service, Source, phantom_study
from lungct_hf.serving.tables import study_csv
from lungct_hf.slices.source import Frame, Unreadable
from uploads import slice_file
from wording import NO_CLASS, alert, badge, data_uri, decision_html, html, mark, name_of, prediction_html, worth_html

_NONE = '<p class="lc-empty">No study yet. Choose a zip archive, several files, or the phantom study.</p>'
_THUMB, _LARGE = 96, 400  # pixels
# A slice opens where the visitor is: no request, and nothing of the study stays on the server.
_OPEN = """
element.setAttribute('aria-live', 'off');
const open = (button) => {
  const pane = element.querySelector('.lc-opened');
  pane.innerHTML = element.querySelector('#' + button.getAttribute('aria-controls')).innerHTML;
  element.querySelectorAll('.lc-thumb').forEach(one => one.setAttribute('aria-pressed', one === button));
};
element.addEventListener('click', event => {
  const button = event.target.closest('.lc-thumb');
  if (button) open(button);
});
element.addEventListener('keydown', event => {
  const button = event.target.closest('.lc-thumb');
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!button || !step) return;
  const all = [...element.querySelectorAll('.lc-thumb')];
  const next = all[all.indexOf(button) + step];
  if (next) { next.focus(); open(next); }
  event.preventDefault();
});
"""


def build_study_tab(service: Service, version: gr.State) -> None:
    """Call inside a gr.Tab. `version` holds the version that the visitor chose."""
    with gr.Row(elem_classes="lc-columns", equal_height=False):
        with gr.Column(min_width=280, scale=2):
            files = slice_file(
                label="One zip archive, or the files of one study",
                file_count="multiple",
                height=150,
                elem_id="study-files",
            )
            example = gr.Button("Phantom study: 9 slices", size="sm", elem_id="example-study")
        with gr.Column(min_width=280, scale=3):
            gr.HTML(
                **html(
                    f'<p class="lc-small">Up to {MAX_SLICES} slices and {MAX_UPLOAD // MB} MB. Slices are put in scan '
                    "order, judged one by one, and their probabilities averaged to one decision. The thresholds were "
                    "measured on slices, so a case's decision promises no error rate.</p>"
                )
            )
    result = gr.HTML(_NONE, js_on_load=_OPEN, elem_id="study", padding=False)

    def read(sources: list[Source], version: str, progress: gr.Progress) -> str:
        pictures: dict[int, str] = {}

        def keep(found: Frame | Unreadable, one: Prediction) -> None:
            pictures[id(one)] = _slice_html(found, one, classes)

        def tell(done: int, total: int | None) -> None:
            progress((done, max(total or 0, done) or None), desc=f"{done} slices read", unit="slices")

        try:
            classes = service.served(version).model.contract.classes
            study = service.study(sources, version=version, progress=tell, keep=keep)
        except LungCTError as error:
            return alert(str(error))
        return study_html(study, classes, pictures, service.study_json(study, version))

    def uploaded(paths: list[str] | None, version: str, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        return read([Path(path) for path in paths], version, progress) if paths else _NONE

    def phantoms(version: str, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        return read(list(phantom_study()), version, progress)

    asked: dict[str, Any] = {"api_visibility": "private", "show_progress_on": result, "concurrency_limit": 2}
    files.change(uploaded, [files, version], result, trigger_mode="always_last", **asked)
    example.click(phantoms, [version], result, **asked)


def _slice_html(found: Frame | Unreadable, one: Prediction, classes: Classes) -> str:
    """The picture of an opened slice and what is said about it. Small copies: the page holds hundreds."""
    if not isinstance(found, Frame):
        return prediction_html(one, classes)
    picture = f'<img src="{data_uri(found.pixels, _LARGE, "JPEG")}" alt="The slice">'
    if one.cam is not None:
        layer = heat_layer(one.cam, *found.pixels.size)
        picture += f'<img class="lc-heat" src="{data_uri(layer, 40)}" alt="Heat map over it">'
    thumb = data_uri(found.pixels, _THUMB, "JPEG")
    return f'<!--{thumb}--><figure class="lc-viewer">{picture}</figure><div>{prediction_html(one, classes)}</div>'


def study_html(study: Study, classes: Classes, pictures: dict[int, str], answer: dict[str, Any]) -> str:
    """The decision, the downloads, the strip, and the first slice opened."""
    detail = (
        None if study.used or study.studies or study.decision == "abstain" else "None of the slices could be judged."
    )
    case = decision_html(study.decision, study.reason, detail, study.probabilities, classes, of="case")
    case += worth_html(answer["worth"], study.note)
    counts = {name: sum(one.decision == name for one in study.slices) for name in (*classes, *NO_CLASS)}
    legend = "".join(f"<li>{badge(name, classes)} {count}</li>" for name, count in counts.items() if count)
    several = "".join(
        f"<h3>Scan {number} of {len(study.studies)}: {escape(one.title or 'pictures')}</h3>"
        + decision_html(one.decision, one.reason, None, one.probabilities, classes, of="case")
        for number, one in enumerate(study.studies, 1)
    )
    used = sum(one.used for one in study.studies or (study,))
    thumbs, stored = [], []
    for number, one in enumerate(study.slices, 1):
        inner = pictures.get(id(one), "")
        source, _, rest = inner.partition("-->") if inner.startswith("<!--") else ("", "", inner)
        image = f'<img src="{source[4:]}" alt="">' if source else '<span class="lc-nothing"></span>'
        name, (shape, colour) = escape(name_of(one.decision)), mark(one.decision, classes)
        thumbs.append(
            f'<button type="button" class="lc-thumb {colour}" aria-controls="lc-slice-{number}" '
            f'aria-pressed="{str(number == 1).lower()}" aria-label="Slice {number} of {len(study.slices)}: {name}">'
            f'{image}<span class="lc-mark">{number} <span aria-hidden="true">{shape}</span> {name}</span></button>'
        )
        file = f"{one.file} ({one.frame})" if one.frame else one.file
        place = f", {one.position:g} mm" if one.series and one.position is not None else ""
        stored.append(f'<div id="lc-slice-{number}"><h3>Slice {number}: {escape(file)}{place}</h3>{rest}</div>')
    first = stored[0].partition(">")[2].removesuffix("</div>") if stored else ""
    return (
        f'<div class="lc-case" aria-live="polite"><div><h2>Case</h2>{case}{several}</div><div><h2>Slices</h2>'
        f'<ul class="lc-legend">{legend}</ul><p class="lc-small">{used} of {len(study.slices)} slices were used '
        f"for the decision.</p>{_downloads(study, answer)}</div></div>"
        f'<div class="lc-strip" role="group" aria-label="Slices: open one with Enter, move with the arrow keys">'
        f'{"".join(thumbs)}</div><div class="lc-opened" role="region" aria-label="The opened slice" tabindex="0">'
        f"{first}</div><div hidden>{''.join(stored)}</div>"
    )


def _downloads(study: Study, answer: dict[str, Any]) -> str:
    files = {"csv": ("text/csv", study_csv(study)), "json": ("application/json", json.dumps(answer, indent=2))}
    links = "".join(
        f'<a class="lc-button" download="lungct-study.{kind}" href="data:{mime};charset=utf-8;base64,'
        f'{b64encode(content.encode()).decode()}">Download {kind.upper()}</a>'
        for kind, (mime, content) in files.items()
    )
    return f'<p class="lc-downloads">{links}</p>'
