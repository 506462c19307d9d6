"""The tab Model: what it is, how it was tested and with what result, and which versions there are."""

from __future__ import annotations

import re
from base64 import b64encode
from html import escape
from typing import Any

import gradio as gr
from huggingface_hub import constants

from lungct_hf import __version__
from lungct_hf.errors import LungCTError
from lungct_hf.serving.record import Evidence
from lungct_hf.serving.service import Service
from wording import alert, badge, html, signed, training_warning

_INITS = {
    None: "not recorded",
    "imagenet1k-v2": "ImageNet-1K V2 weights",
    "random": "random weights, no pretraining",
    "stand-in": "a weight file other than ImageNet-1K V2",
}
_SELF_TEST = {
    "no-record": "the repo records no known answers to compare with",
}


def build_model_tab(service: Service, version: gr.State, warning: gr.HTML, tab: gr.Tab) -> None:
    """Call inside `tab`. `version` gets the version that the visitor chooses, `warning` what it was trained on."""
    chosen = gr.Dropdown([], label="Version that answers here, for you alone", visible=False, elem_id="version")
    shown = gr.HTML(**html('<p class="lc-empty">No model yet.</p>'), elem_id="model")

    def show(wanted: str) -> dict[Any, Any]:
        try:
            served = service.served(wanted)
            page = model_html(service, wanted)
        except LungCTError as error:
            return {shown: alert(str(error)), chosen: gr.Dropdown(), version: "", warning: gr.HTML()}
        tags = list(service.keeper.versions)
        first = service.served()
        choices = [(f"{tag} (served)" if tag == first.version else tag, tag) for tag in tags]
        if first.version is None:
            choices.insert(0, ("the revision that is served", ""))
        value = wanted or first.version or ""
        return {
            shown: page,
            chosen: gr.Dropdown(choices=choices, value=value, visible=bool(tags)),
            version: wanted,
            warning: training_warning(served.model.note),
        }

    options: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4, "show_progress_on": shown}
    outputs = [shown, chosen, version, warning]
    tab.select(show, version, outputs, **options)
    chosen.input(show, chosen, outputs, **options)


def model_html(service: Service, version: str) -> str:
    """Figures first, then plots, then facts."""
    served = service.served(version)
    evidence = service.keeper.evidence(served)
    return f"{_figures(evidence)}<h2>What it is</h2>{_facts(service, version, evidence)}"


def _figures(evidence: Evidence) -> str:
    shown = evidence.shown
    if shown is None:
        nothing = "This model comes without an evaluation, so nothing is known about it."
        return f"<h2>How well it works</h2><p>{nothing}</p>"
    rows = "".join(
        f"<tr><th scope='row'>{_rich(row['name'])}</th><td>{_rich(row['balanced_accuracy'])}</td>"
        f"<td>{_rich(row['accuracy'])}</td><td>{_rich(row['auroc'])}</td><td>{row['n']}</td></tr>"
        for row in shown["rows"]
    )
    classes = "".join(
        f"<tr><th scope='row'>{_rich(row['name'])}</th><td>{escape(row['sensitivity'])}</td>"
        f"<td>{escape(row['specificity'])}</td><td>{row['n']}</td></tr>"
        for row in shown["test"]["classes"]
    )
    leak = (
        _items(shown["leak"]) if shown["leak"] else "<p>It was not tested on a split by image, so no gap is known.</p>"
    )
    calibration = shown["calibration"] or {"sentences": [], "rule": []}
    plots = "".join(
        f'<figure><img src="data:image/png;base64,{b64encode(content).decode()}" alt="{escape(text)}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
        for text, content in evidence.plots
    )
    head = "<th scope='col'>Balanced accuracy</th><th scope='col'>Accuracy</th>"
    head += f"<th scope='col'>{escape(shown['auroc'][:1].upper() + shown['auroc'][1:])}</th>"
    return (
        f'<h2>How well it works</h2><p class="lc-headline">{_rich(shown["test"]["headline"])}</p>'
        f"{_items(shown['cautions'])}"
        '<div class="lc-table" tabindex="0" role="region" aria-label="Model beside baselines"><table><thead><tr>'
        f"<th scope='col'>Beside what learns nothing</th>{head}<th scope='col'>n</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{_items(shown['verdicts'])}"
        f'<p class="lc-small">{escape(shown["intervals"] or "No intervals are recorded.")}</p>'
        f"<h3>How much a split by image adds (leak gap)</h3>{leak}"
        '<h3>By class</h3><div class="lc-table" tabindex="0" role="region" aria-label="Figures by class"><table>'
        "<thead><tr><th scope='col'>Class</th><th scope='col'>Sensitivity</th><th scope='col'>Specificity</th>"
        f"<th scope='col'>n</th></tr></thead><tbody>{classes}</tbody></table></div>{_operating(shown)}"
        f"<h3>Tested elsewhere</h3>{_elsewhere(shown['external'])}"
        f"<h3>Calibration and abstention</h3>{_items([*calibration['sentences'], *calibration['rule']])}"
        f'<div class="lc-plots">{plots}</div>'
    )


