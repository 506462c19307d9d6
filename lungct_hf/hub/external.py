"""From evaluation/external.json to the card's section on tests elsewhere. No number here is our own."""

from __future__ import annotations

from typing import Any

from .results import interval
from .wording import Facts, listed, percent, plain

NEVER = "Never tested outside the data it was made from."
_FIGURES = {"false_alarms": "false alarms", "sensitivity": "sensitivity", "balanced_accuracy": "balanced accuracy"}
_MEANINGS = {
    "negative": "without the model's disease",
    "positive": "with disease of an unknown class",
    "unknown": "unlabelled",
}


def external_facts(record: Facts | None) -> Facts:
    """`sentence` where the model was tested nowhere else, else table `rows` and, for each set, a line of `notes`."""
    sets = (record or {}).get("sets") or {}
    if not sets:
        return {"sentence": NEVER, "rows": [], "notes": []}
    return {
        "sentence": None,
        "rows": [row for name, one in sets.items() for row in _rows(name, one["figures"])],
        "notes": [_note(name, one) for name, one in sets.items()],
    }


def _rows(name: str, found: Facts) -> list[Facts]:
    """One row for each figure that the set gives: of all slices, of the answers, and of forced answers."""
    rows = []
    for figure, text in _FIGURES.items():
        forced = found["forced"].get(figure)
        if forced is not None:
            ways = {way: _shown(found[way].get(figure)) for way in ("all", "answers", "forced")}
            rows.append({"name": f"{plain(name)}, {text}"} | ways)
    answered = {"name": f"{plain(name)}, answered", "all": _shown(found["answered"]["share"])}
    return [answered | {"answers": "–", "forced": "–"}, *rows]


def _shown(value: Any) -> str:
    return "–" if value is None else interval(value, percent)


def _note(name: str, entry: Facts) -> str:
    found, window = entry["figures"], entry["window"]
    counts = [
        f"{one['slices']} {_MEANINGS.get(label, plain(label))} ({_groups(one['groups'])})"
        for label, one in found["labels"].items()
    ]
    meant = [f"{plain(one)} as {_MEANINGS.get(label, plain(label))}" for one, label in entry["classes"].items()]
    said = f"**{plain(name)}**"
    said += f": {plain(entry['title'])}" if entry["title"] != name else ""
    said += f", `{entry['source']}`" if entry.get("source") else ""
    said += f". {found['slices']} slices of {_groups(found['groups'])}: {listed(counts)}."
    said += f" Read: {listed(meant)}; files in HU in the window {window['center']:g} / {window['width']:g}."
    for kind, by in (("refused", "codes"), ("abstained from", "reasons")):
        block = found[kind.split()[0]]
        if block["n"]:
            why = ", ".join(f"{count} `{code}`" for code, count in block[by].items())
            said += f" {block['n']} were {kind} ({why})."
    if entry["left_out"]:
        said += f" Left out: {', '.join(f'{count} {why}' for why, count in entry['left_out'].items())}."
    return " ".join([said, *found["cautions"]])


def _groups(count: int) -> str:
    return f"{count} group{'' if count == 1 else 's'}"
