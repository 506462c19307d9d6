"""Why a slice is in its group: every kind of link gives its reason, and the reasons join the whole group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from lungct_hf.cohort import Cohort, regroup
from lungct_hf.cohort.link import Links, find_links
from lungct_hf.cohort.rule import Cuts
from lungct_hf.cohort.similarity import hash_distance, perceptual_signs, unit_rows
from lungct_hf.errors import LungCTError, UsageError

from .conftest import draw, load, refused


def links_of(
    pictures: Sequence[np.ndarray],
    names: Sequence[str] = ("a", "b"),
    grouping: str = "linked",
    labels: Sequence[int] = (0, 0),
    same_bytes: bool = False,
    features: np.ndarray | None = None,
) -> Links:
    shas = [f"{0 if same_bytes else i:064x}"[::-1] for i in range(len(pictures))]
    return find_links(grouping, labels, shas, np.stack(pictures), list(names), features=features)


def picture(person: int, s: int = 0, noise: float = 3.0) -> np.ndarray:
    return np.asarray(draw(person, s, noise))


def shaded(values: np.ndarray) -> np.ndarray:
    """The same picture, darker to one side."""
    return (values * 0.5 + np.linspace(0, 127, values.shape[1])).astype(np.uint8)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_identical_bytes_even_between_classes() -> None:
    links = links_of([picture(1), picture(2)], labels=[0, 2], same_bytes=True)
    assert links.reasons == ["same-bytes with b", "same-bytes with a"] and len(set(links.groups)) == 1


def test_thumbnails() -> None:
    one, two = picture(1, 0), picture(1, 1)
    assert links_of([one, two]).reasons == [f"thumbnail {correlation(one, two):.3f} with {x}" for x in "ba"]


def test_mirrored_copies() -> None:
    links = links_of([picture(1, 0), picture(1, 1)[:, ::-1]])
    assert links.reasons[0].startswith("mirror 0.9") and len(set(links.groups)) == 1


def test_perceptual_hashes_see_through_shading() -> None:
    plain, dark = picture(1), shaded(picture(1))
    distance = hash_distance(*perceptual_signs(np.stack([plain, dark]))[:, None])[0, 0]
    assert correlation(plain, dark) < Cuts().across and 0 < distance <= Cuts().phash
    assert links_of([plain, dark]).reasons == [f"phash {distance:.0f} with b", f"phash {distance:.0f} with a"]


def test_file_number_neighbours_only_under_linked() -> None:
    pictures, names = [picture(1, 0, 17.0), picture(1, 1, 17.0)], ["case (1).png", "case (2).png"]
    assert links_of(pictures, names).reasons[0] == f"neighbour {correlation(*pictures):.3f} with case (2).png"
    assert links_of(pictures, names, "similarity").reasons == ["alone", "alone"]


def test_backbone_features() -> None:
    features = np.array([[1, 0], [np.cos(0.2), np.sin(0.2)], [0, 1]], np.float32)
    strangers = [picture(p) for p in range(3)]
    links = links_of(strangers, "abc", "similarity+backbone", [0, 1, 2], features=features)
    assert links.reasons == ["backbone 0.980 with b", "backbone 0.980 with a", "alone"]
    for wrong in (features[:2], features * np.nan, None):
        with pytest.raises(LungCTError, match="features"):
            links_of(strangers, "abc", "similarity+backbone", [0, 1, 2], features=wrong)


def test_file_blocks() -> None:
    names = [f"case ({number}).png" for number in (1, 9, 10, 11, 30)] + [""]
    links = links_of([picture(p) for p in range(6)], names, "file-blocks:10", [0] * 6)
    assert len({links.groups[i] for i in (0, 1, 2)}) == 1 and len(set(links.groups)) == 4
    assert links.reasons[0].startswith("file-block with case (") and links.reasons[3:] == ["alone"] * 3
    with pytest.raises(LungCTError, match="needs file numbers"):
        links_of([picture(0), picture(1)], grouping="file-blocks:10")


def test_flat_pictures_are_like_nothing() -> None:
    flat = [np.full((48, 48), value, np.uint8) for value in (0, 9)] + [picture(1)]
    assert links_of(flat, "abc", labels=[0, 0, 0]).reasons == ["alone"] * 3


@pytest.mark.parametrize("grouping", ["linked", "similarity", "file-blocks:4"])
def test_the_reasons_alone_join_every_group(make_folder: Callable[..., Path], grouping: str) -> None:
    cohort = load(make_folder(slices=5), grouping=grouping)
    place = {name: i for i, name in enumerate(cohort.ids.tolist())}
    joined = {name: {name} for name in place}
    for name, reason in zip(cohort.ids.tolist(), cohort.reasons, strict=True):
        if reason != "alone":
            both = joined[name] | joined[reason.partition(" with ")[2]]
            joined |= dict.fromkeys(both, both)
    for name, members in joined.items():
        assert members == set(cohort.ids[cohort.groups == cohort.groups[place[name]]])


# Groupings by name


def test_a_grouping_can_be_forced_although_there_is_a_column(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [f"{name},p{i // 3},q{i % 9}" for i, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,patient_id,ward", *lines]))
    found = load(folder)
    assert found.grouping == "column:patient_id" and set(found.reasons) == {"column patient_id"} and not found.rule
    for name in ("ward", "column:ward"):
        assert load(folder, grouping=name).grouping == "column:ward"
    for name in ("linked", "similarity", "file-blocks:4"):
        forced = load(folder, grouping=name)
        assert forced.grouping == name and forced.groups[0].startswith(name.replace(":", "-"))
        again = regroup(found, name)
        assert again.groups.tolist() == forced.groups.tolist() and again.rule == forced.rule
        assert again.reasons == forced.reasons and again.ids.tolist() == found.ids.tolist()
    refused(folder, 'no group column "wing"', grouping="wing")
    refused(folder, "exclude each other", kind=UsageError, grouping="linked", group_column="ward")
    refused(folder, "needs features", kind=UsageError, grouping="linked+backbone")
    for name in ("file-blocks", "file-blocks:0", "file-blocks:x", "", "column:"):
        refused(folder, "", kind=UsageError, grouping=name)
    with pytest.raises(UsageError, match="no rule to link slices by"):
        regroup(found, "column:ward")
    with pytest.raises(UsageError, match="no say in"):
        regroup(found, "file-blocks:4", features=np.ones((len(found), 4), np.float32))


def test_similarity_groups_know_no_file_names(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(slices=4)

    def by_sha(cohort: Cohort) -> dict[str, str]:
        return dict(zip(cohort.sha256, cohort.groups, strict=True))

    before = by_sha(load(folder, grouping="similarity"))
    for i, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"{i * 31 % 97}-{i}.png"))
    assert by_sha(load(folder, grouping="similarity")) == before


@pytest.mark.parametrize("grouping", ["linked", "similarity+backbone", "linked+backbone", "file-blocks:10"])
def test_a_rule_survives_being_written(grouping: str) -> None:
    cuts = Cuts(thumbnail=0.97, phash=12)
    text = cuts.text(grouping, "0123abcd")
    read, weights = Cuts.parse(text, grouping)
    assert read.text(grouping, weights) == text and weights == ("0123abcd" if "backbone" in grouping else "")
    for wrong in (f"{text} novel>0.5", "thumbnail>high"):
        with pytest.raises(LungCTError, match="does not belong to the grouping"):
            Cuts.parse(wrong, grouping)


@pytest.mark.real_data
def test_no_link_but_neighbours_joins_what_the_others_do_not_on_real_slices(real_data: Path) -> None:
    """The cuts of hashes and mirrored thumbnails were chosen so: strangers are far from them."""
    cohort = load(real_data)
    unit, signs = unit_rows(cohort.thumbs48), perceptual_signs(cohort.thumbs48)
    strangers = cohort.labels[:, None] != cohort.labels[None]
    strangers &= cohort.groups[:, None] != cohort.groups[None]
    assert (unit @ unit.T)[strangers].max() < Cuts().across
    assert hash_distance(signs, signs)[strangers].min() > 1.5 * Cuts().phash
    flipped = unit.reshape(-1, 48, 48)[:, :, ::-1].reshape(unit.shape)
    assert (unit @ flipped.T)[strangers].max() < Cuts().across