def _operating(shown: dict[str, Any]) -> str:
    """How well any of the classes that count as disease is found; empty where none is marked."""
    found = shown.get("operating")
    if not found:
        return ""
    rows = "".join(
        f"<tr><th scope='row'>{_rich(row['name'])}</th><td>{_rich(row['sensitivity'])}</td>"
        f"<td>{_rich(row['specificity'])}</td></tr>"
        for row in found["rows"]
    )
    table = (
        '<div class="lc-table" tabindex="0" role="region" aria-label="Operating points"><table><thead><tr>'
        "<th scope='col'>Threshold for</th><th scope='col'>Sensitivity</th><th scope='col'>Specificity</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
    said = f"<h3>Finding disease</h3><p>{_rich(found['sentence'])}</p>"
    return f"{said}{table if rows else ''}{_items(found['cautions'])}"


def _elsewhere(found: dict[str, Any]) -> str:
    """What the model did on data that it was not made from, as the card tells it."""
    if found["sentence"]:
        return f"<p>{_rich(found['sentence'])}</p>"
    rows = "".join(
        f"<tr><th scope='row'>{_rich(row['name'])}</th>"
        f"{''.join(f'<td>{_rich(row[way])}</td>' for way in ('all', 'answers', 'forced'))}</tr>"
        for row in found["rows"]
    )
    return (
        "<p>A false alarm is a slice without disease that is given a class of disease. Forced: the most probable "
        "class of every slice, without input check and abstention.</p>"
        '<div class="lc-table" tabindex="0" role="region" aria-label="Tested elsewhere"><table><thead><tr>'
        "<th scope='col'>Outside set</th><th scope='col'>Of all slices</th><th scope='col'>Of the answers</th>"
        f"<th scope='col'>Forced</th></tr></thead><tbody>{rows}</tbody></table></div>{_items(found['notes'])}"
    )


def _facts(service: Service, version: str, evidence: Evidence) -> str:
    served, info = service.served(version), evidence.info
    model = served.model
    repo, revision, contract = model.repo_id, model.revision, model.contract
    if repo and revision:
        home = f"{constants.ENDPOINT}/{repo}"
        name = _link(home, repo)
        commit = f"<strong>{escape(revision[:7])}</strong> <code>{escape(revision)}</code>"
        links = f"{_link(f'{home}/blob/{revision}/README.md', 'card')}, {_link(f'{home}/tree/{revision}', 'files')}, "
    else:
        name, commit, links = escape(model.name), "local directory, not a published revision", ""
    test = served.self_test
    tested = _SELF_TEST.get(test.state) or (
        f"passed: {test.slices} known slices, largest difference of a logit {test.deviation:.1g}"
    )
    window, size = contract.window, contract.preprocessing.size
    disease = {label: " counts as disease" for label in contract.classes.positive}
    named = [f"<li>{badge(label, contract.classes)}{disease.get(label, '')}</li>" for label in contract.classes]
    facts = {
        "Name": name,
        "Classes": f'<ul class="lc-legend">{"".join(named)}</ul>',
        "Version": escape(served.version or "none"),
        "Revision": commit,
        "Trained on": escape(_trained_on(info["data"])),
        "Started from": escape(_INITS.get(info["init"].get("kind")) or str(info["init"]["kind"])),
        "Network": f"{escape(contract.architecture)}, {size} &times; {size} px, letterboxed, never cropped",
        "Lung window": f"centre {signed(window.center)} HU, width {window.width:g} HU",
        "Can say it does not know": "yes" if info["may_abstain"] else "no: it always names a class",
        "Self-test": tested,
        "Runs on": f"{'ONNX Runtime' if model.backend == 'onnx' else 'torch'}, lungct-hf {__version__}",
        "Links": f"{links}<a href='/health'>health</a>",
    }
    rows = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in facts.items())
    return f'<dl class="lc-facts">{rows}</dl>'


def _trained_on(data: dict[str, Any]) -> str:
    if not data.get("kind"):
        return "not recorded"
    slices = f"{data['slices']} slices" if "slices" in data else "slices"
    if data["kind"] == "phantom":
        return f"{slices} of generated phantoms, no patients"
    return f"{slices} from {data.get('source') or data['kind']}"


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}" rel="noopener" target="_blank">{escape(text)}</a>'


def _items(sentences: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{_rich(one)}</li>' for one in sentences)}</ul>" if sentences else ""


def _rich(text: str) -> str:
    """The card's own sentences: its bold, italic and code as HTML, everything else as the letters that it is."""
    out = escape(str(text))
    for mark, tag in ((r"\*\*", "strong"), (r"\*", "em"), ("`", "code")):
        out = re.sub(rf"(?<!\\){mark}(.+?)(?<!\\){mark}", rf"<{tag}>\1</{tag}>", out)
    return re.sub(r"\\(&lt;|[\\`*|\[\]_])", r"\1", out)  # wording.plain: what Markdown must not take for markup
