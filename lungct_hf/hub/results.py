"""From metrics.json and the calibration of lungct.json to the results on a card. No number here is our own.

Models that were written before intervals, cases, calibration or plots existed have a card without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..guard import KIND as SOURCE_KIND
from .wording import COLUMNS, NOT_RECORDED, Facts, listed, percent, plain, ratio

# Models of schema 1 had three classes and a temperature for telling the first two apart; they do not say so.
_BLOCKS_OF_SCHEMA_1 = ((0, 1), (2,))

BASELINES = {
    "nearest_neighbour": "nearest neighbour, no learning",
    "ring_nearest_neighbour": "nearest neighbour, outer ring only",
    "histogram_nearest_neighbour": "nearest neighbour, grey histogram only",
    "model_ring": "this model, shown the outer ring only",
}
# The file names that evaluation/plots.py writes, in the order of the card.
_PLOTS = {
    "comparison": "Balanced accuracy of the model and of what learns nothing, with 95 % intervals",
    "confusion": "True and named classes, by slice and by case",
    "roc": "ROC curve of each class against the others",
    "roc_positive": "ROC curve of what counts as disease against the rest, with its band and operating points",
    "precision_recall": "Precision-recall curve of each class against the others",
    "reliability": "Confidence and accuracy, before and after calibration",
    "risk_coverage": "Error among the answers when only the most confident are given",
}


def result_facts(labels: Sequence[str], metrics: Facts | None, calibration: Facts | None, folder: Path) -> Facts:
    """What the template shows of an evaluation; `test` is None without one."""
    facts = {"calibration": calibration_facts(labels, calibration or {}, metrics), "test": None, "validation": None}
    if not metrics or not metrics.get("test"):
        none: Facts = {name: [] for name in ("rows", "verdicts", "cautions", "plots", "leak", "neutral")}
        return facts | none | {"intervals": None}
    found = metrics["test"]
    test = {
        "n": found.get("n"),
        "headline": headline(metrics),
        "classes": [_class_row(name, found) for name in labels],
        "confusion": [
            {"name": plain(n), "counts": row}
            for n, row in zip(labels, found.get("confusion_matrix") or [], strict=False)
            if len(labels) <= COLUMNS
        ],
    }
    validation = metrics.get("validation")
    return facts | {
        "test": test,
        "validation": _scores(validation) if validation else None,
        "auroc": "macro AUROC" if len(labels) > 2 else "AUROC",
        "rows": comparison_rows(metrics),
        "verdicts": verdicts(metrics),
        "operating": operating_facts(metrics),
        "leak": leak_sentences(metrics),
        "neutral": neutral_sentences(metrics),
        "cautions": found.get("cautions") or [],
        "intervals": _interval_note(metrics),
        "split_hash": (metrics.get("split") or {}).get("hash") or NOT_RECORDED,
        "plots": [
            {"path": f"evaluation/{name}.png", "text": text}
            for name, text in _PLOTS.items()
            if (folder / "evaluation" / f"{name}.png").is_file()
        ],
    }


def headline(metrics: Facts) -> str:
    """What the test figure is worth, and whether it is about the published weights."""
    evidence = (metrics.get("evidence") or {}).get("sentence")
    return _worth(metrics) + (f" **{evidence}**" if evidence else "")


def _worth(metrics: Facts) -> str:
    split, test = metrics.get("split") or {}, metrics["test"]
    protocol, crossing = split.get("protocol"), split.get("groups_crossing")
    if protocol == "image" and metrics.get("protocol", "image") != "image":
        protocol, crossing = "grouped", None  # several protocols were pooled, and this one is shown
    groups = f" from {test['groups']} groups" if test.get("groups") else ""
    value = f"**Balanced accuracy {_percent(test, 'balanced_accuracy')}**"
    if protocol == "image":
        return (
            f"{value} on {test.get('n')} slices{groups} under an **image-level split**: slices of one person are in "
            "training and in test, so near-copies of what is tested were learned. This says little about new people."
        )
    if crossing:
        return (
            f"{value} on {test.get('n')} slices{groups} (`{protocol}` split), but {crossing} groups have slices on "
            "more than one side of the split, so the figure is too high."
        )
    kind = "grouped split" if protocol == "grouped" else f"`{protocol}` split"
    shared = "no group has slices in both training and test" if crossing == 0 else "crossing groups were not counted"
    doubt = (
        " The groups were inferred from the images, so slices of one person may still be on both sides."
        if split.get("grouping") == "linked"
        else ""
    )
    return f"{value} on {test.get('n')} slices{groups}, {kind}: {shared}.{doubt}"


def comparison_rows(metrics: Facts) -> list[Facts]:
    """The model by slice and by case, what learns nothing beside it, then the same under other protocols."""
    rows = _rows("", metrics, bold=True)
    others = metrics.get("other_protocols") or {}
    for name, block in sorted(others.items(), key=lambda item: item[0] == "image"):
        rows += _rows(" (image-level split, which leaks)" if name == "image" else f" ({name})", block)
    return rows


def verdicts(metrics: Facts) -> list[str]:
    """What each baseline is and whether the model beats it, in words: one that does not has shown nothing."""
    said = []
    for name, block in (metrics.get("baselines") or {}).items():
        what = BASELINES.get(name, name)
        difference = (block.get("model_minus") or {}).get("balanced_accuracy") or {}
        value, low = difference.get("value"), difference.get("low")
        if value is None:
            model, other = metrics["test"].get("balanced_accuracy"), block.get("balanced_accuracy")
            value = None if model is None or other is None else model - other
        if value is None:
            verdict = ""
        elif value <= 0:
            verdict = "**The model does not beat it, so it has shown nothing that this does not.**"
        elif not difference:
            verdict = "What the model adds is the difference."
        elif low is None or low <= 0:
            verdict = f"**The model is not shown to beat it**: the difference is {points(difference)}."
        else:
            verdict = f"The model adds {points(difference)} of balanced accuracy."
        said.append(f"*{what[:1].upper()}{what[1:]}*: {block.get('description', NOT_RECORDED)}. {verdict}".strip())
    return said


def operating_facts(metrics: Facts) -> Facts | None:
    """How well disease is found, as a sentence, table rows and cautions; None where no class counts as disease."""
    block = metrics.get("operating")
    if not block:
        return None
    ways = {"by slice": block["slices"], "a group's slices pooled": block["cases"]}
    areas = listed([f"{interval(one['auroc'], ratio)} {way}" for way, one in ways.items()])
    counts = block["slices"]["n"]
    rows = []
    for name in block["slices"]["points"] or {}:
        figure, _, share = name.partition("-")
        for way, one in ways.items():
            point = {side: interval(one["points"][name][side], percent) for side in ("sensitivity", "specificity")}
            rows.append({"name": f"cut for {share} % {figure}, {way}"} | point)
    return {
        "sentence": (
            f"{listed([plain(name) for name in block['positive']], 'or')} against the rest "
            f"({counts['positive']} and {counts['negative']} slices): AUROC {areas}."
        ),
        "rows": rows,
        "cautions": block.get("cautions") or [],
    }


def leak_sentences(metrics: Facts) -> list[str]:
    """How much a split by image adds to each score, for the model and for what learns nothing."""
    gap = metrics.get("leak_gap") or {}
    names = {"model": "this model", **BASELINES}
    return [
        f"{text}: {points(gap[name]['balanced_accuracy'])}"
        for name, text in names.items()
        if (gap.get(name) or {}).get("balanced_accuracy")
    ]


def neutral_sentences(metrics: Facts) -> list[str]:
    """What the model scores where grey levels, or noise and sharpness, tell nothing, and what that means."""
    found, said = metrics.get("neutral") or {}, []
    for name, what in {
        "equal_histogram": "With the same grey levels in every slice",
        "equal_texture": "With the same noise and sharpness in every slice",
    }.items():
        if name not in found:
            continue
        block = found[name]
        lost = block["minus_untouched"]["balanced_accuracy"]
        score = interval(block["intervals"]["balanced_accuracy"], percent)
        said.append(f"{what}: balanced accuracy {score}, {_changed(lost)}.")
        if name == "equal_histogram":
            said[-1] += " What is lost was read from how dark or bright slices are, which scanner and export decide."
        else:
            said[-1] += " What is lost was read from grain and crispness, which scanner and export decide."
        if beside := block.get("histogram"):
            minus = beside["model_minus"]["balanced_accuracy"]
            proof = interval(beside["intervals"]["balanced_accuracy"], percent)
            verdict = f"the model adds {points(minus)}" if _above_zero(minus) else "the model is not shown to beat it"
            said[-1] += f" Nearest neighbour on those grey levels: {proof}; {verdict}."
    return said


def _changed(difference: Facts) -> str:
    """A paired difference in words: "10.0 points [2.1, 18.3] less than as they are"."""
    value = difference.get("value")
    if value is None:
        return "not comparable with the slices as they are"
    if value > 0:
        return f"{points(difference)} more than as they are"
    mirrored = {"value": -value}
    if difference.get("low") is not None:
        mirrored |= {"low": -difference["high"], "high": -difference["low"]}
    return f"{points(mirrored)} less than as they are"


def _above_zero(difference: Facts) -> bool:
    return difference.get("low") is not None and difference["low"] > 0


def calibration_facts(labels: Sequence[str], record: Facts, metrics: Facts | None) -> Facts | None:
    """Sentences about the temperatures and the abstain rule; None for a model without a calibration."""
    if not record:
        return None
    test, fitted, rule = (metrics or {}).get("test") or {}, record.get("fitted_on") or {}, record.get("abstain")
    sentences = []
    if fitted:
        sentences.append(
            f"The logits were divided by {_temperatures(labels, record)}, fitted on {fitted.get('slices')} predictions"
            f" for slices of {fitted.get('groups')} validation groups (no slice of the test fold)"
            + (", and the stored weights include them." if record.get("folded_into_weights") else ".")
        )
    if record.get("not_fitted"):
        sentences.append(f"Not everything could be fitted: {record['not_fitted']}")
    before, after = (test.get("uncalibrated") or {}).get("ece"), _ratio(test, "ece")
    if test.get("ece") is not None:
        shown = after if before is None else f"{ratio(before)} before and {after} after"
        sentences.append(f"Expected calibration error (ECE) on the test fold: {shown}.")
    return {"sentences": sentences, "rule": _rule_sentences(rule, test) if rule else []}


def _temperatures(labels: Sequence[str], record: Facts) -> str:
    """What decision.tempering divides by what."""
    blocks = record.get("blocks", _BLOCKS_OF_SCHEMA_1)
    overall = float(record["temperature"])
    inner = [[plain(labels[c]) for c in block] for block in blocks if len(block) > 1]
    if len(blocks) < 2 or not inner:
        return f"one temperature, {overall:.3g}"
    within = float(record.get("within_temperature") or record.get("benign_temperature") or overall)
    alone = [plain(labels[block[0]]) for block in blocks if len(block) == 1]
    if len(blocks) == 2 and alone:
        outer = f"{alone[0]} against the others"
    else:
        outer = " against ".join(listed([plain(labels[c]) for c in block], "or") for block in blocks)
    inside = [
        f"{names[1]} against {names[0]}" if len(names) == 2 else f"{listed(names)} against each other"
        for names in inner
    ]
    return f"temperatures, {overall:.3g} for {outer} and {within:.3g} for {listed(inside)}"


def points(interval: Facts) -> str:
    """{value, low, high} of a difference as "12.3 points [4.5, 20.1]"."""
    if interval.get("value") is None:
        return "undefined"
    known = f" [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]" if interval.get("low") is not None else ""
    return f"{100 * interval['value']:.1f} points{known}"


def _rule_sentences(rule: Facts, test: Facts) -> list[str]:
    distance = rule.get("max_distance")
    target = f"at most {percent(rule['target_error'])} wrong among the answers"
    of_source = (rule.get("distance") or {}).get("kind") == SOURCE_KIND
    what = "training sources (how such slices are made, not what they show)" if of_source else "training slices"
    far = "" if distance is None else f" and whose distance from the {what} is at most {distance:.3g}"
    said = [
        f"`decide` answers only slices whose highest probability is at least {percent(rule['min_confidence'])}{far}.",
        f"Target: {target}. On the validation groups this was {'met' if rule.get('target_met') else '**not met**'}.",
    ]
    found = test.get("abstention")
    if found:
        said.append(
            f"On the test fold it answered {interval(found['coverage'], percent)} of the slices; "
            f"{interval(found['error'], percent)} of these answers were wrong."
        )
    return said


def _rows(where: str, block: Facts, *, bold: bool = False) -> list[Facts]:
    """Table rows of one protocol."""
    test = block["test"]
    rows = [{"name": f"this model{where}", **_scores(test)}]
    cases = test.get("cases")
    if cases:
        rows.append({"name": f"this model{where}, a group's slices pooled ({cases.get('n')} cases)", **_scores(cases)})
    for name, found in (block.get("baselines") or {}).items():
        rows.append({"name": f"{BASELINES.get(name, name)}{where}", **_scores(found)})
    if bold:
        rows[0] |= {name: f"**{rows[0][name]}**" for name in ("name", "balanced_accuracy")}
    return rows


def _scores(block: Facts) -> Facts:
    return {
        "n": block.get("n"),
        "accuracy": _percent(block, "accuracy"),
        "balanced_accuracy": _percent(block, "balanced_accuracy"),
        "auroc": _ratio(block, "auroc" if "auroc" in block else "macro_auroc"),
    }


def _class_row(name: str, block: Facts) -> Facts:
    figures = dict((block.get("per_class") or {}).get(name) or {})
    figures["intervals"] = ((block.get("intervals") or {}).get("per_class") or {}).get(name) or {}
    shown = {key: _percent(figures, key) for key in ("sensitivity", "specificity")}
    return {"name": plain(name), "n": figures.get("n", "–"), **shown}


def _percent(block: Facts, name: str) -> str:
    """A figure of a block as "83.2 % [70.1, 91.0]", without the brackets where no interval is recorded."""
    return interval({"value": block.get(name)} | _bounds(block, name), percent)


def _ratio(block: Facts, name: str) -> str:
    return interval({"value": block.get(name)} | _bounds(block, name), ratio)


def _bounds(block: Facts, name: str) -> Facts:
    found = (block.get("intervals") or {}).get(name) or {}
    return {"low": found.get("low"), "high": found.get("high")}


def interval(found: Facts, show: Any) -> str:
    """{value, low, high} as "83.2 % [70.1, 91.0]", without the brackets where no interval is recorded."""
    value = show(found.get("value"))
    if found.get("value") is None or found.get("low") is None:
        return str(value)
    low, high = (show(found[end]).removesuffix(" %") for end in ("low", "high"))
    return f"{value} [{low}, {high}]"


def _interval_note(metrics: Facts) -> str | None:
    """How the intervals were made; None where there are none."""
    record = metrics.get("bootstrap")
    if not record or _bounds(metrics["test"], "balanced_accuracy")["low"] is None:
        return None
    return (
        f"In brackets: {100 * record['level']:.0f} % intervals from {record['replicates']} bootstrap draws of whole "
        f"groups (within each class, seed {record['seed']}), because slices of one person are not independent."
    )
