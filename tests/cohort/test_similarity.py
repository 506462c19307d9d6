"""Similarities: block by block they are what one matrix gives, and no such matrix is ever held."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from lungct_hf.cohort import similarity
from lungct_hf.cohort.forest import Forest
from lungct_hf.cohort.link import find_links
from lungct_hf.cohort.similarity import closest, mirrored, unit_rows


def test_the_closest_slice_is_that_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "BLOCK", 7)
    thumbs = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    rows, others = np.arange(0, 40), np.arange(40, 60)
    matrix = np.corrcoef(thumbs.reshape(60, -1))[:40, 40:]
    value, which = closest(thumbs, rows, others)
    assert np.allclose(value, matrix.max(axis=1), atol=1e-5) and (which == 40 + matrix.argmax(axis=1)).all()


def test_a_mirrored_row_is_the_flipped_picture() -> None:
    thumbs = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    assert np.allclose(mirrored(unit_rows(thumbs), 8), unit_rows(thumbs[:, :, ::-1]), atol=1e-6)


def test_a_forest_keeps_the_strongest_links_whatever_their_order() -> None:
    links = np.array([[0, 1], [1, 2], [0, 2], [3, 4]])
    loss = np.array([0.01, 0.02, 0.005, 0.3])
    results = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        forest = Forest(6)
        for k in order:
            forest.add("thumbnail", links[k : k + 1], loss[k])
        forest.add("neighbour", links[:1], 0.0)
        root, partner, costs = forest.roots()
        results.append((root.tolist(), partner.tolist(), costs.round(3).tolist()))
    assert results[0] == results[1]
    assert results[0][0] == [0, 0, 0, 3, 3, 5] and results[0][1] == [2, 0, 0, 4, 3, -1]


def test_linking_ten_thousand_slices_holds_no_matrix_of_all_pairs() -> None:
    count = 10_000
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (count // 10, 16, 16)).repeat(10, axis=0)
    thumbs = np.clip(people + rng.normal(0, 4, people.shape), 0, 255).astype(np.uint8)
    shas = [f"{i:064x}"[::-1] for i in range(count)]
    tracemalloc.start()
    links = find_links("similarity", np.arange(count) // 10 % 3, shas, thumbs, [""] * count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(links.groups)) == count // 10
    assert peak < count * count, "one byte for each pair would be 100 MB, one float 400 MB"
