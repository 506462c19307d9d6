"""Group slices of a data set without patient ids: link what must come from one scan, keep linked slices together.

With the default cuts the 1,097 slices of IQ-OTH/NCCD form 124 groups (26, 45 and 53 by class), near the
true 110 people (15, 40 and 55).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from ..errors import LungCTError, UsageError
from . import nearest, similarity
from .cohort import Cohort
from .folds import canonical_order
from .forest import Forest, describe
from .names import SPLIT_ALIASES
from .rule import NAMED, Cuts, block_size, needs_backbone, parse_grouping, with_backbone
from .similarity import hash_distance, mirrored, perceptual_signs, unit_rows

ALONE = "alone"


@dataclass(frozen=True)
class Links:
    """For each slice the name of its group and, in words, the link that ties it to that group."""

    groups: list[str]
    reasons: list[str]


def link_slices(
    labels: Sequence[int] | np.ndarray,
    sha256: Sequence[str],
    thumbs48: np.ndarray,
    names: Sequence[str],
    progress: bool = False,
) -> list[str]:
    """A group name for each slice by the rule "linked" and its default cuts: `find_links` without the reasons."""
    return find_links("linked", labels, sha256, thumbs48, names, progress=progress).groups


def find_links(
    grouping: str,
    labels: Sequence[int] | np.ndarray,
    sha256: Sequence[str],
    thumbs48: np.ndarray,
    names: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    scans: Sequence[str] | None = None,
    features: np.ndarray | None = None,
    cuts: Cuts | None = None,
    progress: bool = False,
) -> Links:
    """Group slices by the rule `grouping`; slices share a group if a chain of links joins them.

    Always linked are identical files, whatever their class, and slices of one scan. "similarity" adds slices with
    thumbnails, mirrored thumbnails or perceptual hashes beyond `cuts`, and with `features` (grouping
    "similarity+backbone") those with features beyond them. "linked" adds to that slices of one class with consecutive
    numbers in otherwise equal names. "file-blocks:N" links, by class, file numbers 1 to N, N+1 to 2N, and so on, and
    looks at no picture.

    The groups and their names do not depend on the order of the slices; under "similarity" not on file names either.

    Args:
        labels: N class indices.
        sha256: N digests of the encoded files.
        thumbs48: uint8 (N, 48, 48), grey.
        names: N paths below the data root; "" where a slice has none (no file number then).
        ids: what reasons call the slices (default: `names`).
        scans: equal for slices of one scan, or of one patient where a header says so; "" for single pictures.
        features: float (N, D) with rows of norm 1.
        progress: show a bar on stderr when it takes more than two seconds.

    Up to 5,000 slices each is compared with each; above, an index finds what is near (nearest.py).

    Raises:
        LungCTError: file-blocks are asked for and no file has a number; or the features do not fit.
    """
    cuts = cuts or Cuts()
    if not len(sha256):
        return Links([], [])
    _check_features(grouping, features, len(sha256))
    sha, classes = np.asarray(sha256, dtype=np.str_), np.asarray(labels)
    called = np.asarray(names if ids is None else ids, dtype=np.str_)
    # From here on rows are in an order that file names and folders have no say in, so ties fall the same way.
    order = canonical_order(sha, classes, called, called)
    sha, classes = sha[order], classes[order]
    paths = [names[i] for i in order]
    forest = Forest(len(sha))
    same = np.flatnonzero(sha[1:] == sha[:-1])
    forest.add("same-bytes", np.stack([same, same + 1], axis=1))
    if scans is not None:
        forest.add("one-scan", _chained([scans[i] for i in order]))
    size = block_size(grouping)
    if size is not None:
        pairs = block_pairs(classes, paths, size)
        if not len(pairs) and size > 1:
            raise LungCTError(
                f'"{grouping}" needs file numbers ("case (12).png"), and no two files here share a block of them. '
                f"Fix: the grouping similarity or linked."
            )
        forest.add("file-block", pairs)
    else:
        _link_pictures(forest, classes, thumbs48[order], None if features is None else features[order], cuts, progress)
        if grouping.startswith("linked"):
            _link_neighbours(forest, classes, paths, thumbs48[order], cuts)
    root, partner, costs = forest.roots()
    prefix = grouping.replace(":", "-")
    groups, reasons = [""] * len(sha), [""] * len(sha)
    for row, place in enumerate(order.tolist()):
        groups[place] = f"{prefix}-{sha[root[row]][:12]}"
        alone = partner[row] < 0
        reasons[place] = ALONE if alone else describe(float(costs[row]), str(called[order[partner[row]]]))
    return Links(groups, reasons)


def _chained(names: Sequence[str]) -> np.ndarray:
    """int (n, 2): pairs that chain together all rows of one name; "" is none."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        if name:
            rows_of[name].append(row)
    pairs = [pair for rows in rows_of.values() for pair in zip(rows, rows[1:], strict=False)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _check_features(grouping: str, features: np.ndarray | None, count: int) -> None:
    if needs_backbone(grouping) != (features is not None):
        wanted = "features of a backbone" if features is None else "no features of a backbone"
        raise LungCTError(f'The grouping "{grouping}" needs {wanted}.')
    if features is None:
        return
    if features.ndim != 2 or len(features) != count or not np.isfinite(features).all():
        raise LungCTError(f"Finite features of shape ({count}, D) are needed; these have the shape {features.shape}.")


def _link_pictures(
    forest: Forest, classes: np.ndarray, thumbs: np.ndarray, features: np.ndarray | None, cuts: Cuts, progress: bool
) -> None:
    """Add links of pictures that look alike: up to `nearest.COMPARED` all are compared, more are found by an index."""
    found = _compared if len(thumbs) <= nearest.COMPARED else _indexed
    for kind, i, j, loss in found(thumbs, features, cuts, progress):
        keep = i < j
        if kind == "thumbnail":
            keep &= loss < np.where(classes[i] == classes[j], 1 - cuts.thumbnail, 1 - cuts.across)
        forest.add(kind, np.stack([i, j], axis=1)[keep], loss[keep])


Found = Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]  # kind, rows i, rows j, what a pair lacks of exact


