"""Linking: what must come from one scan gets one group name, whatever the order of the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.cohort import link_slices, load_cohort, similarity
from lungct_hf.cohort.rule import Cuts

from .conftest import draw


def thumbs(*pictures: tuple[int, int, float]) -> np.ndarray:
    return np.stack([np.asarray(draw(person, s, noise)) for person, s, noise in pictures])


def groups_of(labels: Sequence[int], pictures: list[tuple[int, int, float]], names: Sequence[str]) -> list[str]:
    return link_slices(labels, [f"{i:064x}"[::-1] for i in range(len(labels))], thumbs(*pictures), names)


def correlation(a: tuple[int, int, float], b: tuple[int, int, float]) -> float:
    return float(np.corrcoef(*thumbs(a, b).reshape(2, -1))[0, 1])


def test_near_copies_of_one_class_are_linked_and_strangers_are_not() -> None:
    one, two, three = groups_of([0, 0, 0], [(1, 0, 4), (1, 1, 4), (2, 0, 4)], ["", "", ""])
    assert one == two != three


def test_file_number_neighbours_are_linked_at_a_lower_similarity() -> None:
    pictures = [(1, 0, 17.0), (1, 1, 17.0)]
    assert Cuts().neighbour < correlation(*pictures) < Cuts().across
    near, far = ["Normal case (9).jpg", "Normal case (10).jpg"], ["Normal case (9).jpg", "Normal case (11).jpg"]
    assert len(set(groups_of([0, 0], pictures, near))) == 1
    assert len(set(groups_of([0, 0], pictures, far))) == 2
    assert len(set(groups_of([0, 1], pictures, near))) == 2, (
        "numbers of two classes have nothing to do with each other"
    )
    assert len(set(groups_of([0, 0], pictures, ["a/x 9.jpg", "b/x 10.jpg"]))) == 2
    assert len(set(groups_of([0, 0], pictures, ["train/n/x 9.jpg", "test/n/x 10.jpg"]))) == 1
    assert len(set(groups_of([0, 0], pictures, ["", ""]))) == 2


def test_between_classes_only_identical_files_and_near_copies_are_linked() -> None:
    pictures = [(1, 0, 3.0), (1, 1, 3.0)]
    assert correlation(*pictures) > Cuts().across
    assert len(set(groups_of([1, 2], pictures, ["", ""]))) == 1
    same_bytes = link_slices([1, 2], ["a" * 64, "a" * 64], np.zeros((2, 48, 48), np.uint8), ["", ""])
    assert len(set(same_bytes)) == 1


def test_flat_pictures_are_not_linked_to_everything() -> None:
    pictures = np.stack([np.full((48, 48), value, np.uint8) for value in (0, 9)] + [np.asarray(draw(1, 0))])
    assert len(set(link_slices([0, 0, 0], ["a", "b", "c"], pictures, ["", "", ""]))) == 3


@pytest.mark.parametrize("block", [3, 1024])
def test_groups_do_not_depend_on_order_or_block_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BLOCK", block)
    pictures = [(person, s, 5.0) for person in range(6) for s in range(3)]
    labels = [person % 3 for person, _, _ in pictures]
    shas = [f"{7919 * i % 1000:064x}"[::-1] for i in range(len(pictures))]
    names = [f"case ({i}).png" for i in range(len(pictures))]
    straight = dict(zip(shas, link_slices(labels, shas, thumbs(*pictures), names), strict=True))
    order = np.random.default_rng(0).permutation(len(pictures))
    shuffled = link_slices(
        [labels[i] for i in order], [shas[i] for i in order], thumbs(*pictures)[order], [names[i] for i in order]
    )
    assert dict(zip([shas[i] for i in order], shuffled, strict=True)) == straight
    assert len(set(shuffled)) == 6
    assert all(name.startswith("linked-") for name in shuffled)


def test_a_folder_is_linked_person_by_person(make_folder: Callable[..., Path]) -> None:
    cohort = load_cohort(str(make_folder()), progress=False)
    assert cohort.grouping == "linked"
    for label in range(3):
        assert len(set(cohort.groups[cohort.labels == label])) == 6
    assert all(np.sum(cohort.groups == group) == 3 for group in cohort.groups)


@pytest.mark.real_data
def test_groups_of_the_real_slices(real_data: Path) -> None:
    cohort = load_cohort(str(real_data), progress=False)
    found = [len(set(cohort.groups[cohort.labels == label])) for label in range(3)]
    # 53, 26 and 45 on all 1,097 files; people: 55, 15, 40. Part of the set has fewer.
    assert all(low <= count <= high for count, low, high in zip(found, (35, 20, 30), (57, 30, 50), strict=True))
