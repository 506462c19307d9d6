"""What a model's repo says about one of its versions: where it comes from, its figures first of all, its plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import LungCTError
from ..hub.external import external_facts
from ..hub.model_repo import COMMIT, EXTERNAL, METRICS, ModelRepo
from ..hub.results import result_facts
from ..runtime import LungCT

EVIDENCE = [METRICS, EXTERNAL, "evaluation/*.png"]
_MAX_PLOT = 2**20  # bytes
_FIGURES = ("balanced_accuracy", "accuracy", "macro_auroc", "auroc", "ece")
_ONLY_WORDS = ("kind", "source", "slices", "groups")


@dataclass(frozen=True, eq=False)
class Evidence:
    """`info` is JSON-able; `shown` is what the card shows of an evaluation (hub.results.result_facts), in words;
    `plots` are (text, PNG)."""

    info: dict[str, Any]
    shown: dict[str, Any] | None = None
    plots: list[tuple[str, bytes]] = field(default_factory=list)


def read_evidence(model: LungCT, repo: ModelRepo) -> Evidence:
    """The evidence in a model's repo; one without an evaluation, or with an unreadable one, has no figures."""
    info = _basics(model)
    try:
        metrics, calibration = repo.metrics, model.contract.calibration
        shown = result_facts(model.labels, metrics, calibration.to_json() if calibration else None, repo.path)
        info["results"] = _results(metrics) if metrics and shown["test"] else None
        shown["external"] = external_facts(repo.external)
    except (LungCTError, ValueError, KeyError, TypeError, AttributeError):
        return Evidence(info)
    if not shown["test"]:
        return Evidence(info)
    plots = [(plot["text"], repo.path / plot["path"]) for plot in shown["plots"]]
    return Evidence(
        info, shown, [(text, path.read_bytes()) for text, path in plots if path.stat().st_size < _MAX_PLOT]
    )


def _basics(model: LungCT) -> dict[str, Any]:
    contract, provenance = model.contract, model.contract.provenance
    rule = contract.calibration.abstain if contract.calibration else None
    return {
        "model": model.repo_id or model.name,
        "revision": model.revision if model.revision and COMMIT.fullmatch(model.revision) else None,
        "package_version": __version__,
        "backend": model.backend,
        "labels": list(model.labels),
        "positive": list(contract.classes.positive),
        "architecture": contract.architecture,
        "input_size": contract.preprocessing.size,
        "window": {"center": contract.window.center, "width": contract.window.width, "unit": "HU"},
        "may_abstain": rule is not None,
        "worth": model.worth,
        "note": model.note,
        "data": _words(provenance.get("data")),
        "init": _words(provenance.get("init")),
        "results": None,
    }


def _words(entry: Any) -> dict[str, Any]:
    """The parts of a provenance record that name no file: a path says something about the machine it was on."""
    found = {key: entry[key] for key in _ONLY_WORDS if key in entry} if isinstance(entry, Mapping) else {}
    source = found.get("source")
    if isinstance(source, str) and source.startswith(("/", "~", ".")):
        found["source"] = Path(source).name
    return found


def _results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    split, test = metrics.get("split") or {}, metrics["test"]
    gap = metrics.get("leak_gap") or {}
    return {
        "protocol": metrics.get("protocol") or split.get("protocol"),
        "groups_crossing": split.get("groups_crossing"),
        "slices": test.get("n"),
        "groups": test.get("groups"),
        **{name: _figure(test, name) for name in _FIGURES if name in test},
        "sensitivity": {name: one.get("sensitivity") for name, one in (test.get("per_class") or {}).items()},
        "operating": metrics.get("operating"),
        "leak_gap": (gap.get("model") or {}).get("balanced_accuracy"),
        "baselines": {
            name: _figure(block, "balanced_accuracy") for name, block in (metrics.get("baselines") or {}).items()
        },
    }


def _figure(block: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A figure with its interval: {"value", "low", "high"}."""
    found = (block.get("intervals") or {}).get(name) or {}
    return {"value": block.get(name), "low": found.get("low"), "high": found.get("high")}
