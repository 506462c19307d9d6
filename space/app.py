"""The demo: one page over `LungCTClassifier`, widgets and wording only.

    LUNGCT_MODEL=owner/name LUNGCT_REVISION=v1.0.0 python app.py
    LUNGCT_MODEL=runs/NAME/model python app.py              # or: lungct demo runs/NAME

GRADIO_SERVER_NAME and GRADIO_SERVER_PORT choose the address. Nothing leaves the machine once the model is loaded.
"""

from __future__ import annotations

import base64
import io
import os
import threading
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from huggingface_hub import constants
from PIL import Image

from lungct_hf.errors import BadSliceError, LungCTError, UsageError, exit_on_error
from lungct_hf.slices.read import read_slice

if TYPE_CHECKING:
    from lungct_hf import LungCTClassifier

NOTICE = "Research only. Not a medical device. Never use it for a diagnosis."
TITLE = "Lung CT slice classifier"
FORMATS = "PNG, JPEG, TIFF, WebP or BMP"

_STYLE = Path(__file__).with_name("style.css")
_MAX_UPLOAD = "32mb"
_CLEAN_EVERY, _KEEP_UPLOADS = 600, 1800  # seconds
_PREVIEW_SIDE = 640  # pixels; larger slices are shown smaller, the model still gets the file as it came
_NO_RESULT = '<p class="lc-empty">No result yet.</p>'
_NO_SLICE = '<div class="lc-viewer lc-none"><p>No slice yet</p></div>'
# A screen reader says the result when it comes; on a phone it is scrolled into view.
_ANNOUNCE = """
element.setAttribute('aria-live', 'polite');
watch('value', () => element.querySelector('.lc-bars')?.scrollIntoView({block: 'nearest', behavior: 'smooth'}));
"""


def build_app(classifier: LungCTClassifier) -> gr.Blocks:
    """The page and its /predict endpoint for one loaded model. Start it with `serve`."""
    predict = make_predict(classifier)
    # One slice at a time: torch already uses every core for it.
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(_CLEAN_EVERY, _KEEP_UPLOADS)) as app:
        gr.HTML(_header(classifier.contract.provenance), js_on_load=None)
        with gr.Row(equal_height=False, elem_classes="lc-columns"):
            with gr.Column(min_width=280):
                gr.HTML("<h2>Slice</h2>", js_on_load=None)
                viewer = gr.HTML(_NO_SLICE, js_on_load=None, elem_id="viewer")
                # Bytes, not gr.Image: the model must get the file that was sent, not a copy that was encoded again.
                slice_file = gr.File(label="Slice file", type="binary", height=150, elem_id="slice-file")
                gr.HTML(f'<p class="lc-small">One axial slice, {FORMATS}, in the lung window.</p>', js_on_load=None)
                button = gr.Button("Classify this slice", variant="primary", elem_id="classify")
            with gr.Column(min_width=280):
                gr.HTML("<h2>Result</h2>", js_on_load=None)
                result = gr.HTML(_NO_RESULT, js_on_load=_ANNOUNCE, elem_id="result")
                with gr.Accordion("The same answer as JSON", open=False):
                    answer = gr.JSON(show_label=False, label="Answer", elem_id="answer")
                gr.HTML(_model_facts(classifier), js_on_load=None, elem_id="model")

        # An old result must never stand beside a new slice, so it is cleared in the browser before anything is sent.
        slice_file.change(None, None, [result, answer], js=f"() => [{_NO_RESULT!r}, null]", api_visibility="private")
        slice_file.change(
            _show_slice, slice_file, viewer, api_visibility="private", show_progress="hidden", concurrency_limit=4
        )
        button.click(
            predict, slice_file, answer, api_name="predict", show_progress_on=result, concurrency_limit=1
        ).success(_show_answer, answer, result, api_visibility="private", show_progress="hidden", concurrency_limit=8)
    return app.queue(max_size=64)


def make_predict(classifier: LungCTClassifier) -> Callable[[bytes | None], dict[str, Any]]:
    """The function behind /predict."""
    model = classifier.repo_id or classifier.name

    def predict(slice_file: bytes | None) -> dict[str, Any]:
        """Class probabilities of one lung CT slice, an image file. Research only, never for a diagnosis.

        Answers {"probabilities": {"normal", "benign", "malignant"}, "label", "model", "revision", "notice"};
        "revision" is the commit of the model on the Hub, null when it was loaded from a directory.
        """
        if slice_file is None:
            raise _page_error(f"No slice was given: upload one as {FORMATS} first.")
        try:
            row = classifier.predict(read_slice(slice_file))[0]
        except BadSliceError as error:
            raise _page_error(_cannot_use(error)) from None
        probabilities = {label: float(value) for label, value in zip(classifier.labels, row, strict=True)}
        return {
            "probabilities": probabilities,
            "label": max(probabilities, key=probabilities.__getitem__),
            "model": model,
            "revision": classifier.revision,
            "notice": NOTICE,
        }

    return predict


def _page_error(sentence: str) -> gr.Error:
    return gr.Error(sentence, title="Not classified", print_exception=False)


def _cannot_use(error: BadSliceError) -> str:
    return f"This file cannot be used: {error}. Upload one slice as {FORMATS}."


def _show_slice(slice_file: bytes | None) -> str:
    if slice_file is None:
        return _NO_SLICE
    try:
        image = read_slice(slice_file)
    except BadSliceError as error:
        return f'<div class="lc-viewer"><p role="alert">{escape(_cannot_use(error))}</p></div>'
    width, height = image.size
    image.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    source = base64.b64encode(encoded.getvalue()).decode("ascii")
    return (
        f'<figure class="lc-viewer"><img src="data:image/png;base64,{source}" '
        f'alt="The uploaded slice, {width} by {height} pixels">'
        f"<figcaption>{width} &times; {height} px</figcaption></figure>"
    )


