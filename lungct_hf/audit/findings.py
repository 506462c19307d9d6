"""What is worth a warning: the thresholds, each with its reason, and one sentence per finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cohort.load import is_from_hu, window_spread
from ..slices.report import InputReport
from .copies import Copies, Pairs
from .geometry import not_square
from .grey import auc
from .probes import VIEWS
from .slices import Slices

CODES: tuple[str, ...] = (
    "duplicate",
    "duplicate-across-classes",
    "near-copy",
    "near-copy-across-classes",
    "near-copy-across-splits",
    "class-histogram",
    "class-geometry",
    "mixed-windows",
    "file-order",
    "shortcut-ring",
    "shortcut-1nn",
)
MAX_FILES = 1000  # files named per warning; `total` says how many there are

# Consecutive files that are near-copies: 20 %, and three times as many as among random pairs of one class. Shuffled
# files have equal shares; IQ-OTH/NCCD has 67 % against 1 %.
ORDER_SHARE, ORDER_RATIO = 0.20, 3.0
# A trace of processing separates two classes: 0.9 of 1. Untouched classes of IQ-OTH/NCCD stay below 0.55, one
# equalised class reaches 1.0. Where everything was processed (six or seven rounds) 0.75 is far from chance.
TRACE_AUC, TRACE_AUC_OF_PROCESSED = 0.90, 0.75
# Non-square pictures: at least 5, 9 of 10 in one class, and that less likely than 1 in 1,000 by chance.
SQUARE_COUNT, SQUARE_SHARE, SQUARE_CHANCE = 5, 0.90, 1e-3
# A probe without a view of the lung beats chance between groups by this much balanced accuracy (and beats its own 99 %
# chance level). Phantoms whose class shows only in the lung reach 0.11, through masses that touch the ring.
SHORTCUT_OVER_CHANCE = 0.15
GEOMETRY_OVER_CHANCE = 0.10  # sizes are no pictures: nothing of a lung can shine through
# Groups that had to be guessed: the score by image lies this far above the score by group, and is high in itself.
LEAK_GAP, LEAK_SCORE = 0.15, 0.80
SOLVED = 0.95  # balanced accuracy between groups at which no learning is needed at all


@dataclass(frozen=True)
class Finding:
    """One finding. `files` are the slices involved, the plainest first, at most `MAX_FILES` of `total`."""

    code: str
    message: str
    files: tuple[str, ...]
    total: int

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        return {"code": self.code, "message": self.message, "files": list(self.files), "total": self.total}


def find_warnings(
    slices: Slices, copies: Copies, order: dict[str, Any], differences: dict[str, Any], probes: dict[str, Any]
) -> list[Finding]:
    """All warnings, in the order of `CODES`. What groups named by the data explain is none."""
    found = [
        *_duplicates(slices, copies),
        *_near_copies(slices, copies),
        *_across_splits(slices, copies),
        *_histograms(slices, differences),
        *_geometry(slices, probes),
        *_windows(slices),
        *_file_order(slices, copies, order),
        *_shortcuts(slices, probes),
    ]
    return sorted(found, key=lambda warning: CODES.index(warning.code))


def _warning(slices: Slices, code: str, message: str, rows: Iterable[int] | np.ndarray) -> Finding:
    ids = [str(slices.ids[i]) for i in rows]
    return Finding(code, message, tuple(ids[:MAX_FILES]), len(ids))


def _natural(slices: Slices, rows: Iterable[int]) -> list[int]:
    place = np.argsort(slices.natural_order)
    return sorted(rows, key=lambda row: int(place[row]))


def _set_by_set(slices: Slices, sets: list[list[int]]) -> list[int]:
    """The rows of each set side by side, in the order of their names."""
    place = np.argsort(slices.natural_order)
    ordered = sorted((_natural(slices, rows) for rows in sets), key=lambda rows: int(place[rows[0]]))
    return [row for rows in ordered for row in rows]


def _duplicates(slices: Slices, copies: Copies) -> list[Finding]:
    across = [rows for rows in copies.same_pixels if len(set(slices.labels[rows].tolist())) > 1]
    within = [
        same
        for rows in copies.same_pixels
        for label in set(slices.labels[rows].tolist())
        if len(same := [row for row in rows if slices.labels[row] == label]) > 1
    ]
    out = []
    if within:
        extra = sum(map(len, within)) - len(within)
        in_bytes = sum(len(rows) - len(set(slices.sha256[rows].tolist())) for rows in within)
        out.append(
            _warning(
                slices,
                "duplicate",
                f"{_count(extra, 'slice repeats', 'slices repeat')} a picture of the same class exactly ({in_bytes} "
                f"byte for byte, {extra - in_bytes} in other files with the same pixels). Count each picture once.",
                _set_by_set(slices, within),
            )
        )
    if across:
        out.append(
            _warning(
                slices,
                "duplicate-across-classes",
                f"{_count(len(across), 'picture stands', 'pictures stand')} in two or more classes. One of the labels "
                f"is wrong.",
                _set_by_set(slices, across),
            )
        )
    return out


def by_class(slices: Slices, copies: Copies) -> tuple[Pairs, Pairs]:
    """Near-copy pairs within a class, and across classes; the first without those of one group that the data name."""
    i, j = copies.near.i, copies.near.j
    same = slices.labels[i] == slices.labels[j]
    # The search across splits finds a patient's slices as well: a leak between splits, but no copy of anybody else.
    within = same & (slices.group_numbers[i] != slices.group_numbers[j]) if slices.groups_are_named else same
    return copies.near.where(within), copies.near.where(~same)


def _near_copies(slices: Slices, copies: Copies) -> list[Finding]:
    within, across = by_class(slices, copies)
    cut = f"likeness of at least {copies.cut:.2f}"
    out = []
    if len(within):
        rows = within.rows()
        where = " in another group" if slices.groups_are_named else ""
        out.append(
            _warning(
                slices,
                "near-copy",
                f"{len(rows)} of {len(slices)} slices have a near-copy in their class{where} "
                f"({cut}{_flipped(within)}). A random split puts such copies on both sides: split by group.",
                rows,
            )
        )
    if len(across):
        rows = across.rows()
        out.append(
            _warning(
                slices,
                "near-copy-across-classes",
                f"{_count(len(rows), 'slice has', 'slices have')} a near-copy in another class ({cut}, up to "
                f"{across.likeness[0]:.3f}{_flipped(across)}). One scan seems to carry two labels.",
                rows,
            )
        )
    return out


def across_splits(slices: Slices, copies: Copies) -> tuple[Pairs, list[list[int]], list[list[int]]]:
    """Near-copy pairs, identical pictures, and (where the data name groups) groups that lie in several splits."""

    def crossing(sets: list[list[int]]) -> list[list[int]]:
        return [rows for rows in sets if len(set(slices.splits[rows].tolist()) - {""}) > 1]

    one, two = slices.splits[copies.near.i], slices.splits[copies.near.j]
    near = copies.near.where((one != two) & (one != "") & (two != ""))
    groups: dict[int, list[int]] = {}
    if slices.groups_are_named:
        for row, group in enumerate(slices.group_numbers.tolist()):
            groups.setdefault(group, []).append(row)
    return near, crossing(copies.same_pixels), crossing(list(groups.values()))


def _across_splits(slices: Slices, copies: Copies) -> list[Finding]:
    near, same, groups = across_splits(slices, copies)
    if not len(near) and not same and not groups:
        return []
    rows = list(dict.fromkeys([*_set_by_set(slices, same), *near.rows().tolist()]))
    alike = len(rows)
    rows = list(dict.fromkeys([*rows, *_set_by_set(slices, groups)]))
    parts = []
    if alike:
        parts.append(
            f"{_count(alike, 'slice has', 'slices have')} a copy in another of the data's own splits "
            f"({_count(len(same), 'identical picture', 'identical pictures')}, near-copies of likeness at least "
            f"{copies.cut:.2f}{_flipped(near)})"
        )
    if groups:
        column = slices.grouping.partition(":")[2]
        parts.append(f"{_count(len(groups), f'{column} lies', f'{column}s lie')} in more than one split")
    message = f"{' and '.join(parts)}. Scores on these splits are too good: make new ones by group."
    return [_warning(slices, "near-copy-across-splits", message, rows)]


def _histograms(slices: Slices, differences: dict[str, Any]) -> list[Finding]:
    needed = TRACE_AUC_OF_PROCESSED if differences["processed"] else TRACE_AUC
    telling = [entry for entry in differences["traces"] if entry["auc"] >= needed and entry["matters"]]
    if not telling:
        return []
    worst = max(telling, key=lambda entry: entry["auc"])
    (one, two), (low, high) = worst["classes"], worst["medians"]
    words = differences["words"][worst["trace"]]
    everything = " All classes show traces of processing." if differences["processed"] else ""
    message = (
        f"The histogram tells {one} from {two}: {words}, median {low:g} against {high:g} (AUC {worst['auc']:.2f}, "
        f"{needed:.2f} is needed for a warning). The classes were not processed alike.{everything}"
    )
    classes = {name for entry in telling for name in entry["classes"]}
    rows = [row for row in slices.natural_order if slices.classes[slices.labels[row]] in classes]
    return [_warning(slices, "class-histogram", message, rows)]


def _geometry(slices: Slices, probes: dict[str, Any]) -> list[Finding]:
    rows, label, chance = not_square(slices)
    mine = rows[slices.labels[rows] == label]
    parts = []
    if len(rows) >= SQUARE_COUNT and len(mine) >= SQUARE_SHARE * len(rows) and chance < SQUARE_CHANCE:
        parts.append(
            f"{len(mine)} of {len(rows)} non-square pictures are {slices.classes[label]}; letterbox them, a squash to "
            f"a square turns their shape into a label"
        )
    if over := _over_chance(probes, "geometry", GEOMETRY_OVER_CHANCE):
        parts.append(f"picture size alone tells the class in unseen groups ({over})")
    if not parts:
        return []
    sizes = slices.sizes[:, 0] * 100_000 + slices.sizes[:, 1]
    values, counts = np.unique(sizes, return_counts=True)
    odd = [row for row in slices.natural_order if sizes[row] != values[counts.argmax()]]
    return [_warning(slices, "class-geometry", _sentence(parts), odd)]


def _windows(slices: Slices) -> list[Finding]:
    """Pictures beside slices from HU, or pictures of plainly different windows, and whether that tells the class."""
    reports = [slices.cohort.reports[row] for row in slices.rows_of]
    from_hu = np.asarray([is_from_hu(report) for report in reports])
    parts = []
    if from_hu.any() and not from_hu.all():
        shares = {name: float(from_hu[slices.rows(label)].mean()) for label, name in enumerate(slices.classes)}
        told = ", ".join(f"{share:.0%} of {name}" for name, share in shares.items())
        parts.append(f"{int(from_hu.sum())} slices come from HU and {int((~from_hu).sum())} are pictures ({told} HU)")
    elif not from_hu.any() and (spread := window_spread(reports)):
        parts.append(
            f"soft tissue is at grey {spread[0]:.0f} in some pictures and {spread[1]:.0f} in others, so they are of "
            f"plainly different windows"
        )
        parts += _window_of_class(slices, reports)
    if not parts:
        return []
    message = f"{_sentence(parts)} Figures may measure the source of a slice instead of what it shows."
    return [_warning(slices, "mixed-windows", message, slices.natural_order)]


def _window_of_class(slices: Slices, reports: list[InputReport]) -> list[str]:
    """The two classes that the grey of soft tissue tells apart best, if it does."""
    tissue = np.asarray([report.facts.get("tissue_grey", np.nan) for report in reports], dtype=np.float64)
    best, words = TRACE_AUC, []
    for a, first in enumerate(slices.classes):
        for b in range(a + 1, len(slices.classes)):
            one, two = (tissue[slices.rows(label)] for label in (a, b))
            one, two = one[~np.isnan(one)], two[~np.isnan(two)]
            if len(one) and len(two) and (found := max(value := auc(one, two), 1 - value)) >= best:
                best = found
                medians = f"median {np.median(one):.0f} against {np.median(two):.0f}"
                words = [f"that alone tells {first} from {slices.classes[b]} ({medians}, AUC {found:.2f})"]
    return words


def file_order(slices: Slices, copies: Copies) -> dict[str, Any]:
    """How alike consecutive files are, beside random pairs of one class."""
    neighbours, others = copies.consecutive.likeness, copies.samples["one class"]

    def described(values: np.ndarray) -> dict[str, Any]:
        if not len(values):
            return {"pairs": 0, "median": None, "near_copies": None}
        share = float((values >= copies.cut).mean())
        return {"pairs": len(values), "median": round(float(np.median(values)), 4), "near_copies": round(share, 4)}

    return {"consecutive": described(neighbours), "random": described(others)}


def _file_order(slices: Slices, copies: Copies, order: dict[str, Any]) -> list[Finding]:
    near, far = order["consecutive"]["near_copies"], order["random"]["near_copies"] or 0.0
    if near is None or order["consecutive"]["pairs"] < 10 or near < ORDER_SHARE or near < ORDER_RATIO * far:
        return []
    rows = _natural(slices, copies.consecutive.where(copies.consecutive.likeness >= copies.cut).rows().tolist())
    message = (
        f"{near:.0%} of consecutive files are near-copies, {far:.0%} of random pairs of one class: files are numbered "
        f"scan by scan. Never split or sample them as if they were independent."
    )
    return [_warning(slices, "file-order", message, rows)]


def _shortcuts(slices: Slices, probes: dict[str, Any]) -> list[Finding]:
    out = []
    for view, code, words in (
        ("ring", "shortcut-ring", "The outer ring, without any lung,"),
        ("1-nn", "shortcut-1nn", "A nearest neighbour on thumbnails, without learning,"),
    ):
        image, grouped = probes["views"][view]["image"], probes["views"][view]["grouped"]
        parts = []
        needed = SHORTCUT_OVER_CHANCE if view == "ring" else SOLVED - probes["chance_balanced_accuracy"]
        if over := _over_chance(probes, view, needed):
            parts.append(f"{words} tells the class in unseen groups ({over})")
        by_image = image["balanced_accuracy"] if image else 0.0
        by_group = grouped["balanced_accuracy"] if grouped else probes["chance_balanced_accuracy"]
        if not slices.groups_are_named and by_image >= LEAK_SCORE and by_image - by_group >= LEAK_GAP:
            parts.append(
                f"{'it' if parts else words} scores {by_image:.1%} balanced accuracy when split by image and "
                f"{by_group:.1%} by group: an image-level score measures who was seen before"
            )
        if parts:
            out.append(_warning(slices, code, _sentence(parts), slices.natural_order))
    return out


def remarks(probes: dict[str, Any]) -> list[str]:
    """What deserves a look although nothing is wrong with it for certain: views without a lung that tell the class."""
    out = []
    for view in ("bottom", "histogram", "levels"):
        if over := _over_chance(probes, view, SHORTCUT_OVER_CHANCE):
            out.append(
                f"{VIEWS[view][0]} tells the class in unseen groups ({over}): ask how each class was acquired and "
                f"exported."
            )
    return out


def _over_chance(probes: dict[str, Any], view: str, needed: float) -> str:
    """The figures, if the view beats chance between groups by `needed`, else ""."""
    score, chance = probes["views"][view]["grouped"], probes["chance_balanced_accuracy"]
    if score is None or score["balanced_accuracy"] < max(chance + needed - 1e-9, score["chance99"]):
        return ""
    return f"{score['balanced_accuracy']:.1%} balanced accuracy, chance {chance:.1%}"


def _flipped(pairs: Pairs) -> str:
    mirrored = int(pairs.mirrored.sum())
    return f", {_count(mirrored, 'pair', 'pairs')} mirrored" if mirrored else ""


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
