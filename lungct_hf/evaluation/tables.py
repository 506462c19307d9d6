"""The report as rows of text, for the terminal and for the page alike. Shares are in per cent."""

from __future__ import annotations

from typing import Any

from ..decision import OPERATING_POINTS
from ..hub.results import neutral_sentences

SOURCES = {
    "model": "model",
    "nearest_neighbour": "1-NN, thumbnails",
    "ring_nearest_neighbour": "1-NN, ring only",
    "histogram_nearest_neighbour": "1-NN, histogram",
    "model_ring": "model, ring only",
}
_PERCENT = {
    "balanced_accuracy": "balanced accuracy, %",
    "accuracy": "accuracy, %",
    "macro_auroc": "macro AUROC, %",
    "auroc": "AUROC, %",
    "average_precision": "average precision, %",
}
_CLASS_FIGURES = {"sensitivity": "sens.", "specificity": "spec.", "ppv": "PPV", "npv": "NPV"}
_PLAIN = {
    "kappa": "Cohen's kappa",
    "brier": "Brier score (0 to 2)",
    "log_loss": "log loss, nats",
    "ece": "calibration error (ECE)",
    "aurc": "area under risk-coverage",
}

Metrics = dict[str, Any]
Rows = list[tuple[str, ...]]


def percent(interval: Metrics | None, digits: int = 1) -> str:
    """{value, low, high} as "70.8 [63.9, 77.5]"; a dash for what is undefined."""
    if not interval or interval["value"] is None:
        return "–"
    value = f"{100 * interval['value']:.{digits}f}"
    if interval["low"] is None:
        return value
    return f"{value} [{100 * interval['low']:.{digits}f}, {100 * interval['high']:.{digits}f}]"


def plain(interval: Metrics | None) -> str:
    """{value, low, high} as "0.084 [0.062, 0.121]"."""
    if not interval or interval["value"] is None:
        return "–"
    value = f"{interval['value']:.3f}"
    return value if interval["low"] is None else f"{value} [{interval['low']:.3f}, {interval['high']:.3f}]"


def protocols(metrics: Metrics) -> dict[str, Metrics]:
    """{protocol: its test and baselines}, the headline first."""
    return {metrics["protocol"]: metrics, **metrics.get("other_protocols", {})}


def comparison_rows(metrics: Metrics) -> Rows:
    """(protocol, answers by, balanced accuracy of slices, of cases): the model first, then what learned nothing."""
    rows: Rows = []
    for protocol, found in protocols(metrics).items():
        for source, block in {"model": found["test"], **found["baselines"]}.items():
            slices, cases = (part["intervals"]["balanced_accuracy"] for part in (block, block["cases"]))
            rows.append((protocol, SOURCES[source], percent(slices), percent(cases)))
    return rows


def gap_rows(metrics: Metrics) -> Rows:
    """(answers by, balanced accuracy, accuracy): image-level minus the headline, in points; empty without both."""
    gap = metrics.get("leak_gap") or {}
    found = [(source, gap[source]) for source in SOURCES if source in gap]
    return [(SOURCES[s], percent(v.get("balanced_accuracy")), percent(v.get("accuracy"))) for s, v in found]


def figure_rows(metrics: Metrics) -> Rows:
    """(figure, slices, cases) of the model under the headline protocol."""
    slices, cases = metrics["test"]["intervals"], metrics["test"]["cases"]["intervals"]
    shares = {
        name: text for name, text in _PERCENT.items() if name in slices
    }  # with two classes others than with more
    rows: Rows = [(text, percent(slices[name]), percent(cases.get(name))) for name, text in shares.items()]
    return rows + [(text, plain(slices.get(name)), plain(cases.get(name))) for name, text in _PLAIN.items()]


def class_names(metrics: Metrics) -> list[str]:
    """The classes in their order."""
    return list(metrics["test"]["per_class"])


def positive_names(metrics: Metrics) -> list[str]:
    """The classes that are marked positive; none where metrics.json does not say."""
    return list(metrics.get("classes", {}).get("positive", []))


def class_columns(metrics: Metrics) -> tuple[str, ...]:
    """The headings of `class_rows`, the first without one."""
    return ("", *_class_figures(metrics).values(), "n (groups)")


def class_rows(metrics: Metrics) -> Rows:
    """A row for each class under the headline protocol: name, figures in whole per cent, "slices (groups)"."""
    test, wanted, rows = metrics["test"], _class_figures(metrics), []
    mirrored = len(class_names(metrics)) == 2 and positive_names(metrics)
    for label in class_names(metrics):
        found = test["intervals"]["per_class"][label]
        shown = not mirrored or label in mirrored
        figures = [percent(found[name], 0) if shown else "" for name in wanted]
        rows.append((label, *figures, f"{test['per_class'][label]['n']} ({test['per_class'][label]['groups']})"))
    return rows


def _class_figures(metrics: Metrics) -> dict[str, str]:
    """Of two classes the specificity and the NPV of one are the sensitivity and the PPV of the other.

    So they are shown of the positive one; where none is, what each has of its own is shown of both.
    """
    if len(class_names(metrics)) > 2 or positive_names(metrics):
        return _CLASS_FIGURES
    return {name: _CLASS_FIGURES[name] for name in ("sensitivity", "ppv")}