def _show_answer(answer: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<li class="{"lc-top" if label == answer["label"] else ""}"><span class="lc-class">{escape(label)}'
        f"{' <em>highest</em>' if label == answer['label'] else ''}</span> "
        f'<span class="lc-value">{value:.1%}</span>'
        f'<span class="lc-track" aria-hidden="true"><span style="width:{value:.2%}"></span></span></li>'
        for label, value in ((str(label), float(value)) for label, value in answer["probabilities"].items())
    )
    return (
        f'<ul class="lc-bars" aria-label="Class probabilities">{rows}</ul>'
        '<p class="lc-small">The model must always choose among these three classes, even for a picture that is no '
        "lung CT slice. A high value is not a finding.</p>"
    )


def _header(provenance: Mapping[str, Any]) -> str:
    first, rest = NOTICE.split(". ", 1)
    warning = _training_warning(provenance)
    extra = f'<p class="lc-notice lc-warning" role="note">{escape(warning)}</p>' if warning else ""
    return (
        f'<header class="lc-header"><h1>{TITLE}</h1>'
        f'<p class="lc-notice" id="notice" role="note"><strong>{first}.</strong> {rest}</p>{extra}</header>'
    )


def _training_warning(provenance: Mapping[str, Any]) -> str | None:
    kind = _kind(provenance, "data")
    if kind is None:
        return "This model does not say what it was trained on, so its probabilities mean nothing."
    if kind == "phantom":
        return "This model was trained on generated phantoms. It is useless on patients."
    return None


def _model_facts(classifier: LungCTClassifier) -> str:
    repo, revision, contract = classifier.repo_id, classifier.revision, classifier.contract
    if repo and revision:
        address = f"{constants.ENDPOINT}/{repo}/tree/{revision}"
        model = f'<a href="{escape(address)}" rel="noopener" target="_blank">{escape(repo)}</a>'
        commit = f"<strong>{escape(revision[:7])}</strong> <code>{escape(revision)}</code>"
    else:
        model, commit = escape(classifier.name), "local directory, not a published revision"
    size, window = contract.preprocessing.size, contract.window
    facts = {
        "Name": model,
        "Revision": commit,
        "Trained on": escape(_trained_on(contract.provenance)),
        "Started from": escape(_started_from(contract.provenance)),
        "Network": f"{escape(contract.architecture)}, {size} &times; {size} px, letterboxed, never cropped",
        "Lung window": f"centre {_signed(window.center)} HU, width {window.width:g} HU",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<h2>Model</h2><dl class="lc-facts">{rows}</dl>'


def _signed(hu: float) -> str:
    return f"{hu:g}".replace("-", "\N{MINUS SIGN}")


def _trained_on(provenance: Mapping[str, Any]) -> str:
    data, kind = provenance.get("data"), _kind(provenance, "data")
    if kind is None or not isinstance(data, Mapping):
        return "not recorded"
    slices = f"{data['slices']} slices" if "slices" in data else "slices"
    if kind == "phantom":
        return f"{slices} of generated phantoms, no patients"
    return f"{slices} from {data.get('source') or kind}"


def _started_from(provenance: Mapping[str, Any]) -> str:
    kind = _kind(provenance, "init")
    known = {
        None: "not recorded",
        "imagenet1k-v2": "ImageNet-1K V2 weights",
        "random": "random weights, no pretraining",
        "stand-in": "a weight file other than ImageNet-1K V2",
    }
    return known.get(kind) or str(kind)


def _kind(provenance: Mapping[str, Any], key: str) -> str | None:
    entry = provenance.get(key)
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    return str(kind) if kind else None


def load() -> LungCTClassifier:
    """The model that LUNGCT_MODEL and LUNGCT_REVISION name, warmed up.

    Raises LungCTError with the fix when it is not set, not there or cannot be loaded.
    """
    model = os.environ.get("LUNGCT_MODEL", "").strip()
    if not model:
        raise UsageError(
            "LUNGCT_MODEL is not set, so there is nothing to serve. Fix: set it to OWNER/NAME, OWNER/NAME@REVISION or "
            "a model directory (a Space: Settings, Variables)."
        )
    from lungct_hf import LungCTClassifier  # here, so that a broken torch is one sentence too

    classifier = LungCTClassifier.from_pretrained(
        model, revision=os.environ.get("LUNGCT_REVISION", "").strip() or None
    )
    classifier.predict(
        Image.new("RGB", (64, 64))
    )  # the first call is several times slower; no visitor should wait for it
    return classifier


def serve(app: gr.Blocks) -> None:
    """Start the server, say where, and wait for Ctrl-C. Raises LungCTError when no port is free."""
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.sky,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_sm,
        font=[gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")],
        font_mono=[gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")],
    ).set(  # Gradio's own greys and sky blue are too faint to read: contrast below 4.5
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )
    try:
        app.launch(
            theme=theme,
            css_paths=_STYLE,
            quiet=True,
            share=False,
            ssr_mode=False,
            max_file_size=_MAX_UPLOAD,
            footer_links=["api", "settings"],
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise LungCTError(f"The page cannot be served: {error}") from error
    print(f"Running on local URL: {app.local_url} (Ctrl-C stops it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        app.close(verbose=False)


def main() -> None:
    """What a Space and `lungct demo` run."""
    # No usage reports to anybody, and no list of a visitor's slices kept in their browser.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    serve(build_app(load()))


if __name__ == "__main__":
    with exit_on_error():
        main()
