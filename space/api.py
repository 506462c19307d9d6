"""The three named endpoints, with typed answers; as MCP tools they are known by the same docstrings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lungct_hf.errors import LungCTError
from lungct_hf.serving.service import Service
from uploads import slice_file as upload
from uploads import told


def _or_null(kind: str) -> dict[str, Any]:
    # Not {"type": [kind, "null"]}: Gradio's clients cannot read that form.
    return {"anyOf": [{"type": kind}, {"type": "null"}]}


_NUMBER, _MAYBE, _TEXT = _or_null("number"), _or_null("string"), {"type": "string"}
_DECISION = {"enum": ["normal", "benign", "malignant", "abstain", "refused", "error"]}
_CHANCES = {f"p_{label}": _NUMBER for label in ("normal", "benign", "malignant")}
_ORIGIN = {"model": _TEXT, "revision": _MAYBE, "version": _MAYBE, "notice": _TEXT}
_ROW = {
    "file": _TEXT,
    "frame": {"type": "integer"},
    "decision": _DECISION,
    "reason": _MAYBE,
    **_CHANCES,
    "revision": _MAYBE,
    "forced": {"type": "boolean"},
}
SLICE = {
    **_ROW,
    "confidence": _NUMBER,
    "distance": _NUMBER,
    "series": _MAYBE,
    "position": _NUMBER,
    "detail": _MAYBE,
    "report": _or_null("object"),
    **_ORIGIN,
}
STUDY = {
    "decision": _DECISION,
    "reason": _MAYBE,
    **_CHANCES,
    "confidence": _NUMBER,
    "distance": _NUMBER,
    "used": {"type": "integer"},
    "series": {"type": "integer"},
    **_ORIGIN,
    "slices": {"type": "array", "items": {"type": "object", "properties": _ROW}},
}
MODEL = {
    **_ORIGIN,
    "package_version": _TEXT,
    "labels": {"type": "array", "items": _TEXT},
    "window": {"type": "object"},
    "results": _or_null("object"),
    "versions": {"type": "object"},
    "self_test": {"type": "object"},
}


def answer(properties: dict[str, Any]) -> gr.JSON:
    """A gr.JSON whose schema the API page, the clients and MCP can read."""
    component = gr.JSON(label="Answer")
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    component.api_info = lambda: schema
    return component


def add_endpoints(service: Service) -> None:
    """Call inside Blocks. The components are never shown; the page has its own."""

    def predict(slice_file: str | None, version: str = "", force: bool = False) -> dict[str, Any]:
        """Class probabilities of one axial lung CT slice, or why there are none. Research only, never a diagnosis.

        The answer's "decision" is normal, benign or malignant, or: "abstain" (the model does not know; "reason" says
        why), "refused" (the file is no slice it can judge), "error" (the file cannot be read). p_normal, p_benign and
        p_malignant are calibrated probabilities and null where there was no answer. Pass the "notice" on.

        Args:
            slice_file: One slice: DICOM, PNG, JPEG, TIFF, WebP, BMP or NIfTI. Pictures must be in the lung window.
            version: A tag or commit of the model, as /model_info lists them. Empty: the one that is served.
            force: Answer even where the input check refuses the slice; "forced" and "reason" then say so.
        """
        if slice_file is None:
            raise told("No slice was given. Fix: send one file.")
        try:
            return service.slice_json(service.slice(Path(slice_file), version=version, force=force)[1], version)
        except LungCTError as error:
            raise told(error) from None

    def predict_study(study_files: list[str] | None, version: str = "", force: bool = False) -> dict[str, Any]:
        """One decision for all slices of one study, and a row for each slice. Research only, never a diagnosis.

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
            (predict, [one, version, force], SLICE),
            (predict_study, [many, version, force], STUDY),
            (model_info, [version], MODEL),
        ):
            name = endpoint.__name__
            limit = {"concurrency_limit": 2} if endpoint is predict_study else {}
            gr.Button(name).click(endpoint, inputs, answer(properties), api_name=name, **(asked | limit))
