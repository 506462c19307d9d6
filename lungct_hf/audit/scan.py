"""Decode every slice once and keep what an audit needs of it: hashes, size, histogram, thumbnail; never the pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..cohort import BadFile, link_slices
from ..cohort.names import first_few
from ..errors import BadSliceError, LungCTError
from ..slices.listing import natural_key
from ..slices.read import read_slice
from .folders import Source

THUMBNAIL = 64  # pixels
_LINKING = 48


class _Seen(NamedTuple):
    sha256: str
    pixels: str
    size: tuple[int, int]
    histogram: np.ndarray
    thumbnail: np.ndarray
    fine: np.ndarray
    small: np.ndarray


@dataclass(frozen=True, eq=False)
class Slices:
    """N verified slices, in an order that neither file names nor the listing's order influence.

    `labels` are int64 indices into `classes`; `pixels` are digests of the decoded picture, `sha256` of the encoded
    file; `sizes` is int64 (N, 2): width, height; `histograms` uint32 (N, 256): pixels per grey level; `thumbnails`
    uint8 (N, 64, 64), squashed, as the baselines see them; `fine` the same without the aliasing that would make a
    copy shifted by a pixel look different; `splits` what the data themselves say, or "". `grouping` is "column:NAME"
    or "linked".
    """

    classes: tuple[str, ...]
    ids: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    splits: np.ndarray
    sha256: np.ndarray
    pixels: np.ndarray
    sizes: np.ndarray
    histograms: np.ndarray = field(repr=False)
    thumbnails: np.ndarray = field(repr=False)
    fine: np.ndarray = field(repr=False)
    grouping: str
    bad_files: tuple[BadFile, ...]
    read_bytes: Callable[[int], bytes] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def groups_are_named(self) -> bool:
        """Whether the data name their groups, so that copies inside one are no surprise."""
        return self.grouping != "linked"

    @cached_property
    def picture_numbers(self) -> np.ndarray:
        """int64 (N,): equal for slices with the same decoded pixels."""
        return np.unique(self.pixels, return_inverse=True)[1].ravel()

    @cached_property
    def group_numbers(self) -> np.ndarray:
        """int64 (N,): equal for slices of one group."""
        return np.unique(self.groups, return_inverse=True)[1].ravel()

    @cached_property
    def natural_order(self) -> np.ndarray:
        """Rows in the order of their names, numbers by value: "case (9)" before "case (10)"."""
        return np.asarray(sorted(range(len(self)), key=lambda i: natural_key(str(self.ids[i]))), dtype=np.int64)

    def rows(self, label: int) -> np.ndarray:
        """Rows of one class, ascending."""
        return np.flatnonzero(self.labels == label)


def scan(source: Source, on_bad_file: str, progress: bool) -> Slices:
    """Decode, hash and group all slices of `source`. Memory grows by about 16 KB per slice.

    Raises:
        LungCTError: files are no readable slices and `on_bad_file` is "refuse", or too few are left.
    """
    listing = source.listing
    seen = _look_at_all(listing.read_bytes, len(listing.rows), progress)
    bad = listing.bad + [
        BadFile(row.id, what) for row, what in zip(listing.rows, seen, strict=True) if isinstance(what, str)
    ]
    if bad and on_bad_file == "refuse":
        lines = "; ".join(f'"{entry.id}": {entry.reason}' for entry in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise LungCTError(
            f'{len(bad)} bad files among the {len(listing.rows)} images of "{listing.source}": {lines}{more}. Fix: '
            f"repair them or move them away, or leave them out with --on-bad-file skip."
        )
    kept = [i for i, what in enumerate(seen) if isinstance(what, _Seen)]
    present = {listing.rows[i].label for i in kept}
    if len(present) < len(source.classes) or len(present) < 2 or len(kept) < 4:
        found = first_few([name for i, name in enumerate(source.classes) if i in present]) or "none"
        raise LungCTError(
            f'"{listing.source}" has {len(kept)} readable slices of the classes {found}; an audit compares classes '
            f"and needs slices of at least two, and of each that is listed ({first_few(list(source.classes))})."
        )
    # One order for all that follows, whatever the files are called: names only part identical files.
    kept.sort(key=lambda i: (_seen(seen[i]).sha256, listing.rows[i].label, listing.rows[i].id))
    good = [_seen(seen[i]) for i in kept]
    rows = [listing.rows[i] for i in kept]
    labels, sha256 = [row.label for row in rows], [what.sha256 for what in good]
    if listing.group_column is None:
        small = np.stack([what.small for what in good])
        groups = link_slices(labels, sha256, small, [row.name for row in rows], progress)
    else:
        groups = [row.group for row in rows]
    return Slices(
        classes=source.classes,
        ids=np.asarray([row.id for row in rows], dtype=np.str_),
        labels=np.asarray(labels, dtype=np.int64),
        groups=np.asarray(groups, dtype=np.str_),
        splits=np.asarray([row.split for row in rows], dtype=np.str_),
        sha256=np.asarray(sha256, dtype=np.str_),
        pixels=np.asarray([what.pixels for what in good], dtype=np.str_),
        sizes=np.asarray([what.size for what in good], dtype=np.int64),
        histograms=np.stack([what.histogram for what in good]),
        thumbnails=np.stack([what.thumbnail for what in good]),
        fine=np.stack([what.fine for what in good]),
        grouping="linked" if listing.group_column is None else f"column:{listing.group_column}",
        bad_files=tuple(bad),
        read_bytes=lambda i: listing.read_bytes(kept[i]),
    )


def _look_at_all(read_bytes: Callable[[int], bytes], total: int, progress: bool) -> list[_Seen | str]:
    """For each row what was seen of it, or the reason why it is bad. Threads: decoding releases the GIL."""

    def look(i: int) -> _Seen | str:
        try:
            encoded = read_bytes(i)
            picture = read_slice(encoded)
        except BadSliceError as error:
            return str(error)
        grey = picture.convert("L")
        box, lanczos = Image.Resampling.BOX, Image.Resampling.LANCZOS
        square = (THUMBNAIL, THUMBNAIL)
        return _Seen(
            sha256=hashlib.sha256(encoded).hexdigest(),
            pixels=hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest(),
            size=picture.size,
            histogram=np.asarray(grey.histogram(), dtype=np.uint32),
            thumbnail=np.asarray(grey.resize(square, box)),
            fine=np.asarray(grey.resize(square, lanczos)),
            small=np.asarray(grey.resize((_LINKING, _LINKING), box)),
        )

    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        looks = pool.map(look, range(total))
        return list(tqdm(looks, total=total, desc="Reading slices", unit="slice", delay=2, disable=not progress))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for all the rest


def _seen(what: _Seen | str) -> _Seen:
    assert isinstance(what, _Seen)
    return what
