"""The model card: data taken from the model's own files, put into the template model_card.md.

Nothing on the card is typed by hand: every number comes from config.json, lungct.json or evaluation/metrics.json, and
what these do not say, the card says is not recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)
from huggingface_hub.utils import yaml_dump

from ..classes import Classes
from ..files import write_atomic
from ..resources import shipped
from . import caveats, results, wording
from .author import PLACEHOLDER, author_text, with_author_text
from .external import external_facts
from .model_repo import CARD, EVAL_RESULTS, ModelRepo

DEFAULT_LICENCE = "apache-2.0"  # of models whose release did not say, as of this package
METRICS = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "macro_auroc": "Macro AUROC",
    "auroc": "AUROC",  # of two classes, which have one between them
}
_HUB_METRIC = {"macro_auroc": "roc_auc", "auroc": "roc_auc"}


def render_card(model: str | Path | ModelRepo, repo_id: str | None = None) -> str:
    """The card of a model (its directory, or the open repo) as Markdown, with the invitation where an author's text
    may go.

    Reads config.json, lungct.json and, if they are there, evaluation/metrics.json and external.json; without them the
    card says that no evaluation is recorded, or that the model was never tested elsewhere. Raises LungCTError when a
    file is missing or not JSON.
    """
    repo = model if isinstance(model, ModelRepo) else ModelRepo(Path(model))
    config, contract, metrics, provenance = repo.config, repo.lungct, repo.metrics, repo.provenance
    classes, older = repo.classes, repo.is_schema_1
    labels, architecture = classes.names, str(config.get("architecture", "MobileNetV2"))
    data = wording.data_facts(provenance.get("data") or {})
    card = ModelCard.from_template(
        card_data=_metadata(config, contract, data, metrics, classes),
        template_str=_template(),
        repo_id=repo_id or PLACEHOLDER,
        architecture=architecture,
        network="MobileNetV2" if caveats.is_mobilenet(architecture) else f"timm `{architecture}`",
        labels=labels,
        shown=[wording.plain(label) for label in labels],
        older=older,
        disease=None if older else wording.disease(classes),
        has_onnx=bool((contract.get("onnx") or {}).get("sha256")),
        chance=wording.percent(1 / len(labels)),
        version=f" {provenance['package_version']}" if provenance.get("package_version") else "",
        modified=bool(provenance.get("modified")),
        window=wording.window(contract.get("window") or {}, of_schema_1=older),
        geometry=wording.geometry(contract.get("geometry") or {}, config),
        data=data,
        init=wording.init_facts(provenance.get("init") or {}),
        split=wording.split_facts(provenance.get("split") or {}, (metrics or {}).get("split") or {}),
        counts=wording.count_table(labels, provenance.get("data") or {}, (metrics or {}).get("split") or {}),
        training=wording.training(provenance),
        settings=wording.settings(provenance),
        command=provenance.get("command"),
        release=wording.release(contract.get("release") or {}),
        limitations=caveats.limitations(data, labels, metrics, contract.get("calibration"), older=older),
        references=caveats.references(data, architecture),
        external=external_facts(repo.external) if repo.external or not older else None,
        **results.result_facts(labels, metrics, contract.get("calibration"), repo.path),
    )
    return with_author_text(str(card), "")


def write_card(model_dir: str | Path, repo_id: str | None = None) -> Path:
    """Render README.md into the model's directory, keeping what an author wrote in the one that is there."""
    path = Path(model_dir) / CARD
    kept = author_text(path.read_bytes().decode("utf-8", "replace")) if path.is_file() else ""
    write_atomic(path, with_author_text(render_card(model_dir, repo_id), kept))
    return path


def write_eval_results(model_dir: str | Path) -> Path | None:
    """Write .eval_results/lungct.yaml, which the Hub shows beside the model; nothing without an evaluation."""
    path = Path(model_dir) / EVAL_RESULTS
    text = render_eval_results(model_dir)
    if text is None:
        path.unlink(missing_ok=True)
        return None
    write_atomic(path, text)
    return path


