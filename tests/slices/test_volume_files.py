"""MetaImage, NRRD, NumPy files and deep pictures give the pixels that the same HU give as NIfTI or as an array."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import itertools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pytest
from made_slices import grey, only, phantom_hu, reason
from PIL import Image, PngImagePlugin

from lungct_hf.cohort.tree import Tree
from lungct_hf.pipeline.units import list_units
from lungct_hf.slices.source import Frame, Unreadable, open_slices

HU = phantom_hu(size=96).round().clip(-980).astype(np.int16)
VOLUME = np.stack([HU, HU - 20, HU - 40]).transpose(2, 1, 0)  # axes: left, back, head
STEPS, ORIGIN = np.array([0.7, 0.7, 2.5]), np.array([-30.0, -40.0, 100.0])


TYPES = {"i2": "MET_SHORT", "u2": "MET_USHORT", "f4": "MET_FLOAT", "u1": "MET_UCHAR"}
ELSEWHERE = ("/etc/passwd", "../secret.raw", "c:\\x.raw", "LIST", "%03d.raw 1 3 1", "none.raw", "")


def turned(order: tuple[int, ...], flips: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The volume with its axes in another order and direction: values, steps (columns, mm), origin."""
    values, steps, origin = VOLUME.transpose(order), np.diag(STEPS)[:, order], ORIGIN.copy()
    for axis, flip in enumerate(flips):
        if flip < 0:
            origin = origin + steps[:, axis] * (values.shape[axis] - 1)
            steps[:, axis] *= -1
            values = np.flip(values, axis)
    return values, steps, origin


def metaimage(values: np.ndarray, steps: np.ndarray, origin: np.ndarray, data: str = "LOCAL", **fields: Any) -> bytes:
    spacing = np.linalg.norm(steps, axis=0)
    said = {
        "ObjectType": "Image",
        "NDims": values.ndim,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": values.dtype.byteorder == ">",
        "CompressedData": False,
        "TransformMatrix": " ".join(f"{part:g}" for part in (steps / spacing).T.ravel()),
        "Offset": " ".join(map(str, origin)),
        "ElementSpacing": " ".join(map(str, spacing)),
        "DimSize": " ".join(map(str, values.shape)),
        "ElementType": {"i2": "MET_SHORT", "u2": "MET_USHORT", "f4": "MET_FLOAT", "u1": "MET_UCHAR"}[
            values.dtype.str[1:]
        ],
    }
    lines = "".join(f"{name} = {value}\n" for name, value in {**said, **fields, "ElementDataFile": data}.items())
    return lines.encode() + (values.tobytes("F") if data == "LOCAL" and "CompressedData" not in fields else b"")


def nrrd_bytes(values: np.ndarray, steps: np.ndarray, origin: np.ndarray, *, space: str, encoding: str) -> bytes:
    sign = np.array([-1, -1, 1] if space.startswith("r") else [1, 1, 1])
    out = io.BytesIO()
    header = {"space": space, "space directions": (steps * sign[:, None]).T, "space origin": origin * sign}
    nrrd.write(out, values, {**header, "encoding": encoding}, index_order="F")
    return out.getvalue()