def _compared(thumbs: np.ndarray, features: np.ndarray | None, cuts: Cuts, progress: bool) -> Found:
    unit, signs = unit_rows(thumbs), perceptual_signs(thumbs)
    starts = range(0, len(unit), similarity.BLOCK)
    with tqdm(total=len(starts), desc="Linking slices", unit="block", delay=2, disable=not progress) as bar:
        for start in starts:
            rows = slice(start, start + similarity.BLOCK)
            for other in starts[starts.index(start) :]:
                columns = slice(other, other + similarity.BLOCK)
                for kind, matrix, cut in _comparisons(unit, signs, thumbs.shape[-1], features, rows, columns, cuts):
                    i, j = np.nonzero(matrix < cut)
                    yield kind, i + start, j + other, matrix[i, j]
            bar.update()


def _comparisons(
    unit: np.ndarray,
    signs: np.ndarray,
    side: int,
    features: np.ndarray | None,
    rows: slice,
    columns: slice,
    cuts: Cuts,
) -> Iterator[tuple[str, np.ndarray, float]]:
    """(kind, what each pair lacks of being exact, how much it may lack) of two blocks, one matrix at a time."""
    yield "thumbnail", 1 - unit[rows] @ unit[columns].T, _most_lacking("thumbnail", cuts)
    yield "mirror", 1 - unit[rows] @ mirrored(unit[columns], side).T, _most_lacking("mirror", cuts)
    bits = similarity.HASH_BITS
    yield "phash", hash_distance(signs[rows], signs[columns]) / bits, _most_lacking("phash", cuts)
    if features is not None:
        yield "backbone", 1 - features[rows] @ features[columns].T, _most_lacking("backbone", cuts)


def _most_lacking(kind: str, cuts: Cuts) -> float:
    """What pairs that are linked by `kind` may lack of being exact: they lack less than that."""
    if kind == "phash":
        return (cuts.phash + 0.5) / similarity.HASH_BITS
    return 1 - (min(cuts.thumbnail, cuts.across) if kind == "thumbnail" else float(getattr(cuts, kind)))


def _indexed(thumbs: np.ndarray, features: np.ndarray | None, cuts: Cuts, progress: bool) -> Found:
    """The same as `_compared`, but for pairs that the index does not see."""
    side, count = thumbs.shape[-1], len(thumbs)
    parts = [slice(start, start + similarity.BLOCK) for start in range(0, count, similarity.BLOCK)]
    looks = np.concatenate([nearest.short_forms(unit_rows(thumbs[part]), side) for part in parts])
    signs = np.concatenate([perceptual_signs(thumbs[part]) for part in parts])
    # As unit rows: two hashes that differ on a share s of their bits have the dot product 1 - 2 s.
    signs /= np.sqrt(signs.shape[1])
    index = nearest.Nearest(looks)
    flipped = looks * np.resize([1, -1], looks.shape[1])  # a mirrored cosine wave changes its sign if it is odd
    searches = [
        ("thumbnail", index, looks, 1.0, lambda i, j: _likeness(thumbs, i, j)),
        ("mirror", index, flipped, 1.0, lambda i, j: _likeness(thumbs, i, j, mirror=True)),
        ("phash", nearest.Nearest(signs), signs, 2.0, lambda i, j: _dots(signs, signs, i, j)),
    ]
    if features is not None:
        points = np.ascontiguousarray(features, np.float32)
        searches.append(("backbone", nearest.Nearest(points), points, 1.0, lambda i, j: _dots(points, points, i, j)))
    for kind, where, queries, scale, likeness in tqdm(
        searches, desc="Linking slices", unit="kind", delay=2, disable=not progress
    ):
        most = _most_lacking(kind, cuts)
        for i, j in where.within(queries, (2 * scale * most) ** 0.5):  # of unit rows: squared distance 2 - 2 dot
            i, j = i[i < j], j[i < j]
            if not len(i):
                continue
            lack = (1 - likeness(i, j)) / scale
            close = lack < most
            yield kind, i[close], j[close], lack[close]


