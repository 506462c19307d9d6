"""The slices that an audit compares: a cohort's, in an order that neither file names nor the listing's influence."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image

from ..classes import Classes
from ..cohort import BadFile, Cohort
from ..cohort.load import THUMBNAIL
from ..errors import LungCTError
from ..slices.listing import natural_key

__all__ = ["THUMBNAIL", "Slices"]


@dataclass(frozen=True, eq=False)
class Slices:
    """N slices of a cohort, sorted by content.

    `labels` are int64 indices into `classes`; `pixels` are digests of the decoded picture, `sha256` of the encoded
    file; `sizes` is int64 (N, 2): width, height; `histograms` uint32 (N, 256): pixels per grey level; `thumbnails`
    uint8 (N, 64, 64), squashed, as the baselines see them; `fine` the same without the aliasing that would make a
    copy shifted by a pixel look different; `splits` what the data themselves say, or "". `grouping` is as in `Cohort`;
    `rows_of` are the rows of the cohort.
    """

    classes: Classes
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
    cohort: Cohort = field(repr=False)
    rows_of: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, cohort: Cohort) -> Slices:
        """The slices of `cohort`. Raises LungCTError: they are too few to compare."""
        if len(cohort) < 4:
            raise LungCTError(
                f'"{cohort.source}" has {len(cohort)} readable slices; an audit compares classes and needs at least '
                f"two slices of each."
            )
        # One order for all that follows, whatever the files are called: names only part identical files.
        rows = np.lexsort((cohort.ids, cohort.labels, cohort.sha256))
        looks = cohort.looks
        return cls(
            classes=cohort.classes,
            ids=cohort.ids[rows],
            labels=cohort.labels[rows],
            groups=cohort.groups[rows],
            splits=cohort.given_splits[rows],
            sha256=cohort.sha256[rows],
            pixels=looks.pixels[rows],
            sizes=looks.sizes[rows],
            histograms=looks.histograms[rows],
            thumbnails=cohort.thumbnails[rows],
            fine=looks.fine[rows],
            grouping=cohort.grouping,
            bad_files=cohort.bad_files,
            cohort=cohort,
            rows_of=rows,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> Image.Image:
        """Slice `row` as RGB. Raises LungCTError: its file has gone or changed."""
        return self.cohort.read(int(self.rows_of[row]))

    @property
    def groups_are_named(self) -> bool:
        """Whether the data name their groups, so that copies inside one are no surprise."""
        return self.grouping.startswith(("column:", "header:"))

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
