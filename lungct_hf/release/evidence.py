"""A model's evidence recomputed from its stored predictions, and where what it says is something else.

Nobody needs the data for this: predictions.parquet has every answer, split.csv every slice's hash, label and side.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ..classes import Classes
from ..decision import decide, positive_score
from ..errors import LungCTError
from ..evaluation.differences import STRICT, differences
from ..hub.author import PLACEHOLDER, author_text, with_author_text
from ..hub.card import render_card, render_eval_results
from ..hub.model_repo import CARD, EVAL_RESULTS, PREDICTIONS, SPLIT, ModelRepo
from .reasons import Reason

if TYPE_CHECKING:
    import pyarrow as pa

    from ..cohort import Split
    from ..evaluation import Report

CROSS_VALIDATED = "cross-validated"
_MIN_REPLICATES = 100


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a model stores about its worth: the `table` of predictions and the `split`; and `report`, what follows from
    the predictions."""

    repo: ModelRepo
    table: pa.Table
    split: Split
    report: Report

    @property
    def classes(self) -> Classes:
        return self.repo.classes

    @property
    def stored(self) -> dict[str, Any]:
        """metrics.json, {} where there is none."""
        return self.repo.metrics or {}

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json has to say."""
        kept = {"evidence": self.stored["evidence"]} if "evidence" in self.stored else {}
        return self.report.metrics | kept

    @property
    def calibration(self) -> dict[str, Any]:
        """The block of lungct.json, {} where there is none."""
        return self.repo.lungct.get("calibration") or {}


def read_evidence(repo: ModelRepo, *, replicates: int | None = None) -> Evidence:
    """Read and recompute, with as many bootstrap draws as metrics.json names or as are asked for.

    Raises LungCTError where a file is missing, cannot be read or is of other classes than the model, with the fix.
    """
    from ..cohort import Split
    from ..evaluation import evaluate_predictions, read_predictions

    repo.need(PREDICTIONS, SPLIT)
    split = Split.read(repo.file(SPLIT), repo.classes)
    table = read_predictions(repo.file(PREDICTIONS))[0]
    _check_classes(table, repo)
    stored = repo.metrics or {}
    made = stored.get("bootstrap") or {}
    report = evaluate_predictions(
        table,
        split=_split_block(split, stored),
        calibration=repo.contract.calibration,
        headline=stored.get("protocol"),
        replicates=replicates or max(_MIN_REPLICATES, int(made.get("replicates", 2000))),
        seed=int(made.get("seed", 0)),
    )
    return Evidence(repo, table, split, report)


def _check_classes(table: pa.Table, repo: ModelRepo) -> None:
    from ..evaluation.predictions import classes_of_table, has_classes

    found, due = classes_of_table(table), repo.classes
    if found.names != due.names or (has_classes(table) and found.positive != due.positive):
        said = [f"{', '.join(one)} (disease: {', '.join(one.positive) or 'none'})" for one in (found, due)]
        raise LungCTError(
            f"{PREDICTIONS} is of the classes {said[0]}, lungct.json of {said[1]}. Fix: take both from one run."
        )


def _split_block(split: Split, stored: dict[str, Any]) -> dict[str, Any]:
    """From the manifest. Folds of a cross-validation are not in it: their count and seeds are taken as stored."""
    block = stored.get("split") or {}
    return block if block.get("evidence") == CROSS_VALIDATED else split.facts()


def manifest_reasons(evidence: Evidence) -> list[Reason]:
    """Where split.csv, predictions.parquet, metrics.json and lungct.json speak of different slices."""
    return [*_split_mismatch(evidence), *_data_mismatch(evidence), *_crossing(evidence)]


def _split_mismatch(evidence: Evidence) -> Iterator[Reason]:
    split = evidence.split
    said = {
        "lungct.json": (evidence.repo.provenance.get("split") or {}).get("hash"),
        "metrics.json": (evidence.stored.get("split") or {}).get("hash"),
    }
    for name, value in said.items():
        if value != split.hash and (value is not None or name == "lungct.json"):
            yield Reason(
                "split-mismatch",
                f"{name} names the split {str(value)[:12]}, split.csv is {split.hash[:12]}: the weights or figures "
                "come from another split",
            )
    pooled = evidence.report.metrics["split"].get("evidence") == CROSS_VALIDATED
    places = zip(split.ids, split.sha256, split.groups, split.labels, split.split, split.fold_of, strict=True)
    rows = {str(name): (str(sha), str(g), split.classes[c], str(s), int(f)) for name, sha, g, c, s, f in places}
    wrong = []
    for row in evidence.table.select(["id", "sha256", "group", "label", "split", "fold"]).to_pylist():
        wanted, found = rows.get(row["id"]), (row["sha256"], row["group"], row["label"], row["split"], row["fold"])
        if wanted is None or wanted[: 3 if pooled else 5] != found[: 3 if pooled else 5]:
            wrong.append(row["id"])
    if wrong:
        yield Reason(
            "split-mismatch",
            f"{len(wrong)} rows of predictions.parquet are not in split.csv with this sha256, group, label, side and "
            f'fold, for example "{wrong[0]}"',
        )
    predicted = set(evidence.table["id"].to_pylist())
    held_out = split.ids if pooled else split.ids[np.isin(split.split, ("test", "validation"))]
    absent = [str(name) for name in held_out.tolist() if name not in predicted]
    if absent:
        yield Reason(
            "split-mismatch",
            f'{len(absent)} held-out slices of split.csv are not in predictions.parquet, for example "{absent[0]}"',
        )


def _data_mismatch(evidence: Evidence) -> Iterator[Reason]:
    said, found = (evidence.repo.provenance.get("data") or {}).get("fingerprint"), evidence.split.fingerprint()
    if said != found:
        yield Reason(
            "data-mismatch",
            f"lungct.json names the data {str(said)[:12]}, the slices of split.csv are {found[:12]}: the weights were "
            "trained on other slices",
        )


def _crossing(evidence: Evidence) -> Iterator[Reason]:
    split, stored = evidence.split, evidence.report.metrics["split"]
    shared = split.groups_in_training_and_validation
    crossing = max(split.groups_crossing, len(_groups_in_several_folds(evidence.table)))
    if not crossing and not shared and not stored.get("groups_crossing"):
        return
    if shared and not crossing:
        how = f"{split.describe_crossing()} ({stored.get('protocol')} split)"
        yield Reason("groups-across-split", f"{how}: calibration and the choice of an epoch rest on learned slices")
        return
    how = split.describe_crossing() if split.groups_crossing else f"{crossing or stored['groups_crossing']} groups"
    how += "" if split.groups_crossing else " were tested in several folds"
    yield Reason("groups-across-split", f"{how} ({stored.get('protocol')} split): the score is too high by that")


def _groups_in_several_folds(table: pa.Table) -> set[str]:
    """Groups whose test slices are in several folds of one seed, under the protocols that keep groups whole."""
    columns = [name for name in ("protocol", "seed", "split", "group", "fold") if name in table.column_names]
    folds: dict[tuple[Any, Any, str], set[int]] = defaultdict(set)
    for row in table.select(columns).to_pylist():
        if row["split"] == "test" and row.get("protocol") != "image" and "protocol" in row:
            folds[row["protocol"], row.get("seed"), row["group"]].add(row["fold"])
    return {group for (_, _, group), found in folds.items() if len(found) > 1}


def metrics_reasons(evidence: Evidence) -> list[Reason]:
    """Where metrics.json says something else than the predictions give."""
    if not evidence.stored:
        return [Reason("metrics-mismatch", "there is no evaluation/metrics.json")]
    found = differences(evidence.stored, evidence.metrics, drawn=STRICT, complete=True)
    if not found:
        return []
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [Reason("metrics-mismatch", f"metrics.json: {found[0]}{more}")]


def rule_reasons(evidence: Evidence) -> list[Reason]:
    """Where the stored abstentions, or what lungct.json promises of its rule, do not follow from the stored answers.

    Of a cross-validated model nothing can be said: each fold had a rule of its own, which is not kept.
    """
    from ..evaluation.predictions import class_numbers, logits_of

    calibration, table = evidence.repo.contract.calibration, evidence.table
    if calibration is None or evidence.report.metrics["split"].get("evidence") == CROSS_VALIDATED:
        return []
    rule = calibration.abstain
    stored = table["abstained"].to_pylist() if "abstained" in table.column_names else [None] * len(table)
    if rule is None:
        wrong = sum(value is not None for value in stored)
        said = f"{wrong} rows of predictions.parquet abstain or answer by a rule, and lungct.json has none"
        return [Reason("calibration-mismatch", said)] if wrong else []
    logits = logits_of(table)
    distance = np.array(table["distance"].to_pylist(), np.float64) if rule.distance is not None else None
    reasons = [decision.reason or "" for decision in decide(calibration, evidence.classes, logits, distance=distance)]
    wrong = sum(found != due for found, due in zip(stored, reasons, strict=True))
    if wrong:
        said = f"{wrong} of {len(stored)} rows of predictions.parquet are not what the rule in lungct.json decides"
        return [Reason("calibration-mismatch", said)]
    held_out = np.array(table["split"].to_pylist()) == "validation"
    if not held_out.any() or rule.expected_coverage is None or rule.expected_error is None:
        return []
    labels = class_numbers(table, "label")
    answered = held_out & (np.array(reasons) == "")
    errors = int((logits.argmax(axis=1) != labels)[answered].sum())
    promised = rule.expected_coverage * held_out.sum()
    # The answer at the threshold itself may have been rounded to the other side when the logits were stored.
    moved = abs(promised - answered.sum())
    if moved > 1.5 or abs(rule.expected_error * promised - errors) > 0.01 + moved:
        said = (
            f"lungct.json promises {promised:.0f} answers on the validation slices and an error of "
            f"{100 * rule.expected_error:.1f} %, the predictions give {answered.sum()} answers and {errors} errors"
        )
        return [Reason("calibration-mismatch", said)]
    return []


def operating_reasons(evidence: Evidence) -> list[Reason]:
    """Where the cuts for disease in lungct.json are not those that the stored validation answers give.

    Of a cross-validated model nothing can be said: its cuts rest on the folds' answers before their calibration.
    """
    from ..evaluation.operating import fit_operating
    from ..evaluation.predictions import class_numbers, logits_of

    calibration, table = evidence.repo.contract.calibration, evidence.table
    pooled = evidence.report.metrics["split"].get("evidence") == CROSS_VALIDATED
    held_out = np.array(table["split"].to_pylist()) == "validation"
    if calibration is None or not calibration.operating or pooled or not held_out.any():
        return []
    cuts = [point.threshold for point in calibration.operating]
    stored = table["thresholds"].to_pylist() if "thresholds" in table.column_names else []
    if any(row is not None and not np.allclose(row, cuts, rtol=0, atol=1e-6) for row in stored):
        return [Reason("calibration-mismatch", "predictions.parquet was judged by other cuts than lungct.json has")]
    chances = calibration.probabilities(logits_of(table)[held_out])
    labels, groups = class_numbers(table, "label")[held_out], np.array(table["group"].to_pylist())[held_out]
    score, wrong = positive_score(chances, evidence.classes), []
    due = {point.name: point.threshold for point in fit_operating(chances, labels, groups, evidence.classes)}
    for point in calibration.operating:
        # Logits were rounded when they were stored: at most one slice may be on the other side.
        found, wanted = (int((score >= cut).sum()) for cut in (point.threshold, due.get(point.name, np.inf)))
        if abs(found - wanted) > 1:
            wrong.append(f"{point.name} ({found} validation slices at or above it, not {wanted})")
    if not wrong:
        return []
    return [
        Reason("calibration-mismatch", f"lungct.json has other cuts than the predictions give: {', '.join(wrong)}")
    ]


def card_reasons(repo: ModelRepo, names: list[str | None]) -> list[Reason]:
    """Where README.md, outside the author's text, is not what the model's files give; `names`: what the repo is
    or was called. The metadata that the Hub reads are part of it."""
    if not repo.has(CARD):
        return [Reason("card-mismatch", "there is no README.md")]
    found = repo.file(CARD).read_bytes().decode("utf-8", "replace")
    kept = author_text(found)
    best: list[tuple[str, str]] | None = None
    for name in dict.fromkeys([*names, PLACEHOLDER]):
        wanted = with_author_text(render_card(repo, name), kept)
        lines = list(_differing(_lines(found), _lines(wanted)))
        if not lines:
            return []
        best = lines if best is None or len(lines) < len(best) else best
    said, due = (best or [("", "")])[0]
    return [
        Reason(
            "card-mismatch",
            f'README.md says "{said[:90]}" where the model\'s files give "{due[:90]}" ({len(best or [])} lines differ '
            "outside the author's text)",
        )
    ]


def _lines(markdown: str) -> list[str]:
    return markdown.replace("\r\n", "\n").rstrip().split("\n")


def _differing(found: list[str], wanted: list[str]) -> Iterator[tuple[str, str]]:
    import difflib

    for kind, a, b, c, d in difflib.SequenceMatcher(None, found, wanted, autojunk=False).get_opcodes():
        if kind != "equal":
            for place in range(max(b - a, d - c)):
                said = found[a + place] if a + place < b else ""
                due = wanted[c + place] if c + place < d else ""
                yield said.strip(), due.strip()


def eval_results_reasons(repo: ModelRepo) -> list[Reason]:
    """Where .eval_results/ holds other values than metrics.json gives."""
    wanted = render_eval_results(repo)
    try:
        stored = repo.file(EVAL_RESULTS).read_text(encoding="utf-8") if repo.has(EVAL_RESULTS) else None
        found = yaml.safe_load(stored) if stored is not None else None
    except (yaml.YAMLError, UnicodeDecodeError):
        return [Reason("metrics-mismatch", f"{EVAL_RESULTS} is not YAML")]
    if found == (yaml.safe_load(wanted) if wanted else None):
        return []
    return [Reason("metrics-mismatch", f"{EVAL_RESULTS} is not what metrics.json gives")]
