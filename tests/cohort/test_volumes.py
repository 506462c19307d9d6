"""Labels for volumes from a table, which slices are used, and groups from headers that nobody can turn back."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lungct_hf.cohort import load_cohort, make_split
from lungct_hf.commands.audit import audit as audit_command
from lungct_hf.commands.split import split as split_command
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.slices.phantom import draw_phantom

from .conftest import draw, load, refused, save
from .scans import Person, hu_of, study, write_nifti, write_rows


def table(folder: Path, key: str, people: list[Person], name: str = "labels.csv", **more: Any) -> Path:
    value = {
        "PatientID": lambda p: p.id, "Study Instance UID": lambda p: p.study, "series_uid": lambda p: p.series
    }[key]  # fmt: skip
    rows = [(value(person), ("clear", "nodule")[person.number % 2]) for person in people]
    return write_rows(folder / name, (key, "label"), rows)


@pytest.mark.parametrize("key", ["PatientID", "Study Instance UID", "series_uid"])
def test_a_label_for_each_patient_study_or_series(tmp_path: Path, key: str) -> None:
    people = study(tmp_path / "d")
    table(tmp_path / "d", key, people)
    cohort = load(tmp_path / "d")
    assert cohort.counts() == {"clear": 8, "nodule": 8} and cohort.grouping == "header:patient"
    assert len(set(cohort.groups)) == 4 and not cohort.left_out
    table(tmp_path, key, people[:3], "elsewhere.csv")
    outside = load(tmp_path / "d", labels=str(tmp_path / "elsewhere.csv"))
    assert outside.counts() == {"clear": 8, "nodule": 4}
    assert outside.left_out == {"without a label in the table": 4}
    assert "left out: 4 without a label in the table" in outside.notes


def test_a_label_for_each_slice(tmp_path: Path) -> None:
    people = study(tmp_path / "d")
    rows = [(p.sop(place), ("clear", "nodule")[place > 1], "val") for p in people for place in (0, 1, 2)]
    write_rows(tmp_path / "d" / "labels.csv", ("SOPInstanceUID", "class", "split"), rows)
    cohort = load(tmp_path / "d")
    assert cohort.counts() == {"clear": 8, "nodule": 4} and set(cohort.given_splits) == {"validation"}
    assert cohort.left_out == {"without a label in the table": 4} == load(tmp_path / "d", slices="listed").left_out


def test_a_label_for_each_file_or_frame(tmp_path: Path) -> None:
    for number in range(2):
        write_nifti(tmp_path / "d" / f"v{number}.nii.gz", hu_of(number, 5))
    rows: list[tuple[str, str]] = [("v0.nii.gz", "clear"), ("v1.nii.gz#1", "nodule"), ("v1.nii.gz#3", "clear")]
    write_rows(tmp_path / "d" / "labels.csv", ("file_name", "label"), rows)
    cohort = load(tmp_path / "d")
    assert cohort.counts() == {"clear": 6, "nodule": 1} and cohort.left_out == {"not listed in the table": 3}
    assert cohort.ids[cohort.labels == 1].tolist() == ["v1.nii.gz#1"]
    write_nifti(tmp_path / "d" / "v2.nii.gz", hu_of(2, 2))
    refused(tmp_path / "d", "1 images have no row in labels.csv", "--slices listed")
    assert load(tmp_path / "d", slices="listed").left_out == {"not listed in the table": 4}
    refused(tmp_path / "d", "all, listed, or a range", slices="half", kind=UsageError)


def test_a_range_of_positions_goes_by_the_scan_and_not_by_file_names(tmp_path: Path) -> None:
    people = study(tmp_path / "d", slices=10)
    middle = load(tmp_path / "d", slices="0.2-0.5")
    assert middle.counts() == {"clear": 6, "nodule": 6}
    assert middle.left_out == {"outside the range of positions": 28}
    whole = load(tmp_path / "d")
    for person in people:
        wanted = {np.asarray(picture).tobytes() for place in (2, 3, 4) for picture in [_picture(person.number, place)]}
        found = {np.asarray(middle.read(i)).tobytes() for i in range(len(middle))}
        assert wanted <= found and len(whole) == 40
    for number, label in enumerate(("a", "b")):
        save(draw(number, 0), tmp_path / "pictures" / label / "1.png")
    refused(tmp_path / "pictures", "single pictures", slices="0.2-0.8", kind=UsageError)
    for text in ("0.8-0.2", "1-2", "0.2", "-", "0.2-0.8-0.9", "nan-1"):
        refused(tmp_path / "d", "0.2-0.8 is needed", slices=text, kind=UsageError)
    refused(tmp_path / "d", "needs a table with file_name or SOPInstanceUID", slices="listed", kind=UsageError)


def _picture(number: int, place: int) -> Any:
    from lungct_hf.slices.source import open_slices

    return next(iter(open_slices(draw_phantom("normal", number, 1.5 * place, size=96)))).image  # type: ignore[union-attr]


def test_tables_that_contradict_themselves_name_rows_and_nobody(tmp_path: Path) -> None:
    people = study(tmp_path / "d")

    def refusal(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
        write_rows(tmp_path / "d" / "labels.csv", header, rows)
        with pytest.raises(LungCTError) as error:
            load(tmp_path / "d")
        text = str(error.value)
        assert "\n" not in text and not [told for p in people for told in p.tells(4) if told in text], text
        return text

    one = people[0].id
    assert "rows 1 and 3 give two labels" in refusal(
        ("PatientID", "label"), [(one, "a"), (people[1].id, "b"), (one, "b")]
    )
    assert "row 2: PatientID is empty" in refusal(("PatientID", "label"), [(one, "a"), ("", "b")])
    assert "only one class" in refusal(("PatientID", "label"), [(one, "a"), (people[1].id, "a")])
    assert "has no b slices" in refusal(("PatientID", "label"), [(one, "a"), ("nobody", "b")])
    assert "no column file_name" in refusal(("name", "label"), [(one, "a")])
    assert "named after patients" in refusal(("PatientID", "age"), [(one, "3")])


def test_patients_as_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    people = study(tmp_path / "d")
    (tmp_path / "d" / "labels.csv").unlink()
    with pytest.raises(LungCTError, match="named after patients, not after classes") as error:
        load(tmp_path / "d")
    assert not [told for person in people for told in person.tells(4) if told in str(error.value)]


def test_errors_about_folders_of_scans_name_no_patient(tmp_path: Path) -> None:
    people = [Person(number) for number in range(3)]

    def refusal(text: str, **options: Any) -> None:
        with pytest.raises(LungCTError, match=text) as error:
            load(tmp_path / "d", **options)
        assert not [told for person in people for told in person.tells(2) if told.lower() in str(error.value).lower()]

    for person in people:
        person.dicom(tmp_path / "d" / "_".join(person.name.split("^")), 2)
    refusal("named after patients")
    rows = [(f"{'_'.join(people[0].name.split('^'))}/IM00.dcm", "clear")]
    write_rows(tmp_path / "d" / "metadata.csv", ("file_name", "label"), rows)
    refusal("5 images have no row")
    (tmp_path / "d" / "metadata.csv").unlink()
    people[1].dicom(tmp_path / "d" / "train" / "clear", 2)
    refusal("another folder with slices, files whose names may tell")
    shutil.rmtree(tmp_path / "d")
    people[1].dicom(tmp_path / "d" / "clear", 2)
    for path in people[2].dicom(tmp_path / "d", 2):
        path.rename(path.with_name(f"{people[2].id}-{path.name}"))
    refusal("2 images lie outside the class folders clear")


# Groups from the header


def test_groups_need_no_column_and_one_may_be_named(tmp_path: Path) -> None:
    people = study(tmp_path / "d", people=6)
    key = tmp_path / "run" / "group.key"
    cohort = load(tmp_path / "d", group_key=key)
    assert cohort.grouping == "header:patient" and set(cohort.reasons) == {"header patient"}
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    assert load(tmp_path / "d", group_key=key).groups.tolist() == cohort.groups.tolist()
    assert load(tmp_path / "d", group_key=key).ids.tolist() == cohort.ids.tolist()
    other = load(tmp_path / "d")
    assert not set(other.groups) & set(cohort.groups), "without the key the same groups have other names"
    assert make_split(other, folds=3).split.tolist() == make_split(cohort, folds=3).split.tolist()
    rows = [(p.series, ("clear", "nodule")[p.number % 2], f"ward-{p.number // 2}") for p in people]
    write_rows(tmp_path / "d" / "labels.csv", ("SeriesInstanceUID", "label", "ward"), rows)
    named = load(tmp_path / "d", group_column="ward")
    assert named.grouping == "column:ward" and len(set(named.groups)) == 3
    assert not [group for group in named.groups if "ward" in group], "what stands beside headers is hashed too"
    assert load(tmp_path / "d", grouping="linked").grouping == "linked"
    key.write_bytes(b"short")
    refused(tmp_path / "d", "is no key of groups", group_key=key)


def test_without_a_patient_the_study_counts_and_then_the_series(tmp_path: Path) -> None:
    study(tmp_path / "d", PatientID="")
    assert load(tmp_path / "d").grouping == "header:study"
    for path in (tmp_path / "d").rglob("*.dcm"):
        path.unlink()
    study(tmp_path / "d", PatientID="", StudyInstanceUID="")
    assert load(tmp_path / "d").grouping == "header:series"
    shutil.rmtree(tmp_path / "d")
    study(tmp_path / "d", PatientID="ANONYMOUS")
    cohort = load(tmp_path / "d")
    assert len(set(cohort.groups)) == 1 and any("one and the same patient" in note for note in cohort.notes)


def test_pictures_beside_scans_are_linked_and_patients_stay_whole(tmp_path: Path) -> None:
    for number in range(4):
        Person(number).dicom(tmp_path / "d" / ("clear", "nodule")[number % 2] / f"s{number}", 3)
        hu = draw_phantom("normal", 90 + number, 0.0, size=96)
        picture = ((hu.clip(-1235, 265) + 1235) / 1500 * 255).astype(np.uint8)
        from PIL import Image

        save(Image.fromarray(picture), tmp_path / "d" / ("clear", "nodule")[number % 2] / f"p{number}.png")
    cohort = load(tmp_path / "d")
    assert cohort.grouping == "linked" and len(cohort) == 16
    dicom = [i for i, report in enumerate(cohort.reports) if report.facts["kind"] == "dicom"]
    assert len(dicom) == 12 and len(set(cohort.groups[dicom])) == 4
    assert all(np.sum(cohort.groups[dicom] == group) == 3 for group in set(cohort.groups[dicom]))


def test_one_person_under_two_ids_and_labels_is_reported(tmp_path: Path) -> None:
    from lungct_hf.audit import audit_data

    study(tmp_path / "d", people=6)
    twin = Person(0)
    twin.id, twin.series, twin.study = "MRN-779999", "1.2.826.0.1.99.77.7", "1.2.826.0.1.99.77"
    twin.dicom(tmp_path / "d" / "again")
    rows = [(Person(n).series, ("clear", "nodule")[n % 2]) for n in range(6)] + [(twin.series, "nodule")]
    write_rows(tmp_path / "d" / "labels.csv", ("SeriesInstanceUID", "label"), rows)
    found = audit_data(str(tmp_path / "d"), folds=2, progress=False)
    codes = {warning.code: warning for warning in found.warnings}
    assert codes["duplicate-across-classes"].total == 8


# Nothing tells who it was


def everything_below(folder: Path) -> bytes:
    return b"\n".join(
        str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def test_no_id_is_left_behind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Searched for in every byte that a split, an audit and a load write or say; ids in the paths included."""
    people = study(tmp_path / "d", people=6)
    people[0].dicom(tmp_path / "d" / people[0].id / "damaged", 4, SOPInstanceUID=people[0].sop(0), Rows=9999)
    out = tmp_path / "out"
    out.mkdir()
    for command, arguments in (
        (split_command, ["--output", out / "split.csv", "--folds", "3"]),
        (split_command, ["--output", out / "json.csv", "--folds", "3", "--json"]),
        (split_command, ["--check", out / "split.csv"]),
        (audit_command, ["--json", out / "audit.json", "--html", out / "audit.html", "--folds", "2"]),
    ):
        app = typer.Typer()
        app.command()(command)
        words = [str(word) for word in [tmp_path / "d", *arguments]]
        strict = CliRunner().invoke(app, words)
        assert isinstance(strict.exception, LungCTError) and "bad files" in str(strict.exception)
        with pytest.warns(UserWarning, match="Left out 4 bad files") as warned:
            done = CliRunner().invoke(app, [*words, "--on-bad-file", "skip"])
        assert done.exit_code == 0, (done.output, done.exception)
        said = [str(strict.exception), done.output, *(str(entry.message) for entry in warned)]
        (out / f"said-{command.__name__}-{len(arguments)}").write_text("\n".join(said))
    assert json.loads((out / "audit.json").read_text())["groups"]["grouping"] == "header:patient"
    with pytest.warns(UserWarning):
        cohort = load_cohort(str(tmp_path / "d"), group_key=out / "group.key", on_bad_file="skip")
    shown = [repr(cohort), *cohort.ids, *cohort.groups, *cohort.reasons, *cohort.notes, *cohort.names, *cohort.scans]
    shown += [repr(report) for report in cohort.reports] + [entry.id + entry.reason for entry in cohort.bad_files]
    captured = capfd.readouterr()
    content = everything_below(out) + "\n".join([*shown, captured.out, captured.err]).encode()
    found = [told for person in people for told in person.tells(4) if told.lower().encode() in content.lower()]
    assert len(content) > 10_000 and not found


