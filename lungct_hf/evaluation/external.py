"""External tests: what a model decided about slices that it was not made from, and what follows from that.

`evaluation/external/NAME.parquet` has a row for each slice of an outside set (SCHEMA), without anything by which its
people or the machine it lay on could be found; `evaluation/external.json` says what the sets were and has the figures,
which follow from the rows:

    {"schema_version": 1, "sets": {NAME: {"title", "kind", "classes", "window", "grouping", ..., "figures": {...}}}}

`figures` of a set, every share as {value, low, high}:
    slices, groups, labels      how many there are, and of each label
    decisions                   {label: {class, abstain or refused: slices}}
    refused, abstained, answered  n and share; by code and by reason
    answers                     among the answers: sensitivity, false_alarms, balanced_accuracy
    all                         the same of all slices: one without an answer is no alarm, and not found either
    forced                      the same of the most probable class, without input check, guard and abstention
    cautions                    what to know before believing the intervals
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..classes import Classes
from ..cohort.outside import MEANINGS, is_positive
from ..contract import Contract
from ..decision import Calibration, decide
from ..errors import LungCTError, UsageError
from ..files import sha256_of, write_atomic, write_json
from ..hub.model_repo import EXTERNAL, EXTERNAL_FOLDER, WEIGHTS, ModelRepo
from ..runtime.prediction import ABSTAIN, REFUSED
from ..slices.report import CODES
from .bootstrap import REPLICATES, cautions, intervals, method, share
from .differences import STRICT, differences
from .predictions import CLASSES_KEY, classes_of_table
from .sample import Sample

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # NAME/NUMBER
        ("sha256", pa.string()),
        ("group", pa.string()),  # a number: nothing of a patient, a header or a path is in it
        ("label", pa.string()),  # a class of the model or one of cohort.outside.MEANINGS
        ("decision", pa.string()),
        ("reason", pa.string()),
        ("logits", pa.list_(pa.float32())),  # also of refused slices, as a library without the check gives them
        ("distance", pa.float64()),
    ]
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCHEMA_VERSION = 1

Facts = dict[str, Any]


def check_name(name: str) -> str:
    """A set's name, which its file is called after. Raises UsageError where it cannot be one."""
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise UsageError(
            f"{name!r} cannot name an outside set. Needed: letters, digits, '.', '_' and '-', beginning with a letter "
            "or digit, 64 at most; for example --external clinic-2=DATA."
        )
    return name


def file_of(name: str) -> str:
    """Where the predictions for a set lie in the model repo."""
    return f"{EXTERNAL_FOLDER}/{name}.parquet"


def measured_with(repo: ModelRepo) -> Facts:
    """What the stored predictions depend on: the weights, and how a slice is read and checked before them.

    Where only a repo's evidence was fetched, its weights are None.
    """
    contract: Contract = repo.contract
    limits = None if contract.limits is None else contract.limits.to_json()
    return {
        "weights": sha256_of(repo.file(WEIGHTS)) if repo.has(WEIGHTS) else None,
        "window": asdict(contract.window),
        "geometry": contract.preprocessing.to_dict(),
        "input_limits": limits,
    }


def sets_of(repo: ModelRepo) -> dict[str, Facts]:
    """{NAME: what is stored about the set}; empty for a model that was not tested elsewhere.

    Raises LungCTError where external.json is of another form or version.
    """
    record = repo.external
    if record is None:
        return {}
    sets = record.get("sets")
    is_sound = isinstance(sets, dict) and all(
        _NAME.fullmatch(name) and isinstance(one, dict) and isinstance(one.get("figures"), dict)
        for name, one in sets.items()
    )
    if record.get("schema_version") != _SCHEMA_VERSION or not isinstance(sets, dict) or not is_sound:
        raise LungCTError(
            f"{EXTERNAL} of {repo.name} is none that this version of the package reads. Fix: pip install --upgrade "
            "lungct-hf, or test the model again with `lungct evaluate --external`."
        )
    return dict(sets)


def store(repo: ModelRepo, name: str, rows: list[dict[str, object]], facts: Facts, *, replicates: int) -> Facts:
    """Write a set's predictions and its entry in external.json, in place of an earlier one; gives the entry."""
    table = table_of(rows, repo.classes)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    entry = {
        **facts,
        "measured_with": measured_with(repo),
        "bootstrap": method(replicates),
        "figures": figures_of(table, replicates=replicates),
    }
    before = sets_of(repo)
    write_atomic(repo.path / file_of(name), sink.getvalue())
    entry["predictions"] = sha256_of(repo.path / file_of(name))
    write_sets(repo.path, before | {name: entry})
    return entry


def write_sets(folder: Path, sets: Mapping[str, Facts]) -> None:
    """Write external.json of a model's folder."""
    ordered = dict(sorted(sets.items()))
    write_json(folder / EXTERNAL, {"schema_version": _SCHEMA_VERSION, "sets": ordered})


def table_of(rows: list[dict[str, object]], classes: Classes) -> pa.Table:
    """Rows of SCHEMA, the logits in the order of the model's `classes`."""
    metadata = {CLASSES_KEY: json.dumps(classes.to_json(), ensure_ascii=False)}
    return pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata(metadata))