def operating_rows(metrics: Metrics) -> Rows:
    """(what, slices, cases) for any positive class: AUROC, then each operating point; empty where none is marked."""
    block = metrics.get("operating")
    if not block:
        return []
    slices, cases = block["slices"], block["cases"]
    rows: Rows = [("AUROC, %", percent(slices["auroc"]), percent(cases["auroc"]))]
    for name, point in (slices["points"] or {}).items():
        figure, target = OPERATING_POINTS[name]
        other = "sensitivity" if figure == "specificity" else "specificity"
        pooled = cases["points"][name]
        rows.append((f"{other} at {100 * target:.0f} % {figure}", percent(point[other]), percent(pooled[other])))
        rows.append((f"  {figure} reached", percent(point[figure]), percent(pooled[figure])))
    return rows


def operating_title(metrics: Metrics) -> str:
    """What the score of `operating_rows` is of."""
    named = positive_names(metrics)
    return f"{named[0]} against the rest, %" if len(named) == 1 else "any positive class, %"


def headline(metrics: Metrics) -> str:
    """What was tested, in one sentence."""
    test, protocol = metrics["test"], metrics["protocol"]
    runs = len(test.get("seeds", [])) or 1
    seeds = f"{runs} seed" + ("s" if runs > 1 else "")
    pooled = f"; {len(test['folds'])} test folds pooled, {seeds}" if test.get("folds") else ""
    leak = " Slices of one person are in training and in test: this says little about new people."
    return (
        f"Protocol {protocol}: {test['n']} predictions of slices from {test['groups']} groups{pooled}."
        f"{leak if protocol == 'image' else ''}"
    )


def notes(metrics: Metrics) -> list[str]:
    """What else a reader must know, a sentence each."""
    test = metrics["test"]
    found = list(test["cautions"])
    if absent := [label for label, block in test["per_class"].items() if not block["n"]]:
        found.append(
            f"There are no slices of {', '.join(absent)}: balanced accuracy is the mean over the other classes, and "
            "figures that need every class are left out."
        )
    for source, block in metrics["baselines"].items():
        by = block["model_minus"]["balanced_accuracy"]
        if by["value"] is not None and (by["low"] is None or by["low"] <= 0):
            found.append(f"The model is not shown to beat {SOURCES[source]}: difference {percent(by)} points.")
    found += neutral_sentences(metrics)
    found += metrics.get("operating", {}).get("cautions", [])
    rule = test.get("abstention")
    if rule:
        target = "" if rule["target_error"] is None else f" (target: at most {100 * rule['target_error']:g} %)"
        found.append(
            f"With its abstain rule the model answers {percent(rule['coverage'])} % of the slices; of these answers "
            f"{percent(rule['error'])} % are wrong{target}."
        )
    if "uncalibrated" in test:
        found.append(f"Before calibration the calibration error was {test['uncalibrated']['ece']:.3f}.")
    if metrics.get("seen_in_training"):
        count = metrics["seen_in_training"]
        found.append(f"{count} slices were used to train this model (same bytes) and are left out of every figure.")
    if count := metrics.get("other_slices_of_seen_groups"):
        found.append(f"{count} other slices of groups that were used to train this model are left out as well.")
    if metrics.get("training_slices_known") is False:
        found.append("The model does not say which slices it was trained on, so they may be among these.")
    return found


# --- external tests (external.py), by set


def external_title(name: str, entry: Metrics) -> str:
    """What the set is."""
    found = entry["figures"]
    shown = name if entry["title"] == name else f"{name} ({entry['title']})"
    return f"Tested elsewhere: {shown}, {found['slices']} slices of {_groups(found['groups'])}"


def external_rows(entry: Metrics) -> Rows:
    """(what, of all slices, of the answers, forced): shares in per cent, a dash where the set has none."""
    found = entry["figures"]
    rows: Rows = [(name, percent(found[name]["share"]), "", "") for name in ("refused", "abstained", "answered")]
    for name, text in {"false_alarms": "false alarms", "sensitivity": "sensitivity"}.items():
        if found["forced"][name] is not None:
            rows.append((text, *(percent(found[way][name]) for way in ("all", "answers", "forced"))))
    if found["forced"]["balanced_accuracy"] is not None:
        balanced = [percent(found[way]["balanced_accuracy"]) for way in ("answers", "forced")]
        rows.append(("balanced accuracy", "", *balanced))
    return rows


def external_notes(entry: Metrics) -> list[str]:
    """What its classes are for the model, why slices were refused or not answered, and what is to be known."""
    found, notes = entry["figures"], []
    counts = [f"{one['slices']} {label} ({_groups(one['groups'])})" for label, one in found["labels"].items()]
    notes.append(f"Slices: {', '.join(counts)}.")
    for name, by in (("refused", "codes"), ("abstained", "reasons")):
        if found[name][by]:
            notes.append(f"{name[:1].upper()}{name[1:]}: {_counted(found[name][by])}.")
    if entry["left_out"]:
        notes.append(f"Left out: {_counted(entry['left_out'])}.")
    return notes + found["cautions"]


def _counted(counts: Metrics) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _groups(count: int) -> str:
    return f"{count} group{'' if count == 1 else 's'}"
