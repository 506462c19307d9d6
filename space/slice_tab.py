"""The tab Slice: one file in, the decision in words, the slice beside what the model looked at."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lungct_hf import Prediction
from lungct_hf.errors import LungCTError
from lungct_hf.runtime.overlay import heat_layer
from lungct_hf.serving.service import Phantom, Service, Source, phantom_examples
from lungct_hf.slices.source import Frame
from lungct_hf.slices.window import VIEWING, Window
from uploads import slice_file
from wording import KINDS, alert, data_uri, html, prediction_html, signed, worth_html

_NONE = '<p class="lc-empty">No result yet. Choose a file or one of the phantoms.</p>'
_HINT = f'<p class="lc-small">One axial slice: {KINDS}. Or a phantom, drawn with:</p>'
_NO_PICTURE = '<div class="lc-viewer lc-none"><p>No slice yet</p></div>'
_MODEL_WINDOW = "as the model sees it"
# A screen reader says the result when it comes; on a phone it is scrolled into view.
_ANNOUNCE = """
element.setAttribute('aria-live', 'polite');
watch('value', () => element.querySelector('.lc-decision, [role=alert]')?.scrollIntoView({block: 'nearest'}));
"""
_OPACITY = "value => { document.documentElement.style.setProperty('--lc-heat', value / 100); }"


@dataclass(frozen=True)
class Shown:
    """What is on the page: where the slice comes from, and the parts of its picture that a new window keeps."""

    source: Source
    heat: str
    label: str
    size: tuple[int, int]


def build_slice_tab(service: Service, version: gr.State) -> None:
    """Call inside a gr.Tab. `version` holds the version that the visitor chose."""
    shown = gr.State(None, time_to_live=1800)
    with gr.Row(equal_height=False, elem_classes="lc-columns"):
        with gr.Column(min_width=280, scale=2):
            upload = slice_file(label="Slice file", height=150, elem_id="slice-file")
            gr.HTML(**html(_HINT))
            with gr.Row(elem_classes="lc-examples"):
                examples = {
                    phantom: gr.Button(phantom.nodule, size="sm", min_width=80, elem_id=f"example-{n}")
                    for n, phantom in enumerate(phantom_examples())
                }
            force = gr.Checkbox(
                label="Answer even when the input check refuses the slice, or it is from elsewhere", elem_id="force"
            )
            result = gr.HTML(_NONE, js_on_load=_ANNOUNCE, elem_id="result", padding=False)
            with gr.Accordion("The same answer as JSON", open=False):
                answer = gr.JSON(show_label=False, label="Answer", elem_id="answer")
        with gr.Column(min_width=280, scale=3):
            viewer = gr.HTML(**html(_NO_PICTURE), elem_id="viewer")
            opacity = gr.Slider(0, 100, 55, step=5, label="Heat map, percent", elem_id="opacity")
            with gr.Group(visible=False) as window:
                preset = gr.Radio(
                    [_MODEL_WINDOW, *VIEWING],
                    value=_MODEL_WINDOW,
                    label="Window for looking; the model always gets its own",
                    elem_id="preset",
                )
                center = gr.Slider(-1200, 1200, -485, step=5, label="Centre, HU", elem_id="center")
                width = gr.Slider(50, 3000, 1500, step=10, label="Width, HU", elem_id="width")

    outputs = [result, viewer, answer, shown, window, preset, center, width]

    def show(source: Source, version: str, force: bool) -> dict[Any, Any]:
        found, one = service.slice(source, version=version, force=force)
        model = service.served(version).model
        contract = model.contract
        own = contract.window
        said = prediction_html(one, contract.classes) + worth_html(model.worth, model.note)
        if isinstance(source, Phantom):
            said += f'<p class="lc-small lc-known">This phantom shows: <b>{source.nodule}</b>.</p>'
        reset = {
            result: said,
            answer: service.slice_json(one, version),
            window: gr.Group(visible=False),
            preset: _MODEL_WINDOW,
            center: own.center,
            width: own.width,
        }
        if not isinstance(found, Frame):
            return reset | {viewer: _NO_PICTURE, shown: None}
        size = found.pixels.size
        heat = data_uri(heat_layer(one.cam, *size)) if one.cam is not None else ""
        now = Shown(source, heat, _most_probable(one), size)
        has_hu = found.report.facts.get("kind") in ("dicom", "nifti", "array")
        return reset | {
            viewer: _viewer(data_uri(found.pixels), now, own),
            shown: now,
            window: gr.Group(visible=has_hu),
        }

    def nothing() -> dict[Any, Any]:
        return {result: _NONE, viewer: _NO_PICTURE, answer: None, shown: None, window: gr.Group(visible=False)}

    def carefully(source: Source | None, version: str, force: bool) -> dict[Any, Any]:
        if source is None:
            return nothing()
        try:
            return show(source, version, force)
        except LungCTError as error:
            return nothing() | {result: alert(str(error))}

    def uploaded(file: str | None, version: str, force: bool) -> dict[Any, Any]:
        return carefully(Path(file) if file else None, version, force)

    def again(now: Shown | None, file: str | None, version: str, force: bool) -> dict[Any, Any]:
        if now is not None and isinstance(now.source, Phantom):
            return carefully(now.source, version, force)
        return uploaded(file, version, force)

    def view(now: Shown | None, center: float, width: float) -> Any:
        if now is None:
            return gr.skip()
        try:
            looking = Window(float(center), max(float(width), 1.0))
            return _viewer(data_uri(service.view(now.source, looking)), now, looking)
        except LungCTError as error:
            return f'<div class="lc-viewer">{alert(str(error))}</div>'

    def take(name: str, version: str) -> tuple[float, float]:
        chosen = service.served(version).model.contract.window if name == _MODEL_WINDOW else VIEWING[name]
        return chosen.center, chosen.width

    private: dict[str, Any] = {"api_visibility": "private"}
    asked = private | {"show_progress_on": result, "concurrency_limit": 8}
    # An old result must never stand beside a new slice, so it is cleared in the browser before anything is sent.
    upload.change(None, None, [result, answer], js=f"() => [{_NONE!r}, null]", **private)
    upload.change(uploaded, [upload, version, force], outputs, trigger_mode="always_last", **asked)
    force.input(again, [shown, upload, version, force], outputs, trigger_mode="always_last", **asked)
    for phantom, button in examples.items():

        def example(version: str, force: bool, phantom: Phantom = phantom) -> dict[Any, Any]:
            return carefully(phantom, version, force)

        button.click(example, [version, force], outputs, **asked)
    opacity.change(None, opacity, None, js=_OPACITY, **private)
    quiet = private | {"show_progress": "hidden", "concurrency_limit": 8, "trigger_mode": "always_last"}
    preset.input(take, [preset, version], [center, width], **quiet).then(
        view, [shown, center, width], viewer, show_progress="hidden", **private
    )
    for slider in (center, width):  # `input`: by a visitor's hand, not by a preset or a new slice
        slider.input(None, None, preset, js="() => null", **private)
        slider.input(view, [shown, center, width], viewer, **quiet)


def _most_probable(one: Prediction) -> str:
    chances = one.probabilities or {}
    return max(chances, key=lambda label: chances[label], default="")


def _viewer(source: str, now: Shown, window: Window) -> str:
    width, height = now.size
    own = f"{width} &times; {height}, C {signed(window.center)} W {window.width:g} HU"
    picture = f'<img src="{source}" alt="The slice, {width} by {height} pixels">'
    panels = f'<figure class="lc-viewer">{picture}<figcaption>{own}</figcaption></figure>'
    if now.heat:
        about = escape(f"what spoke for {now.label}")
        panels += (
            f'<figure class="lc-viewer"><img src="{source}" alt=""><img class="lc-heat" src="{now.heat}" '
            f'alt="Heat map over the slice: {about}"><figcaption>Heat map: {about}</figcaption></figure>'
        )
    return f'<div class="lc-panels">{panels}</div>'
