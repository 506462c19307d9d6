"""The index finds what comparing each slice with each finds, and says nothing while it does."""

from __future__ import annotations

import numpy as np
import pytest

from lungct_hf.cohort import nearest
from lungct_hf.cohort.link import find_links
from lungct_hf.cohort.similarity import mirrored, unit_rows


def _people(count: int, slices: int, seed: int = 0) -> np.ndarray:
    """uint8 (count * slices, 48, 48): smooth patterns, each with some noise; every third of a person is mirrored."""
    from scipy.ndimage import zoom

    rng = np.random.default_rng(seed)
    patterns = np.stack([zoom(pattern, 8, order=1) for pattern in rng.integers(40, 216, (count, 6, 6)).astype(float)])
    thumbs = patterns.repeat(slices, axis=0) + rng.normal(0, 6, (count * slices, 48, 48))
    thumbs[::3] = thumbs[::3, :, ::-1]
    return np.clip(thumbs, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("grouping", ["similarity", "linked", "similarity+backbone"])
def test_groups_are_those_of_comparing_each_with_each(
    grouping: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    thumbs = _people(300, 4)
    count = len(thumbs)
    features = np.random.default_rng(1).normal(size=(count // 2, 32)).repeat(2, axis=0) if "+" in grouping else None
    if features is not None:
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    names = [f"slice ({i}).png" for i in range(count)]
    shas = [f"{i:064x}"[::-1] for i in range(count)]
    found = []
    for compared in (count, 1):
        monkeypatch.setattr(nearest, "COMPARED", compared)
        found.append(find_links(grouping, np.arange(count) // 8 % 3, shas, thumbs, names, features=features))
    assert found[0].groups == found[1].groups
    kinds = [[reason.split()[0] for reason in links.reasons] for links in found]
    assert kinds[0] == kinds[1] and {"thumbnail", "mirror"} <= set(kinds[0])
    assert capfd.readouterr() == ("", "")


def test_short_forms_never_part_what_is_near() -> None:
    unit = unit_rows(_people(40, 3))
    short = nearest.short_forms(unit, 48)
    far = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    assert (np.linalg.norm(short[:, None] - short[None], axis=2) <= far + 1e-4).all()
    signs = np.resize([1, -1], short.shape[1])
    assert np.allclose(short * signs, nearest.short_forms(mirrored(unit, 48), 48), atol=1e-5)


def test_the_most_alike_are_among_those_allowed() -> None:
    points = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
    allowed = np.arange(600) % 3 == 0
    found = nearest.Nearest(points).most_alike(points[:50], 5, allowed)
    assert found.shape == (50, 5) and allowed[found[found >= 0]].all()
    distance = np.where(allowed, np.linalg.norm(points[:50, None] - points[None], axis=2), np.inf)
    assert (found[:, 0] == distance.argmin(axis=1)).mean() > 0.9
