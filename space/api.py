"""The named endpoints, with typed answers; as MCP tools they are known by the same docstrings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lungct_hf.errors import LungCTError
from lungct_hf.runtime.prediction import ABSTAIN, ERROR, REFUSED
from lungct_hf.serving.service import Service
from uploads import slice_file as upload
from uploads import told


def _or_null(kind: str) -> dict[str, Any]:
    # Not {"type": [kind, "null"]}: Gradio's clients cannot read that form.
    return {"anyOf": [{"type": kind}, {"type": "null"}]}


_NUMBER, _MAYBE, _TEXT = _or_null("number"), _or_null("string"), {"type": "string"}
_NAMES = {"type": "array", "items": _TEXT}
_ORIGIN = {"model": _TEXT, "revision": _MAYBE, "version": _MAYBE, "worth": _TEXT, "notice": _TEXT}
Properties = dict[str, Any]


def _row(labels: Sequence[str]) -> Properties:
    """A slice in a table. Without labels there is no model yet whose classes could be told."""
    return {
        "file": _TEXT,
        "frame": {"type": "integer"},
        "decision": {"enum": [*labels, ABSTAIN, REFUSED, ERROR]} if labels else _TEXT,
        "reason": _MAYBE,
        **{f"p_{label}": _NUMBER for label in labels},
        "revision": _MAYBE,
        "forced": {"type": "boolean"},
        "series": _MAYBE,
        "position": _NUMBER,
        "warnings": _MAYBE,
        "detail": _MAYBE,
        "note": _MAYBE,
    }


def _slice(labels: Sequence[str]) -> Properties:
    return {
        **_row(labels),
        "confidence": _NUMBER,
        "distance": _NUMBER,
        "report": _or_null("object"),
        **_ORIGIN,
    }


def _study(labels: Sequence[str]) -> Properties:
    row = _row(labels)
    case = {
        **{name: kind for name, kind in row.items() if name in ("decision", "reason") or name.startswith("p_")},
        "confidence": _NUMBER,
        "distance": _NUMBER,
        "detail": _MAYBE,
        "used": {"type": "integer"},
        "series": {"type": "integer"},
        "series_key": _MAYBE,
        "description": _MAYBE,
        "note": _MAYBE,
    }
    return {
        **case,
        **_ORIGIN,
        "studies": {"type": "array", "items": {"type": "object", "properties": case}},
        "slices": {"type": "array", "items": {"type": "object", "properties": row}},
    }


def _model(_: Sequence[str]) -> Properties:
    return {
        **_ORIGIN,
        "package_version": _TEXT,
        "labels": _NAMES,
        "positive": _NAMES,
        "note": _MAYBE,
        "window": {"type": "object"},
        "results": _or_null("object"),
        "versions": {"type": "object"},
        "self_test": {"type": "object"},
    }


def _answer(service: Service, properties: Callable[[Sequence[str]], Properties]) -> gr.JSON:
    """A gr.JSON whose schema the API page, the clients and MCP can read; it names the classes that are served."""
    component = gr.JSON(label="Answer")

    def schema() -> dict[str, Any]:
        found = properties(service.labels)
        # Another version of the model may have other classes.
        required = [name for name in found if not name.startswith("p_")]
        return {"type": "object", "properties": found, "required": required}

    component.api_info = schema
    return component


def describe_again(page: gr.Blocks) -> None:
    """Let a page that was launched without a model tell the schemas of the one that has come; Gradio keeps the old."""
    page.config = page.get_config_file()
    page.app.api_info = page.app.all_app_info = None
    page.app.page_api_info.clear()


def add_endpoints(service: Service) -> None:
    """Call inside Blocks. The components are never shown; the page has its own."""

    def predict(slice_file: str | None, version: str = "", force: bool = False) -> dict[str, Any]:
        """Class probabilities of one axial lung CT slice, or why there are none. Research only, never a diagnosis.

        The answer's "decision" is one of the model's classes ("labels" of /model_info), or: "abstain" (the model does
        not know; "reason" says why), "refused" (the file is no slice it can judge), "error" (the file cannot be read).
        p_CLASS is the calibrated probability of a class, null where there was no answer. "worth" says how good the
        model is. Pass "worth", "note" (where it is not null) and "notice" on.

        Args:
            slice_file: One slice: DICOM, NIfTI, PNG, JPEG, TIFF, WebP or BMP, pictures in the model's own window.
            version: A tag or commit of the model, as /model_info lists them. Empty: the one that is served.
            force: Answer even where the input check refuses the slice or it is from elsewhere; "forced" and "reason"
                then say so.
        """
        if slice_file is None:
            raise told("No slice was given. Fix: send one file.")
        try:
            return service.slice_json(service.slice(Path(slice_file), version=version, force=force)[1], version)
        except LungCTError as error:
            raise told(error) from None

    def predict_study(study_files: list[str] | None, version: str = "", force: bool = False) -> dict[str, Any]:
        """One decision for all slices of one study, and a row for each slice. Research only, never a diagnosis.

        Slices of several scans are never pooled: "decision" is then "refused", "reason" is "several-series", and
        "studies" has one decision for each scan.

        Args:
            study_files: One zip archive, or the files of one study.
            version: A tag or commit of the model, as /model_info lists them. Empty: the one that is served.
            force: Answer even for slices that the input check refuses.
        """
        try:
            sources = [Path(file) for file in study_files or []]
            return service.study_json(service.study(sources, version=version, force=force), version)
        except LungCTError as error:
            raise told(error) from None

    def model_info(version: str = "") -> dict[str, Any]:
        """What is known about the model: revision, versions, classes, window, how it was tested and with what result.

        Args:
            version: A tag or commit of the model. Empty: the one that is served.
        """
        try:
            return service.model_json(version)
        except LungCTError as error:
            raise told(error) from None

    with gr.Column(visible=False):
        one, many = upload(label="Slice file"), upload(label="Study files", file_count="multiple")
        version, force = gr.Textbox("", label="Version"), gr.Checkbox(False, label="Answer even when refused")
        asked = {"show_progress": "hidden", "concurrency_limit": 16}
        for endpoint, inputs, properties in (
            (predict, [one, version, force], _slice),
            (predict_study, [many, version, force], _study),
            (model_info, [version], _model),
        ):
            name = endpoint.__name__
            limit = {"concurrency_limit": 2} if endpoint is predict_study else {}
            gr.Button(name).click(endpoint, inputs, _answer(service, properties), api_name=name, **(asked | limit))