def _likeness(thumbs: np.ndarray, i: np.ndarray, j: np.ndarray, mirror: bool = False) -> np.ndarray:
    """float32 (n,): the correlations of the thumbnails of rows i and j, those of j flipped with `mirror`."""
    one, i = np.unique(i, return_inverse=True)
    other, j = np.unique(j, return_inverse=True)
    right = unit_rows(thumbs[other])
    return _dots(unit_rows(thumbs[one]), mirrored(right, thumbs.shape[-1]) if mirror else right, i, j)


def _dots(left: np.ndarray, right: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """float32 (n,): the dot products of rows i of `left` and rows j of `right`, without a copy of all of them."""
    out = np.empty(len(i), np.float32)
    for start in range(0, len(i), similarity.BLOCK):
        part = slice(start, start + similarity.BLOCK)
        out[part] = np.einsum("ij,ij->i", left[i[part]], right[j[part]])
    return out


def _link_neighbours(
    forest: Forest, classes: np.ndarray, names: Sequence[str], thumbs: np.ndarray, cuts: Cuts
) -> None:
    pairs = neighbours(classes, names)
    unit = unit_rows(thumbs)
    loss = 1 - np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]])
    close = loss < 1 - cuts.neighbour
    forest.add("neighbour", pairs[close], loss[close])


# File numbers: "Normal case (12).jpg" is number 12 of a run, and what was numbered together was scanned together.

Run = tuple[int, str, str]  # class, text before the number, text after it


def file_runs(labels: np.ndarray, names: Sequence[str]) -> dict[Run, dict[int, list[int]]]:
    """{run: {number: rows}} for all slices whose name ends in a number; the runs of two classes are never one."""
    runs: dict[Run, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, name in enumerate(names):
        match = re.fullmatch(r"(.*?)([0-9]+)([^0-9/]*)", _plain_name(name), flags=re.DOTALL)
        if match:
            runs[int(labels[i]), match[1], match[3]][int(match[2])].append(i)
    return runs


def neighbours(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """int (n, 2): pairs of rows of one run with consecutive numbers."""
    pairs = [
        (i, j)
        for numbered in file_runs(labels, names).values()
        for number, rows in numbered.items()
        for i in rows
        for j in numbered.get(number + 1, ())
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def block_pairs(labels: np.ndarray, names: Sequence[str], size: int) -> np.ndarray:
    """int (n, 2): pairs that chain together all rows of one run whose numbers lie in one block (1 to size, ...)."""
    blocks: dict[tuple[Run, int], list[int]] = defaultdict(list)
    for run, numbered in file_runs(labels, names).items():
        for number in sorted(numbered):
            blocks[run, (number - 1) // size] += numbered[number]
    pairs = [pair for rows in blocks.values() for pair in zip(rows, rows[1:], strict=False)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _plain_name(name: str) -> str:
    """The path without its ending and its split folder: a data set cut into train/ and test/ keeps its numbers."""
    head, _, rest = name.partition("/")
    path = rest if rest and head.lower() in SPLIT_ALIASES else name
    return re.sub(r"\.[A-Za-z]+$", "", path)


def regroup(
    cohort: Cohort,
    grouping: str,
    *,
    features: np.ndarray | None = None,
    weights: str = "",
    cuts: Cuts | None = None,
    progress: bool = False,
) -> Cohort:
    """`cohort` with the groups of the rule `grouping`: linked, similarity or file-blocks:N.

    Args:
        features: float32 (N, D), rows of norm 1 (`lungct_hf.model.features.backbone_features`): slices with features
            that are nearly the same are linked too, and "+backbone" is added to the grouping's name.
        weights: what identifies the backbone that gave them, for the manifest.

    Raises:
        UsageError: `grouping` is a column (load the data with it instead) or has no use for features.
        LungCTError: the data do not allow it.
    """
    rule, _ = parse_grouping(grouping)
    if rule is None:
        raise UsageError(f'The grouping "{grouping}" is no rule to link slices by. Needed: {NAMED}.')
    if features is not None:
        rule = with_backbone(rule.removesuffix("+backbone"))
    cuts = cuts or Cuts()
    links = find_links(
        rule,
        cohort.labels,
        cohort.sha256.tolist(),
        cohort.thumbs48,
        cohort.names,
        ids=cohort.ids.tolist(),
        scans=cohort.scans,
        features=features,
        cuts=cuts,
        progress=progress,
    )
    return replace(
        cohort,
        groups=np.asarray(links.groups, np.str_),
        grouping=rule,
        rule=cuts.text(rule, weights),
        reasons=tuple(links.reasons),
    )