def nifti(values: np.ndarray, steps: np.ndarray, origin: np.ndarray) -> bytes:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    image = nibabel.Nifti1Image(np.ascontiguousarray(values), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    image.header.set_qform(image.affine, 1)
    return image.to_bytes()


def seen(source: Any, **options: Any) -> list[tuple[float | None, bytes, tuple[str, ...]]]:
    rows = list(open_slices(source, **options))
    assert all(isinstance(row, Frame) for row in rows), rows
    return [(row.position, row.pixels.tobytes(), row.report.warnings) for row in rows if isinstance(row, Frame)]


WAYS = list(itertools.product(itertools.permutations(range(3)), [(1, 1, 1), (-1, 1, -1), (1, -1, 1), (-1, -1, -1)]))


@pytest.mark.parametrize("order, flips", WAYS)
def test_a_volume_is_the_same_in_every_format(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    values, steps, origin = turned(order, flips)
    expected = seen(nifti(values, steps, origin))
    assert len(expected) == 3 and expected[0][1] == grey(only(HU)).tobytes()
    assert seen(metaimage(values, steps, origin)) == expected
    assert seen(metaimage(values.astype(">i2"), steps, origin)) == expected
    for space in ("left-posterior-superior", "right-anterior-superior"):
        assert seen(nrrd_bytes(values, steps, origin, space=space, encoding="gzip")) == expected
    assert seen(nrrd_bytes(values, steps, origin, space="left-posterior-superior", encoding="raw")) == expected


def headers() -> dict[str, bytes]:
    """Headers with their voxels beside them, as LUNA16 and Slicer write them, and compressed."""
    values, steps, origin = turned((0, 1, 2), (1, 1, 1))
    raw = values.tobytes("F")
    text = f"NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: {' '.join(map(str, values.shape))}\n"
    text += f"space directions: {' '.join('(' + ','.join(map(str, step)) + ')' for step in steps.T)}\n"
    text += f"kinds: domain domain domain\nendian: little\nspace origin: ({','.join(map(str, origin))})\n"
    return {
        "a/1.3.6.mhd": metaimage(values, steps, origin, "1.3.6.raw"),
        "a/1.3.6.raw": raw,
        "b/ct.mhd": metaimage(values, steps, origin, "ct.zraw", CompressedData=True),
        "b/ct.zraw": zlib.compress(raw),
        "c/ct.nhdr": f"{text}encoding: bzip2\ndata file: ct.raw.bz2\n".encode(),
        "c/ct.raw.bz2": bz2.compress(raw),
        "d/ct.nhdr": f"{text}encoding: gzip\nbyte skip: -1\ndata file: ct.raw.gz\n".encode(),
        "d/ct.raw.gz": gzip.compress(raw),
    }


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_voxels_beside_their_header(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    for name, content in headers().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    if kind == "archive":
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
            for name, content in headers().items():
                archive.writestr(name, content)
        root = tmp_path / "data.zip"
    expected = seen(nifti(*turned((0, 1, 2), (1, 1, 1))))
    assert seen(root) == expected * 4
    tree = Tree.of_folder(root) if kind == "folder" else Tree.of_zip(root)
    assert [name.rpartition(".")[2] for name in tree.files] == ["mhd", "mhd", "nhdr", "nhdr"]
    assert all(map(tree.is_slice, tree.files)) and not tree.bad
    with tree.files["a/1.3.6.mhd"].beside("1.3.6.raw") as handle:  # type: ignore[attr-defined]
        assert handle.read() == headers()["a/1.3.6.raw"]
    assert len(list_units([str(root)])[0]) == 4


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.raw", "c:\\x.raw", "LIST", "%03d.raw 1 3 1", "none.raw", ""]
)
def test_a_header_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(VOLUME.tobytes())
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ct.mhd").write_bytes(metaimage(*turned((0, 1, 2), (1, 1, 1)), name))
    (row,) = open_slices(tmp_path / "a" / "ct.mhd")
    assert isinstance(row, Unreadable) and row.reason in ("unsupported", "not-found"), row
    assert not name or name not in row.detail
    assert reason((tmp_path / "a" / "ct.mhd").read_bytes()) == "unsupported", "sent without its voxels"


def wrong() -> Iterator[tuple[str, bytes, str]]:
    values, steps, origin = turned((0, 1, 2), (1, 1, 1))
    whole = metaimage(values, steps, origin)
    yield "cut", whole[:-5_000], "truncated"
    yield "no end", whole[:200], "truncated"
    yield "huge", metaimage(values, steps, origin, DimSize="99999 99999 99999"), "too-large"
    yield "negative", metaimage(values, steps, origin, DimSize="-1 96 3"), "too-large"
    yield "words", metaimage(values, steps, origin, DimSize="a b c"), "damaged"
    yield "flat", metaimage(values, steps, origin, TransformMatrix="1 0 0 1 0 0 0 0 1"), "damaged"
    yield "mask", metaimage(values.astype("u1"), steps, origin), "unsupported"
    yield "no sign", metaimage((values + 1024).astype("u2"), steps, origin), "unsupported"
    yield (
        "nrrd cut",
        nrrd_bytes(values, steps, origin, space="left-posterior-superior", encoding="gzip")[:-99],
        "truncated",
    )
    yield "nrrd header", b"NRRD0004\ntype: short\ndimension: three\n\n", "damaged"
    yield "nrrd text", b"NRRD0004\ntype: short\ndimension: 2\nsizes: 64 64\nencoding: ascii\n\n1 2", "unsupported"
    yield "npy cut", npy(HU)[:-10], "truncated"
    yield "npy header", npy(HU)[:20], "damaged"
    yield "npy of objects", npy(np.array([[None, 1]], object)), "unsupported"
    yield "npy no sign", npy(HU.astype("u2")), "unsupported"


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


@pytest.mark.parametrize("data, expected", [pytest.param(data, code, id=name) for name, data, code in wrong()])
def test_what_is_wrong_has_its_reason(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_values_without_a_sign_need_to_be_told(tmp_path: Path) -> None:
    values, steps, origin = turned((0, 1, 2), (1, 1, 1))
    shifted = (values + 1024).clip(0).astype("u2")
    floor = nifti(shifted.astype("i2") - 1024, steps, origin)
    assert seen(metaimage(shifted, steps, origin), hu_offset=1024) == seen(floor)
    (row,) = open_slices(metaimage(shifted, steps, origin))
    assert isinstance(row, Unreadable) and "--hu-offset 1024" in row.detail


@pytest.mark.parametrize("kind", ["i2", "f4", "f8", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_files(kind: str, order: str) -> None:
    stack = np.stack([HU, HU - 20, HU - 40])
    rows = list(open_slices(npy(np.asarray(stack, kind, order=order)), file="scan.npy"))
    expected = [grey(row).tobytes() for row in open_slices(stack)]
    assert [grey(row).tobytes() for row in rows] == expected
    assert [(row.frame, row.position) for row in rows] == [(0, 0.0), (1, 1.0), (2, 2.0)] and rows[0].series
    shifted = np.asarray(stack + 1024, "u2" if kind[-2] == "i" else kind, order=order)
    assert [grey(row).tobytes() for row in open_slices(npy(shifted), hu_offset=1024)] == expected
    alone = only(npy(np.asarray(HU, kind, order=order)))
    assert grey(alone).tobytes() == expected[0] and alone.series is None
    picture = np.asarray(alone.image)
    assert np.array_equal(np.asarray(only(npy(picture)).image), picture), "8 bits are a picture"


def encoded(values: np.ndarray, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, form, **options)
    return out.getvalue()


def test_deep_pictures_that_hold_hu(tmp_path: Path) -> None:
    expected, air = grey(only(HU)), (HU + 1024).clip(0).astype("u2")
    floor = grey(only(air.astype(np.int16) - 1024))
    for form, offset, values in (
        ("PNG", 1024, air),
        ("TIFF", 1024, air),
        ("PNG", 32768, (HU.astype("i4") + 32768).astype("u2")),
    ):
        data = encoded(values, form)
        assert np.array_equal(grey(only(data, hu_offset=offset)), floor if offset == 1024 else expected)
        told = only(data).report.facts["mode"]
        assert told.startswith("I") and not np.array_equal(grey(only(data)), expected), "a guess would be silent"
    text = PngImagePlugin.PngInfo()
    text.add_text("RescaleSlope", "1")
    text.add_text("RescaleIntercept", "-1024")
    assert np.array_equal(grey(only(encoded(air, "PNG", pnginfo=text))), floor)
    assert np.array_equal(grey(only(encoded(HU.astype("f4"), "TIFF"))), expected)
    assert np.array_equal(grey(only(encoded(HU.astype("i4"), "TIFF"))), expected)
    described = {270: "ImageJ=1.54f\nunit=mm\ncf=0\nc0=-32768.0\nc1=1.0\nvunit=Gray Value\n"}
    assert np.array_equal(
        grey(only(encoded((HU.astype("i4") + 32768).astype("u2"), "TIFF", tiffinfo=described))), expected
    )
    unlike = np.linspace(0, 1, 96 * 96, dtype="f4").reshape(96, 96)
    assert only(encoded(unlike, "TIFF")).report.codes, "grey levels are none"


def test_without_the_extra_a_row_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in ("nrrd", "nibabel") else find(name, *rest)
    )
    volume = turned((0, 1, 2), (1, 1, 1))
    for data in (metaimage(*volume), nrrd_bytes(*volume, space="left-posterior-superior", encoding="raw")):
        (row,) = open_slices(data)
        assert isinstance(row, Unreadable) and row.reason == "unsupported"
        assert "pip install 'lungct-hf[volumes]'" in row.detail


def test_damaged_headers_are_rows_and_end() -> None:
    """Bytes changed at random in the headers, where sizes, names and types stand."""
    volume, rng = turned((0, 1, 2), (1, 1, 1)), np.random.default_rng(0)
    for data in (
        metaimage(*volume),
        nrrd_bytes(*volume, space="left-posterior-superior", encoding="raw"),
        npy(np.stack([HU] * 2)),
    ):
        for _ in range(60):
            changed = bytearray(data)
            for place in rng.integers(0, 300, 3):
                changed[place] = rng.integers(0, 256)
            for row in open_slices(bytes(changed)):
                assert isinstance(row, Frame) or "\n" not in row.detail