def read_table(repo: ModelRepo, name: str) -> pa.Table:
    """The stored predictions for a set. Raises LungCTError where they are missing or cannot be what they should."""
    path = repo.file(file_of(name))
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise LungCTError(f"{file_of(name)} cannot be read as parquet ({error}).") from error
    if missing := [column for column in SCHEMA.names if column not in table.column_names]:
        raise LungCTError(f"{file_of(name)} lacks the columns {missing}; it was not written by this package.")
    classes = repo.classes
    if classes_of_table(table) != Classes(classes.names, classes.positive):
        raise LungCTError(f"{file_of(name)} is of other classes than the model.")
    if wrong := next((one for one in table["label"].to_pylist() if one not in classes and one not in MEANINGS), None):
        raise LungCTError(f"{file_of(name)} has the label {wrong!r}, which is none.")
    known = {*classes, ABSTAIN, REFUSED}
    if wrong := next((one for one in table["decision"].to_pylist() if one not in known), None):
        raise LungCTError(f"{file_of(name)} has the decision {wrong!r}, which is none.")
    if any(len(row or ()) != len(classes) for row in table["logits"].to_pylist()):
        raise LungCTError(f"{file_of(name)} has not one logit for each class in every row.")
    digests = table["sha256"].to_pylist()
    if len(set(digests)) < len(digests) or not digests:
        raise LungCTError(f"{file_of(name)} has no slices, or one more than once.")
    return table


# --- what follows from the rows


def figures_of(table: pa.Table, *, replicates: int = REPLICATES, seed: int = 0) -> Facts:
    """The block `figures` of the module's docstring."""
    classes, labels = classes_of_table(table), table["label"].to_pylist()
    groups = np.array(table["group"].to_pylist(), np.str_)
    decisions, reasons = np.array(table["decision"].to_pylist(), np.str_), table["reason"].to_pylist()
    rows = _Rows(classes, labels, groups, replicates, seed)
    answered = np.array([one in classes for one in decisions], bool)
    refused, abstained = decisions == REFUSED, decisions == ABSTAIN
    everything = np.ones(len(table), bool)
    logits = np.array(table["logits"].to_pylist(), np.float64).reshape(-1, len(classes))
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    forced = np.array([classes[number] for number in np.where(finite[:, None], logits, 0.0).argmax(axis=1)], np.str_)
    found: Facts = {"slices": len(table), "groups": len(set(groups.tolist())), "labels": {}, "decisions": {}}
    for label in [one for one in (*classes, *MEANINGS) if one in labels]:
        mine = np.array([one == label for one in labels], bool)
        found["labels"][label] = {"slices": int(mine.sum()), "groups": len(set(groups[mine].tolist()))}
        counts = Counter(decisions[mine].tolist())
        found["decisions"][label] = {one: counts[one] for one in (*classes, ABSTAIN, REFUSED) if counts[one]}
    for name, mine, by in (("refused", refused, "codes"), ("abstained", abstained, "reasons")):
        counts = Counter(str(reason) for reason, is_one in zip(reasons, mine, strict=True) if is_one)
        found[name] = {"n": int(mine.sum()), "share": rows.share(mine, everything), by: dict(sorted(counts.items()))}
    found["answered"] = {"n": int(answered.sum()), "share": rows.share(answered, everything)}
    found["answers"] = rows.rates(decisions, answered) | {"balanced_accuracy": rows.balanced(decisions, answered)}
    found["all"] = rows.rates(decisions, everything)
    found["forced"] = rows.rates(forced, finite) | {"balanced_accuracy": rows.balanced(forced, finite)}
    return found | {"cautions": rows.cautions()}