def test_hashes_cannot_be_tried_out(tmp_path: Path) -> None:
    """No digest of an id alone, as anybody could make it, is a group or part of a row's name."""
    import hashlib

    people = study(tmp_path / "d")
    cohort = load(tmp_path / "d")
    shown = "\n".join([*cohort.ids, *cohort.groups, cohort.source, *cohort.reasons])
    for person in people:
        for value in (person.id, person.series, person.study, person.sop(0), f"lungct-hf series {person.series}"):
            for name in ("md5", "sha1", "sha256", "sha512", "blake2b"):
                digest = hashlib.new(name, value.encode()).hexdigest()
                assert digest[:8] not in shown
    assert all(len(group) == 16 and set(group) <= set("0123456789abcdef") for group in cohort.groups)


def test_a_data_folder_called_after_its_patient_is_not_shown(tmp_path: Path) -> None:
    person = Person(1)
    rows = [(person.sop(place), ("clear", "nodule")[place % 2]) for place in range(4)]
    person.dicom(tmp_path / person.id / person.id)
    write_rows(tmp_path / person.id / "labels.csv", ("SOPInstanceUID", "label"), rows)
    cohort = load(tmp_path / person.id)
    assert person.id not in f"{cohort.source}{cohort.ids}{cohort.notes}" and len(cohort) == 4


def test_copies_of_one_slice_have_names_of_their_own(tmp_path: Path) -> None:
    person = Person(3)
    for label in ("clear", "nodule"):
        person.dicom(tmp_path / "d" / label, 2)
        person.dicom(tmp_path / "d" / label / "again", 2)
    cohort = load(tmp_path / "d")
    assert len(set(cohort.ids)) == 8 and all(name.split("/")[0] in ("clear", "nodule") for name in cohort.ids)
