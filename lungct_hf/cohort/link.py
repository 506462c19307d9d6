"""Group slices of a data set without patient ids: link what must come from one scan, keep linked slices together.

With these cuts the 1,097 slices of IQ-OTH/NCCD form 26 benign, 45 malignant and 53 normal groups, near the true 15, 40
and 55 people.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from .names import SPLIT_ALIASES

SAME_CLASS = 0.975  # correlation of 48 x 48 thumbnails above which two slices of one class are one scan
NEIGHBOURS = 0.88  # the same for consecutive file numbers; neighbour correlations have two humps, this is the valley
# Between classes, the most alike slices of different people in IQ-OTH/NCCD reach 0.925 and neighbours in one scan 0.95
# and more; a wrong link here costs little, a missed one puts a patient on both sides of a split.
ACROSS_CLASSES = 0.95
_BLOCK = 1024  # rows; a block of correlations is 4 MB


def link_slices(
    labels: Sequence[int] | np.ndarray,
    sha256: Sequence[str],
    thumbs48: np.ndarray,
    names: Sequence[str],
    progress: bool = False,
) -> list[str]:
    """A group name for each slice; slices share it if a chain of links joins them.

    Linked are (1) identical files, whatever their class, (2) slices of one class whose thumbnails correlate above
    `SAME_CLASS`, (3) of one class with consecutive numbers in otherwise equal names, above `NEIGHBOURS`, and (4) of
    two classes above `ACROSS_CLASSES`. The result does not depend on the order of the slices.

    Args:
        labels: N class indices.
        sha256: N digests of the encoded files.
        thumbs48: uint8 (N, 48, 48), grey.
        names: N paths below the data root; "" where a slice has none (then rule 3 does not apply).
        progress: show a bar on stderr when it takes more than two seconds. Time grows with N squared, memory with N.
    """
    if not len(sha256):
        return []
    classes = np.asarray(labels)
    unit = _normalised(thumbs48)
    group = np.unique(np.asarray(sha256, dtype=np.str_), return_inverse=True)[1].ravel()
    group = _join(group, *_file_neighbours(classes, names, unit))
    blocks = range(0, len(unit), _BLOCK)
    with tqdm(total=len(blocks), desc="Linking slices", unit="block", delay=2, disable=not progress) as bar:
        for start in blocks:
            for rows, columns in _alike(unit, classes, start):
                group = _join(group, rows, columns)
            bar.update()
    first: dict[int, str] = {}
    for member, sha in zip(group.tolist(), sha256, strict=True):
        first[member] = min(first.get(member, sha), sha)
    return [f"linked-{first[member][:12]}" for member in group.tolist()]


def _normalised(thumbs: np.ndarray) -> np.ndarray:
    """float32 (N, pixels) of zero mean and unit norm: a dot product is a correlation; flat pictures are zero."""
    rows = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=rows, where=norm > 0)


def _alike(unit: np.ndarray, classes: np.ndarray, start: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Links (rules 2 and 4) between the block of rows at `start` and each block from there on."""
    rows = slice(start, start + _BLOCK)
    for other in range(start, len(unit), _BLOCK):
        columns = slice(other, other + _BLOCK)
        correlation = unit[rows] @ unit[columns].T
        cut = np.where(classes[rows, None] == classes[None, columns], SAME_CLASS, ACROSS_CLASSES)
        i, j = np.nonzero(correlation > cut)
        yield i + start, j + other


def _file_neighbours(classes: np.ndarray, names: Sequence[str], unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Links (rule 3) between slices whose names differ by one in their last number: "Normal case (12).jpg"."""
    numbered: dict[tuple[int, str, str, int], list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        match = re.fullmatch(r"(.*?)([0-9]+)([^0-9/]*)", _plain_name(name), flags=re.DOTALL)
        if match:
            numbered[int(classes[i]), match[1], match[3], int(match[2])].append(i)
    pairs = [
        (i, j)
        for (label, stem, tail, number), members in numbered.items()
        for i in members
        for j in numbered.get((label, stem, tail, number + 1), ())
    ]
    if not pairs:
        return np.empty(0, int), np.empty(0, int)
    i, j = np.array(pairs).T
    close = np.einsum("ij,ij->i", unit[i], unit[j]) > NEIGHBOURS
    return i[close], j[close]


def _plain_name(name: str) -> str:
    """The path without its ending and its split folder: a data set cut into train/ and test/ keeps its numbers."""
    head, _, rest = name.partition("/")
    path = rest if rest and head.lower() in SPLIT_ALIASES else name
    return re.sub(r"\.[A-Za-z]+$", "", path)


def _join(group: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Merge the groups that the links i-j join. `group` holds small integers, one per slice."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left, right = group[i], group[j]
    differ = left != right
    if not differ.any():
        return group
    count = int(group.max()) + 1
    links = coo_matrix((np.ones(int(differ.sum()), np.int8), (left[differ], right[differ])), shape=(count, count))
    return connected_components(links, directed=False)[1][group]
