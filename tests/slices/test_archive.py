"""Folders and archives: every slice once, in scan order, and nothing that leads, links or blows up."""

import io
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_slices import ct_dataset, dicom_bytes, phantom_hu
from PIL import Image

from lungct_hf.cohort.tree import Tree
from lungct_hf.pipeline.units import list_units
from lungct_hf.slices.listing import printable
from lungct_hf.slices.source import Frame, Unreadable, open_slices
from lungct_hf.slices.window import LUNG_WINDOW

HU = phantom_hu(size=64)


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(LUNG_WINDOW.apply(HU)).save(out, "PNG")
    return out.getvalue()


def slice_at(z: float, *, uid: str = "1.2.3", number: int | None = None, place: bool = True) -> bytes:
    dataset = ct_dataset(HU, SeriesInstanceUID=uid, InstanceNumber=number, ImagePositionPatient=[0, 0, z])
    if not place:
        del dataset.ImagePositionPatient
    return dicom_bytes(dataset)


def zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def write(folder: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


SCAN = {
    "study/a/img2.dcm": slice_at(10.0, uid="1.1"),
    "study/a/img10.dcm": slice_at(-5.0, uid="1.1"),
    "study/a/img1.dcm": slice_at(2.5, uid="1.1"),
    "study/b/x1": slice_at(0, uid="2.2", number=9, place=False),
    "study/b/x2": slice_at(0, uid="2.2", number=3, place=False),
    "study/c/10.png": png(),
    "study/c/9.png": png(),
    "study/notes.txt": b"hello",
    "study/DICOMDIR": b"whatever",
    "study/.hidden.png": png(),
    "__MACOSX/study/._img1.dcm": b"\0" * 90,
    "study/c/Thumbs.db": b"x",
}
ORDER = ["a/img10.dcm", "a/img1.dcm", "a/img2.dcm", "b/x2", "b/x1", "c/9.png", "c/10.png"]


@pytest.mark.parametrize("packed", [False, True])
def test_each_slice_once_in_scan_order(tmp_path: Path, packed: bool) -> None:
    if packed:
        source = tmp_path / "study.zip"
        source.write_bytes(zipped(SCAN))
    else:
        source = write(tmp_path / "scan", SCAN)
    rows = list(open_slices(source))
    assert all(isinstance(row, Frame) for row in rows)
    assert [row.file for row in rows] == [f"{source}/study/{name}" for name in ORDER]
    series = [row.series for row in rows if isinstance(row, Frame)]
    assert len(set(series[:3])) == 1 and len(set(series)) == 3 and series[-1] is None
    assert [row.position for row in rows if isinstance(row, Frame)][:3] == [-5.0, 2.5, 10.0]


def test_a_bad_file_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = write(tmp_path, {"1.png": png(), "2.png": png()[:300], "3.dcm": b"junk", "4.png": b"", "5.png": png()})
    rows = {Path(row.file).name: row for row in open_slices(folder)}
    assert len(rows) == 5 and isinstance(rows["1.png"], Frame) and isinstance(rows["5.png"], Frame)
    for name, expected in (("2.png", "truncated"), ("3.dcm", "not-an-image"), ("4.png", "truncated")):
        row = rows[name]
        assert isinstance(row, Unreadable) and row.reason == expected, row


def test_nothing_in_it_is_said(tmp_path: Path) -> None:
    for source in (tmp_path, zipped({"notes.txt": b"x"})):
        (row,) = open_slices(source)
        assert isinstance(row, Unreadable) and row.reason == "not-an-image"


def test_links_and_pipes_in_folders(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", {"a/1.png": png()})
    (folder / "a" / "up").symlink_to(folder)  # a circle
    (folder / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "a" / "self").symlink_to("self")
    os.mkfifo(folder / "pipe")
    rows = {Path(row.file).name: row for row in open_slices(folder)}
    assert set(rows) == {"1.png", "gone.png", "pipe", "up", "self"}
    assert isinstance(rows["1.png"], Frame)
    assert "under another name" in rows["up"].detail and rows["self"].reason == "not-found"


def test_doubled_links_and_deep_folders_end(tmp_path: Path) -> None:
    data, elsewhere = write(tmp_path / "data", {"0/1.png": png()}), tmp_path / "elsewhere"
    for level in range(25):  # two links to each folder: 2 ** 25 paths
        folder = elsewhere / str(level)
        folder.mkdir(parents=True)
        for name in ("x", "y"):
            (folder / name).symlink_to(elsewhere / str(level + 1))
    write(elsewhere, {"25/2.png": png()})
    (data / "links").symlink_to(elsewhere / "0")
    (data / "outer").symlink_to(tmp_path / "elsewhere" / "25")
    rows = list(open_slices(data))
    assert [Path(row.file).name for row in rows if isinstance(row, Frame)] == ["1.png", "2.png"]
    assert sum(isinstance(row, Unreadable) for row in rows) == 26


@pytest.mark.parametrize("name, reads", [("1", True), ("1234567890", False)])
def test_1200_nested_folders(tmp_path: Path, name: str, reads: bool) -> None:
    """What lies there is read; where the path is longer than a path can be, a row says so."""
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(1_200):
            os.mkdir(name, dir_fd=here)
            inner = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        with os.fdopen(os.open("1.png", os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
            file.write(png())
        (row,) = open_slices(tmp_path / name)
        assert isinstance(row, Frame) if reads else "File name too long" in row.detail
        tree = subprocess.run([sys.executable, "-c", TREE, tmp_path], capture_output=True, text=True)
        assert tree.stdout.split() == (["1", "0"] if reads else ["0", "1"]), tree.stderr
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", tmp_path / name], check=True)  # deeper than Python can delete


TREE = """
import sys; from pathlib import Path; from lungct_hf.cohort.tree import Tree
tree = Tree.of_folder(Path(sys.argv[1])); print(sum(map(tree.is_slice, tree.files)), len(tree.bad))
"""


LEFT_BEHIND = (
    "@eaDir/1.png/SYNOFILE_THUMB_M.jpg",
    "#recycle/1.png",
    "$RECYCLE.BIN/1.png",
    "System Volume Information/1.png",
    "__MACOSX/._1.png",
    ".ipynb_checkpoints/1.png",
    "Thumbs.db",
    "ehthumbs.db",
    "Icon\r",
    "~$notes.docx",
)


def test_what_disks_leave_behind_is_passed_over_everywhere(tmp_path: Path) -> None:
    members = {name: png() for name in ("normal/1.png", *(f"normal/{name}" for name in LEFT_BEHIND), *LEFT_BEHIND)}
    folder = write(tmp_path / "data", members)
    (tmp_path / "data.zip").write_bytes(zipped(members))
    for source in (folder, tmp_path / "data.zip"):
        assert [Path(row.file).name for row in open_slices(source)] == ["1.png"]
    for tree in (Tree.of_folder(folder), Tree.of_zip(tmp_path / "data.zip")):
        assert list(tree.files) == ["normal/1.png"] and not tree.bad and not tree.side
    assert [unit.file for unit in list_units([str(folder)])[0]] == [f"{folder}/normal/1.png"]


def test_names_stay_on_their_line(tmp_path: Path) -> None:
    names = ("a\r1.png", "b\n2.png", "c\x1b[2J3.png", "d\u202e4.png")
    write(tmp_path, {name: png() for name in names})
    shown = [row.file for row in open_slices(tmp_path)]
    assert shown == [f"{tmp_path}/{name}" for name in ("a\\r1.png", "b\\n2.png", "c\\x1b[2J3.png", "d\\u202e4.png")]
    assert printable("肺 é\udcff.png") == "肺 é\ufffd.png" and printable("\ud800").isprintable()


def test_members_that_lead_out_or_link_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("../../evil.png", "/abs.png", "a/../../b.png", "C:\\windows\\x.png", "ok/1.png"):
            archive.writestr(name, png())
        archive.writestr(link, "/etc/passwd")
        archive.writestr("inner.zip", zipped({"1.png": png()}))
        archive.writestr("inner", zipped({"1.png": png()}))
    rows = list(open_slices(out.getvalue(), file="x.zip"))
    assert [row.file for row in rows if isinstance(row, Frame)] == ["x.zip/ok/1.png"]
    refused = [row for row in rows if isinstance(row, Unreadable)]
    assert len(refused) == 7 and {row.reason for row in refused} == {"unsupported"}
    assert list(tmp_path.iterdir()) == []


def test_encrypted_members_are_named() -> None:
    data = bytearray(zipped({"1.png": png(), "2.png": png()}))
    at = data.rfind(b"PK\x01\x02")  # the second member's entry in the directory
    data[at + 8] |= 1
    rows = list(open_slices(bytes(data)))
    assert isinstance(rows[1], Frame) or isinstance(rows[0], Frame)
    (bad,) = (row for row in rows if isinstance(row, Unreadable))
    assert bad.reason == "unsupported" and "encrypted" in bad.detail


def test_bombs_are_refused_by_their_directory() -> None:
    (row,) = open_slices(zipped({"bomb.png": b"\0" * 40 * 2**20}))
    assert isinstance(row, Unreadable) and row.reason == "too-large"


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_unpack_without_a_limit_are_refused(packing: int) -> None:
    (row,) = open_slices(zipped({"1.png": png()}, packing))
    assert isinstance(row, Unreadable) and row.reason == "unsupported" and "deflate" in row.detail


def test_a_directory_that_makes_no_sense_is_a_row() -> None:
    whole = bytearray(zipped({"1.png": png()}))
    at = whole.find(b"PK\x01\x02")
    whole[at + 6] = 99  # the version of the format that is needed
    (row,) = open_slices(bytes(whole))
    assert isinstance(row, Unreadable) and row.reason == "truncated"
    nameless = zipfile.ZipInfo("x")
    nameless.filename = ""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(nameless, png())
        archive.writestr("1.png", png())
    rows = {type(row) for row in open_slices(out.getvalue())}
    assert rows == {Frame, Unreadable}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_two_rows() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("1.png", png())
        archive.writestr("1.png", png())
    assert [row.file for row in open_slices(out.getvalue(), file="x.zip")] == ["x.zip/1.png", "x.zip/1.png#2"]


def test_overlapping_members_are_a_bomb() -> None:
    data = zipped({"1.png": png()}, zipfile.ZIP_STORED)
    start, end = data.find(b"PK\x01\x02"), data.find(b"PK\x05\x06")
    entry, tail = data[start:end], bytearray(data[end:])
    tail[8:12] = (50).to_bytes(2, "little") * 2
    tail[12:16] = (50 * len(entry)).to_bytes(4, "little")
    (row,) = open_slices(data[:start] + entry * 50 + bytes(tail))
    assert isinstance(row, Unreadable) and row.reason == "too-large"


def test_a_member_may_lie_about_its_size() -> None:
    data = bytearray(zipped({"1.png": png() * 3}))
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = (50).to_bytes(4, "little")
    (row,) = open_slices(bytes(data))
    assert isinstance(row, Unreadable)


def test_a_cut_or_damaged_archive_is_one_or_more_rows() -> None:
    whole = zipped(SCAN)
    for end in range(4, len(whole), len(whole) // 12):
        (row,) = open_slices(whole[:end])
        assert isinstance(row, Unreadable)
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 20):
            damaged[at] = rng.integers(256)
        assert list(open_slices(bytes(damaged)))


def test_a_folder_is_read_one_slice_at_a_time(tmp_path: Path) -> None:
    folder = write(tmp_path, {f"{number}.png": png() for number in range(5)})
    rows = open_slices(folder)
    next(rows)
    (folder / "4.png").unlink()
    assert [type(row) for row in rows] == [Frame, Frame, Frame, Unreadable]


def test_a_big_archive_needs_little_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stack = dicom_bytes(ct_dataset(rng.integers(-1000, 400, (40, 512, 512)).astype(np.int16)))
    path = tmp_path / "big.zip"
    path.write_bytes(zipped({f"{number}.dcm": stack for number in range(12)}, zipfile.ZIP_STORED))  # 250 MB
    code = (
        "import resource, sys\n"
        "from lungct_hf.slices.source import open_slices\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = sum(1 for row in open_slices(sys.argv[1]))\n"
        "print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    count, grown = map(int, done.stdout.split())
    assert count == 480 and grown < 180, done.stderr