def render_eval_results(model: str | Path | ModelRepo) -> str | None:
    """The content of .eval_results/lungct.yaml as the model's own files give it; None without an evaluation.

    The Hub's format names a data set on the Hub. For data that are not there the entry carries a plain name and says
    so in its notes.
    """
    repo = model if isinstance(model, ModelRepo) else ModelRepo(Path(model))
    metrics, classes, provenance = repo.metrics, repo.classes, repo.provenance
    if metrics is None:
        return None
    data = wording.data_facts(provenance.get("data") or {})
    notes = f"{wording.protocol_note(metrics.get('split') or {})}; test fold, n = {_plain(metrics['test']['n'])}"
    if not repo.is_schema_1:
        notes += f"; classes: {', '.join(classes)}" if len(classes) <= wording.COLUMNS else f"; {len(classes)} classes"
    notes += "" if data["hub_id"] else f"; {data['name']} is not a data set on the Hub"
    entries = [
        EvalResultEntry(
            dataset_id=data["hub_id"] or data["slug"],
            dataset_revision=data["hub_revision"],
            task_id=key,
            value=value,
            date=provenance.get("created"),
            notes=notes + _interval_note(metrics, key),
        )
        for key, value in _values(metrics, classes).items()
    ]
    return str(yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False))


def _metadata(
    config: dict[str, Any],
    contract: dict[str, Any],
    data: dict[str, Any],
    metrics: dict[str, Any] | None,
    classes: Classes,
) -> ModelCardData:
    results = []
    for key, value in _values(metrics, classes).items() if metrics else ():
        split = (metrics or {}).get("split") or {}
        results.append(
            EvalResult(
                task_type="image-classification",
                dataset_type=data["hub_id"] or data["slug"],
                dataset_name=data["name"],
                dataset_split="test",
                dataset_revision=data["hub_revision"],
                dataset_args={"protocol": split.get("protocol"), "grouping": split.get("grouping")},
                metric_type=_HUB_METRIC.get(key, key),
                metric_name=METRICS[key],
                metric_value=value,
            )
        )
    tags = ["lungct_hf", "timm", "image-classification", "medical", "ct", "lung", "not-a-medical-device"]
    return ModelCardData(
        license=(contract.get("release") or {}).get("license") or DEFAULT_LICENCE,
        library_name="transformers",
        pipeline_tag="image-classification",
        tags=tags + (["synthetic-data"] if data["phantom"] else []),
        datasets=[data["hub_id"]] if data["hub_id"] else None,
        metrics=[_HUB_METRIC.get(key, key) for key in _keys(classes)] if results else None,
        model_name=f"lungct-{config.get('architecture', 'mobilenetv2')}" if results else None,
        eval_results=results or None,
    )


def _keys(classes: Classes) -> list[str]:
    """The headline figures that mean something for so many classes."""
    return [key for key in METRICS if key != ("auroc" if len(classes) > 2 else "macro_auroc")]


def _values(metrics: dict[str, Any], classes: Classes) -> dict[str, float]:
    """The headline figures of the test fold as plain floats; one that is undefined is left out."""
    found = {key: _plain(metrics["test"].get(key)) for key in _keys(classes)}
    return {key: round(value, 4) for key, value in found.items() if value is not None}


def _interval_note(metrics: dict[str, Any], key: str) -> str:
    found = (metrics["test"].get("intervals") or {}).get(key) or {}
    return "" if found.get("low") is None else f"; 95 % interval {found['low']:.4f} to {found['high']:.4f}"


def _plain(value: Any) -> Any:
    """A numpy number as a plain one: YAML would write the former as a Python object."""
    return value.item() if hasattr(value, "item") else value


def _template() -> str:
    # Tags on their own line leave nothing behind. huggingface_hub renders with jinja's defaults, which keep the line,
    # so the line end is taken off here.
    lines = shipped("model_card.md").read_text(encoding="utf-8").splitlines()
    whole = ((line.startswith("{%") and line.endswith("%}")) for line in lines)
    return "".join(line if tag else line + "\n" for line, tag in zip(lines, whole, strict=True))
