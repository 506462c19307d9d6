"""The rule by which slices are grouped: its name and the cuts, as written into a manifest and read back from it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from ..errors import LungCTError, UsageError

NAMED = "linked, similarity, file-blocks:N (N file numbers each), or column:NAME"
_BACKBONE = "+backbone"


@dataclass(frozen=True)
class Cuts:
    """Where alike begins. The defaults were set on 872 slices of IQ-OTH/NCCD so that no two people are joined.

    There, slices of two classes (two people) reach: thumbnails 0.925, mirrored thumbnails 0.927, perceptual hashes 42
    of 256 bits, backbone features 0.946. Two scans of one class reach 0.952 mirrored and 0.953 by features.
    """

    thumbnail: float = 0.975  # correlation of 48 x 48 thumbnails above which two slices of one class are one scan
    # The same between classes. A wrong link here costs little, a missed one puts a patient on both sides of a split.
    across: float = 0.95
    mirror: float = 0.975  # the same for a slice and the other one flipped left to right: augmented copies
    phash: float = 20  # bits of 256 up to which perceptual hashes may differ: copies with other contrast
    neighbour: float = 0.88  # thumbnails of consecutive file numbers; they have two humps, this is the valley
    backbone: float = 0.965  # cosine of frozen ImageNet features: copies that were cropped, moved or written on

    def text(self, grouping: str, weights: str = "") -> str:
        """What of this the grouping `grouping` uses, for a manifest; "" for groups that no cut decides about."""
        used = _uses(grouping)
        words = [f"{name}{'<=' if name == 'phash' else '>'}{getattr(self, name):g}" for name in used]
        return " ".join([*words, *([f"weights={weights}"] if "backbone" in used else [])])

    @classmethod
    def parse(cls, text: str, grouping: str) -> tuple[Cuts, str]:
        """The cuts and the backbone's weights ("" if none) that `text` states.

        Raises:
            LungCTError: it does not state exactly what `grouping` uses.
        """
        found = {name: value for name, value in re.findall(r"(\S+?)(?:<=|>|=)(\S+)", text)}
        weights = found.pop("weights", "")
        try:
            cuts = cls(**{name: float(value) for name, value in found.items()})
        except (TypeError, ValueError):
            cuts = None
        if cuts is None or cuts.text(grouping, weights) != text:
            raise LungCTError(
                f'The rule "{text}" does not belong to the grouping "{grouping}" of this version. Fix: check it with '
                f"the version of lungct-hf that wrote it, or make a new split."
            )
        return cuts, weights


def parse_grouping(grouping: str | None, group_column: str | None = None) -> tuple[str | None, str | None]:
    """What `grouping` means: (the name of a rule, None), (None, a column), or (None, None) for what the data offer.

    Raises:
        UsageError: it contradicts `group_column`, or its number makes no sense.
    """
    if grouping is None:
        return None, group_column
    name = grouping.strip()
    blocks = re.fullmatch(r"file-blocks(?::(.*))?", name)
    if blocks and not re.fullmatch(r"[1-9][0-9]{0,5}", blocks[1] or ""):
        raise UsageError(f'The grouping "{grouping}" needs the size of a block, for example file-blocks:10.')
    if not name or name == "column:":
        raise UsageError(f'The grouping "{grouping}" names nothing. Needed: {NAMED}.')
    rule = name if blocks or name.removesuffix(_BACKBONE) in ("linked", "similarity") else None
    column = None if rule else name.removeprefix("column:")
    if group_column is not None and column != group_column:
        raise UsageError(f'The grouping "{grouping}" and the group column "{group_column}" exclude each other.')
    return rule, column


def with_backbone(grouping: str) -> str:
    """The name of `grouping` when a backbone's features take part."""
    if grouping not in ("linked", "similarity"):
        raise UsageError(f'A backbone has no say in the grouping "{grouping}"; only in linked and similarity.')
    return grouping + _BACKBONE


def needs_backbone(grouping: str) -> bool:
    return grouping.endswith(_BACKBONE)


def block_size(grouping: str) -> int | None:
    """N of "file-blocks:N", None for other groupings."""
    return int(grouping.partition(":")[2]) if grouping.startswith("file-blocks:") else None


def _uses(grouping: str) -> list[str]:
    base = grouping.removesuffix(_BACKBONE)
    if base not in ("linked", "similarity"):
        return []
    left_out = set() if base == "linked" else {"neighbour"}
    left_out |= set() if needs_backbone(grouping) else {"backbone"}
    return [item.name for item in fields(Cuts) if item.name not in left_out]
