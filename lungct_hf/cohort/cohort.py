"""A cohort: many slices with labels, groups and hashes, and what baselines, links and audits look at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..classes import Classes
from ..known_sets import KnownSet
from ..slices.preprocess import Preprocessing
from ..slices.report import InputReport
from ..slices.window import Window
from .listing import BadFile

if TYPE_CHECKING:
    from .reader import SliceReader


@dataclass(frozen=True, eq=False)
class Looks:
    """What audits see of N slices besides their thumbnails; about 5.3 KB a slice.

    `pixels` are digests of the decoded picture (str (N,)); `sizes` int64 (N, 2): width, height; `histograms` uint32
    (N, 256): pixels per grey level; `fine` uint8 (N, 64, 64): the thumbnail without the aliasing that would make a
    copy shifted by a pixel look different.
    """

    pixels: np.ndarray
    sizes: np.ndarray
    histograms: np.ndarray
    fine: np.ndarray


@dataclass(frozen=True, eq=False)
class Cohort:
    """N verified slices in a fixed order (natural path order for folders, row order for tables).

    `kind` is folder, archive, parquet or hub; `source` a name safe to publish. `labels` are int64 indices into
    `classes`, `given_splits` the data's own ("", train, validation, test).

    `ids` are unique and stable: the path below the data root, or "split/row"; with "#FRAME" behind it where the file
    gives several slices. Slices from DICOM files have ids made of keyed hashes instead, since paths may name patients.
    `sha256` is the digest of the encoded file; where the file gives several slices, that of "SHA256#FRAME".

    `grouping` names what made the `groups` ("column:NAME", "header:patient", "linked", "similarity", "file-blocks:N"),
    `rule` its cuts, `reasons` what ties each slice to its group. `scans` is equal for slices of one scan or volume,
    "" for single pictures; `names` are the paths whose file numbers count, "" for slices without one.

    `thumbnails` is uint8 (N, 64, 64): the squashed grey picture, what a nearest neighbour looks at; `thumbs48` the
    same at 48 pixels, what links and margins compare. All that is kept takes about 13 KB a slice. `squares` are the
    slices as `preprocessing` makes them for a network, uint8 (side, side, 3), where the call asked for them and they
    fit into memory.

    `window` turned HU into grey. `reports` has the input report of each slice, `left_out` how many slices or files
    were left out by reason, `bad_files` what could not be read, `notes` what a reader should know of the data,
    `known_set` the set of known_sets.toml that the data are, as far as their names tell, `class_map` the class that
    each name in the data means.
    """

    kind: str
    source: str
    classes: Classes
    labels: np.ndarray
    ids: np.ndarray
    sha256: np.ndarray
    groups: np.ndarray
    given_splits: np.ndarray
    grouping: str
    rule: str
    window: Window
    reader: SliceReader = field(repr=False)
    thumbnails: np.ndarray = field(repr=False)
    thumbs48: np.ndarray = field(repr=False)
    looks: Looks = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    scans: tuple[str, ...] = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)
    reports: tuple[InputReport, ...] = field(repr=False)
    squares: tuple[np.ndarray, ...] | None = field(default=None, repr=False)
    preprocessing: Preprocessing | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    bad_files: tuple[BadFile, ...] = ()
    notes: tuple[str, ...] = ()
    known_set: KnownSet | None = None
    class_map: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def counts(self) -> dict[str, int]:
        """Slices per class."""
        return {label: int(np.sum(self.labels == i)) for i, label in enumerate(self.classes)}

    def fingerprint(self) -> str:
        """sha256 over the sorted lines "SHA256 LABEL": names and order do not matter, one changed byte does."""
        return fingerprint(self.sha256, self.labels, self.classes)

    def read(self, i: int) -> Image.Image:
        """Slice `i` as an RGB picture, in `window` where it comes from HU.

        Raises:
            LungCTError: the file has gone or was damaged since the cohort was loaded.
        """
        return self.reader.read(int(i), str(self.ids[int(i)]))


def fingerprint(sha256: Iterable[str], labels: Iterable[int], classes: Classes) -> str:
    """sha256 over the sorted lines "SHA256 LABEL": names and order do not matter, one changed byte does."""
    lines = sorted(f"{sha} {classes[label]}\n" for sha, label in zip(sha256, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
