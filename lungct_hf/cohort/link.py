"""Group slices of a data set without patient ids: link what must come from one scan, keep linked slices together.

With the default cuts the 1,097 slices of IQ-OTH/NCCD form 26 benign, 45 malignant and 53 normal groups, near the true
15, 40 and 55 people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..errors import LungCTError
from . import similarity
from .folds import canonical_order
from .forest import Forest, describe
from .numbers import block_pairs, neighbours
from .rule import Cuts, block_size, needs_backbone
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
    features: np.ndarray | None = None,
    cuts: Cuts | None = None,
    progress: bool = False,
) -> Links:
    """Group slices by the rule `grouping`; slices share a group if a chain of links joins them.

    Always linked are identical files, whatever their class. "similarity" adds slices with thumbnails, mirrored
    thumbnails or perceptual hashes beyond `cuts`, and with `features` (grouping "similarity+backbone") those with
    features beyond them. "linked" adds to that slices of one class with consecutive numbers in otherwise equal names.
    "file-blocks:N" links, by class, file numbers 1 to N, N+1 to 2N, and so on, and looks at no picture.

    The groups and their names do not depend on the order of the slices; under "similarity" not on file names either.

    Args:
        labels: N class indices.
        sha256: N digests of the encoded files.
        thumbs48: uint8 (N, 48, 48), grey.
        names: N paths below the data root; "" where a slice has none (no file number then).
        ids: what reasons call the slices (default: `names`).
        features: float (N, D) with rows of norm 1.
        progress: show a bar on stderr when it takes more than two seconds. Time grows with N squared, memory with N.

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
    unit, signs = unit_rows(thumbs), perceptual_signs(thumbs)
    starts = range(0, len(unit), similarity.BLOCK)
    with tqdm(total=len(starts), desc="Linking slices", unit="block", delay=2, disable=not progress) as bar:
        for start in starts:
            rows = slice(start, start + similarity.BLOCK)
            for other in starts[starts.index(start) :]:
                columns = slice(other, other + similarity.BLOCK)
                for kind, matrix, cut in _comparisons(unit, signs, thumbs.shape[-1], features, rows, columns, cuts):
                    i, j = np.nonzero(matrix < cut)
                    loss = matrix[i, j]
                    i, j = i + start, j + other
                    keep = i < j
                    if kind == "thumbnail":
                        keep &= loss < np.where(classes[i] == classes[j], 1 - cuts.thumbnail, 1 - cuts.across)
                    forest.add(kind, np.stack([i, j], axis=1)[keep], loss[keep])
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
    yield "thumbnail", 1 - unit[rows] @ unit[columns].T, 1 - min(cuts.thumbnail, cuts.across)
    yield "mirror", 1 - unit[rows] @ mirrored(unit[columns], side).T, 1 - cuts.mirror
    bits = similarity.HASH_BITS
    yield "phash", hash_distance(signs[rows], signs[columns]) / bits, (cuts.phash + 0.5) / bits
    if features is not None:
        yield "backbone", 1 - features[rows] @ features[columns].T, 1 - cuts.backbone


def _link_neighbours(
    forest: Forest, classes: np.ndarray, names: Sequence[str], thumbs: np.ndarray, cuts: Cuts
) -> None:
    pairs = neighbours(classes, names)
    unit = unit_rows(thumbs)
    loss = 1 - np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]])
    close = loss < 1 - cuts.neighbour
    forest.add("neighbour", pairs[close], loss[close])
