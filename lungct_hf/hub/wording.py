"""From the records of a model to the sentences and table rows of its card. No number here is our own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..classes import Classes
from ..known_sets import KnownSet, known_sets, phantoms, set_of_source

NOT_RECORDED = "not recorded"
CROSS_VALIDATED = "cross-validated"  # figures of the folds, not of the published weights
_HUB_SOURCE = re.compile(r"[\w.-]+/[\w.-]+")
_KEEP = re.compile(r"[^a-z0-9]+")
# What Markdown would take for more than a letter of a name; an underscore within a word is none of it.
_MARKUP = re.compile(r"([\\`*<|\[\]]|(?<!\w)_|_(?!\w))")
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
COLUMNS = 8  # of a table; more classes than that would not fit beside each other

Facts = dict[str, Any]


def percent(value: Any) -> str:
    """0.8315 as "83.2 %", None as a dash."""
    return "–" if value is None else f"{100 * float(value):.1f} %"


def ratio(value: Any) -> str:
    return "–" if value is None else f"{float(value):.3f}"


def plain(name: str) -> str:
    """A class's name as Markdown shows it letter by letter."""
    return _MARKUP.sub(r"\\\1", name)


def listed(names: Sequence[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def number(value: int) -> str:
    """3 as "three", 13 as "13"."""
    return _WORDS[value] if value < len(_WORDS) else str(value)


def disease(classes: Classes) -> str:
    """Which classes count as disease."""
    if not classes.positive:
        return "None of the classes is marked as disease (positive), so no figure here says how well disease is found."
    others = [name for name in classes if name not in classes.positive]
    marked, rest = (listed([f"**{plain(name)}**" for name in names]) for names in (classes.positive, others))
    return (
        f"As disease (positive) {'counts' if len(classes.positive) == 1 else 'count'} {marked}; {rest} "
        f"{'counts' if len(others) == 1 else 'count'} as its absence."
    )


def window(record: Facts, *, of_schema_1: bool) -> str:
    """In which window a slice goes in: pictures keep their own, so it is not the same lung window for every model."""
    shown = NOT_RECORDED
    if "center" in record and "width" in record:
        shown = f"centre {float(record['center']):g}, width {float(record['width']):g} {record.get('unit', 'HU')}"
    if of_schema_1:
        return f"in a lung window ({shown})"
    return f"in the window of the training slices (files in HU are shown with {shown})"


def geometry(record: Facts, config: Facts) -> Facts:
    """Size and wording of how a slice is fitted into the square."""
    how = "without changing its aspect ratio, the rest filled" if record.get("mode") == "letterbox" else ""
    size = record.get("size") or ((config.get("pretrained_cfg") or {}).get("input_size") or ["?"])[-1]
    return {"size": size, "how": how or f"by {record.get('mode', 'an unrecorded rule')}"}


# --- data, start weights, split


def data_facts(record: Facts) -> Facts:
    """What the data were: names for people and for the Hub, sentence, licence; `known` is their entry, or None."""
    kind, source = record.get("kind"), str(record.get("source") or "")
    hub_id, _, revision = source.partition("@") if kind == "hub" else ("", "", "")
    hub_id = hub_id if _HUB_SOURCE.fullmatch(hub_id) else ""
    known = _known_set(record)
    phantom = known is phantoms()
    name = known.title if known and not hub_id else source or "unnamed data"
    size = _size(record)
    licence = known.licence if known else ""
    if phantom:
        text = f"Slices drawn by this package's phantom generator: {size}. No patient is in them."
    elif not kind:
        text = f"The training data are {NOT_RECORDED}."
        licence = licence or "The licence of the training data is not recorded."
    else:
        where = {"hub": f"the Hub data set [{hub_id}](https://huggingface.co/datasets/{hub_id})"}.get(
            kind, f"`{source}`"
        )
        text = f"{f'{known.title}, read from ' if known else 'Read from '}{where}: {size}."
    return {
        "kind": kind,
        "known": known,
        "phantom": phantom,
        "name": name,
        "slug": _KEEP.sub("-", name.lower()).strip("-") or "unnamed",
        "hub_id": hub_id or None,
        "hub_revision": revision or None,
        "sentence": text,
        "licence": licence
        or "The licence of the training data is not recorded here; whoever publishes this model must know it.",
        "fingerprint": record.get("fingerprint") or NOT_RECORDED,
        "skipped": record.get("skipped") or 0,
    }


def _known_set(record: Facts) -> KnownSet | None:
    """The set that the data are: by the record where it says so, else by what they are called."""
    if record.get("kind") == "phantom":
        return phantoms()
    return known_sets().get(str(record.get("known_set"))) or set_of_source(str(record.get("source") or ""))


def _size(record: Facts) -> str:
    parts = [f"{record[key]} {key}" for key in ("slices", "groups") if record.get(key) is not None]
    return " in ".join(parts) or f"size {NOT_RECORDED}"


def init_facts(record: Facts) -> Facts:
    """The kind of start weights, literally, and what it means."""
    kind, source, digest = record.get("kind"), record.get("source"), record.get("sha256")
    file = f" File: `{source}`{f', sha256 `{digest}`' if digest else ''}." if source else ""
    meaning = {
        "imagenet1k-v2": ": torchvision's IMAGENET1K_V2 weights, with the names converted to timm's.",
        "stand-in": (
            ": a file that stands in for the published ImageNet weights, which these are **not**. Training from the "
            "real ones may give other results."
        ),
        "random": ": no pretraining.",
    }.get(str(kind), ".")
    return {"kind": kind or NOT_RECORDED, "sentence": meaning + file}


def split_facts(planned: Facts, measured: Facts) -> Facts:
    """How slices were divided, and whether a group ended up on two sides."""
    protocol, grouping = planned.get("protocol") or measured.get("protocol"), planned.get("grouping")
    grouping = grouping or measured.get("grouping")
    crossing, text = (
        measured.get("groups_crossing"),
        {
            "grouped": f"`grouped`: all slices of a group are on one side. {_grouping(grouping)}",
            "image": "`image`: every slice was assigned by itself, so slices of one person can be on both sides.",
            "given": "`given`: as it came with the data.",
            "manifest": "`manifest`: read from a list that names the side of every slice.",
        }.get(str(protocol), f"Protocol {NOT_RECORDED}." if not protocol else f"`{protocol}`."),
    )
    if planned.get("evidence") == CROSS_VALIDATED:
        seeds = ", ".join(map(str, planned.get("seeds") or []))
        text += f" {planned.get('folds')}-fold cross-validation (seeds {seeds}): each slice was tested once per seed."
        text += " The published weights were trained on all slices."
    elif planned.get("folds") and protocol in ("grouped", "image"):
        text += f" Fold {planned.get('fold')} of {planned['folds']} is the test fold (seed {planned.get('seed')})."
    if crossing is not None:
        text += f" Groups with slices on more than one side: {crossing}."
    if shared := measured.get("groups_in_training_and_validation"):
        text += f" Groups in both training and validation, so that the calibration may be too sure: {shared}."
    return {"sentence": text, "hash": planned.get("hash") or measured.get("hash") or NOT_RECORDED}


def _grouping(grouping: Any) -> str:
    name = str(grouping or "")
    if name.startswith("column:"):
        return f"Groups are the values of the column `{name.removeprefix('column:')}`."
    if name == "linked":
        return (
            "Groups were inferred (`linked`): slices of one class that look nearly the same, or follow each other in "
            "file number and look alike, form a group. They stand in for patients, whose ids the data do not have."
        )
    return f"Grouping: `{name}`." if name else f"Grouping {NOT_RECORDED}."


def protocol_note(split: Facts) -> str:
    note = f"{split.get('protocol', 'unrecorded')} split ({split.get('grouping') or 'no grouping'})"
    if split.get("evidence") == CROSS_VALIDATED:
        note += f", {split.get('folds')}-fold cross-validated, the published weights were trained on all slices"
    return note


def count_table(labels: Sequence[str], data: Facts, split: Facts) -> Facts:
    """`head` and `rows` of the table of counts: a row for each side when the evaluation says so, else for all data.

    With more classes than fit beside each other the classes are the rows.
    """
    sides = {name: counts for name, counts in (split.get("counts") or {}).items() if counts}
    groups = dict(split.get("groups") or {})
    if data.get("counts"):
        sides["all"], groups["all"] = data["counts"], data.get("groups")
    table: list[list[Any]] = [["slices", *map(plain, labels)]]
    table += [[name, *(counts.get(label, 0) for label in labels)] for name, counts in sides.items()]
    if not sides:
        table.append([NOT_RECORDED, *["–"] * len(labels)])
    elif groups.get(next(iter(sides))):
        ends = ["groups", *(groups.get(name) for name in sides)]
        table = [[*row, end] for row, end in zip(table, ends, strict=True)]
    if len(labels) > COLUMNS:
        table = [list(column) for column in zip(*table, strict=True)]
    return {"head": table[0], "rows": [["–" if value is None else value for value in row] for row in table[1:]]}


# --- training


def training(provenance: Facts) -> str:
    record, versions = provenance.get("training") or {}, provenance.get("versions") or {}
    parts = []
    if record:
        parts.append(
            f"Epoch {record.get('best_epoch')} of {record.get('epochs')} was kept: "
            f"{record.get('chosen_by', 'best on the validation fold')}."
        )
        parts.append(
            f"{record.get('steps')} optimizer steps took {round(float(record.get('seconds') or 0))} s in "
            f"{record.get('processes')} process{'es' if record.get('processes') != 1 else ''}, mixed precision: "
            f"{record.get('mixed_precision')}."
        )
    if provenance.get("created"):
        parts.append(f"Finished {provenance['created']}.")
    if provenance.get("git_commit"):
        parts.append(f"Code: commit `{provenance['git_commit']}`.")
    if versions:
        parts.append("With " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return " ".join(parts)


def settings(provenance: Facts) -> list[tuple[str, str]]:
    """The hyper-parameters in the order of the record, seed first."""
    recipe = provenance.get("recipe") or {}
    rows = [("seed", provenance["seed"])] if "seed" in provenance else []
    rows += [("recipe" if name == "name" else name, value) for name, value in recipe.items()]
    return [(str(k).replace("_", " "), str(v).replace("|", "\\|")) for k, v in rows] or [
        ("hyper-parameters", NOT_RECORDED)
    ]


# --- release


def release(record: Facts) -> Facts | None:
    """Tag, sentence and overridden refusals of a released version; None for a model that no release published."""
    if not record:
        return None
    rollback = record.get("rollback") or {}
    tag = rollback.get("tag") or f"v{record['version']}"
    sentence = f"Version {record['version']}, released {record['date']} as `v{record['version']}`."
    if rollback:
        sentence += f" Brought back {rollback['date']} as `{tag}`, in place of {rollback['replaces']}."
    allowed = [f"`{row['code']}`: {row['sentence']}" for row in record.get("allowed") or []]
    return {"tag": tag, "sentence": sentence, "allowed": allowed}