class _Rows:
    """The labels and groups of a set's slices, and the shares among them with intervals over whole groups."""

    def __init__(self, classes: Classes, labels: list[str], groups: np.ndarray, replicates: int, seed: int) -> None:
        self.classes, self.labels, self.groups = classes, np.array(labels, np.str_), groups
        self._drawn = {"replicates": replicates, "seed": seed}
        self._positive = [is_positive(label, classes) for label in labels]

    def share(self, part: np.ndarray, whole: np.ndarray) -> Facts:
        """{value, low, high} of the rows `whole` (N, bool) that are in `part` as well."""
        return share(self._sample(np.ones(len(self.labels), bool)), part, whole, **self._drawn)

    def rates(self, named: np.ndarray, whole: np.ndarray) -> Facts:
        """How often `named` (N,) is a positive class among the rows `whole` with disease and without.

        None where the set has no such slices, or no class of the model is marked as disease.
        """
        alarms = np.array([name in self.classes.positive for name in named], bool)
        found: Facts = {}
        for figure, truth in (("sensitivity", True), ("false_alarms", False)):
            mine = np.array([one is truth for one in self._positive], bool)
            found[figure] = None
            if self.classes.positive and mine.any():
                found[figure] = share(self._sample(mine), alarms[mine] & whole[mine], whole[mine], **self._drawn)
        return found

    def balanced(self, named: np.ndarray, whole: np.ndarray) -> Facts | None:
        """Balanced accuracy over the classes of the model that the set has.

        None for fewer than two of them, or where one has no row in `whole`.
        """
        own = np.array([label in self.classes for label in self.labels], bool)
        present = set(self.labels[own].tolist())
        mine = own & whole
        if len(present) < 2 or set(self.labels[mine].tolist()) != present:
            return None
        numbers = [np.array([self.classes.index(one) for one in names[mine]]) for names in (self.labels, named)]
        sample = Sample.of(numbers[0], groups=self.groups[mine], classes=self.classes, named=numbers[1])
        found: Facts = intervals(sample, **self._drawn)["balanced_accuracy"]
        return found

    def cautions(self) -> list[str]:
        """What to know before believing the intervals."""
        return cautions(self._sample(np.ones(len(self.labels), bool)))

    def _sample(self, rows: np.ndarray) -> Sample:
        """The rows of a mask, drawn within their labels."""
        labels = self.labels[rows]
        names = list(dict.fromkeys(labels.tolist()))
        names += [name for name in MEANINGS if name not in names][: max(0, 2 - len(names))]
        numbers = np.array([names.index(label) for label in labels], np.int64)
        return Sample.of(
            numbers, groups=self.groups[rows], classes=Classes(tuple(names)), named=np.zeros_like(numbers)
        )


def undecided(table: pa.Table, calibration: Calibration | None) -> int:
    """How many rows have another decision or reason than the rule in lungct.json gives for their logits and distance.

    Of a refused slice only its code can be looked at: what the check measured is not stored.
    """
    classes = classes_of_table(table)
    logits = np.array(table["logits"].to_pylist(), np.float64).reshape(-1, len(classes))
    distance = np.array([np.nan if one is None else one for one in table["distance"].to_pylist()], np.float64)
    due = decide(calibration or Calibration(), classes, logits, distance=distance)
    wrong = 0
    for row, one in zip(table.select(["decision", "reason"]).to_pylist(), due, strict=True):
        if row["decision"] == REFUSED:
            wrong += row["reason"] not in CODES
        else:
            wrong += (row["decision"], row["reason"]) != (one.label or ABSTAIN, one.reason)
    return wrong


def problems(repo: ModelRepo) -> Iterator[tuple[str, str]]:
    """("stale" or "mismatch", sentence) for what is stored of external tests and does not hold."""
    here = {name for name in repo.files if name.startswith(f"{EXTERNAL_FOLDER}/")}
    try:
        sets = sets_of(repo)
    except LungCTError as error:
        yield "mismatch", str(error)
        return
    for name in sorted(here - {file_of(name) for name in sets}):
        yield "mismatch", f"{name} is there, and {EXTERNAL} does not name it"
    for name, entry in sets.items():
        yield from _problems_of(repo, name, entry)


def _problems_of(repo: ModelRepo, name: str, entry: Facts) -> Iterator[tuple[str, str]]:
    try:
        table = read_table(repo, name)
    except LungCTError as error:
        yield "mismatch", str(error)
        return
    made = entry.get("measured_with") or {}
    now = {what: value for what, value in measured_with(repo).items() if what != "weights" or value is not None}
    if changed := [what for what, value in now.items() if made.get(what) != value]:
        yield (
            "stale",
            f"{name} was measured with other {' and '.join(changed).replace('_', ' ')} than this model has, so it "
            "says nothing about it",
        )
    if entry.get("predictions") != sha256_of(repo.file(file_of(name))):
        yield "mismatch", f"{file_of(name)} is not the file whose sha256 {EXTERNAL} names"
    if count := undecided(table, repo.contract.calibration):
        yield "mismatch", f"{count} of {len(table)} rows of {file_of(name)} are not what lungct.json decides"
    meanings, own = set((entry.get("classes") or {}).values()), set(table["label"].to_pylist())
    if own - meanings:
        yield "mismatch", f"{file_of(name)} has labels that its class map does not give: {', '.join(own - meanings)}"
    drawn = entry.get("bootstrap") or {}
    due = figures_of(table, replicates=int(drawn.get("replicates", REPLICATES)), seed=int(drawn.get("seed", 0)))
    if found := differences(entry["figures"], due, drawn=STRICT, complete=True):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        yield "mismatch", f"{EXTERNAL}, {name}: {found[0]}{more}"


def rebuilt(repo: ModelRepo) -> dict[str, Facts]:
    """The sets with figures that follow from their predictions; those that cannot be read stay as they are."""
    sets = sets_of(repo)
    for name, entry in sets.items():
        try:
            table = read_table(repo, name)
        except LungCTError:
            continue
        drawn = entry.get("bootstrap") or {}
        replicates, seed = int(drawn.get("replicates", REPLICATES)), int(drawn.get("seed", 0))
        sets[name] = entry | {
            "figures": figures_of(table, replicates=replicates, seed=seed),
            "predictions": sha256_of(repo.file(file_of(name))),
        }
    return sets
