"""A thorax phantom in HU with classes of its own: data to train and to test on where there are no patients.

It is a drawing, not a simulation: it exercises the path from files to a published model and says nothing about people.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from ..errors import LungCTError, UsageError
from ..known_sets import phantoms
from .phantom_anatomy import Nodule, Patient, Rod, draw_nodule, draw_patient, random
from .window import LUNG_WINDOW

FIELD_OF_VIEW = 300.0  # mm: the body just fills it
GENERATOR_VERSION = 1  # raise it whenever the same arguments draw other pixels
SLICE_REACH = 3.5  # mm: a patient's slices lie within this of the nodule's centre, so that each shows it

_TEXTURE, _NOISE = 3, 4  # streams of random numbers; 0 to 2 belong to phantom_anatomy.py
_AIR, _FAT, _MUSCLE, _MARROW = -1000.0, -95.0, 52.0, 170.0
_OUR_FILES = re.compile(
    rf"phantoms\.json|metadata\.csv|({'|'.join(map(re.escape, phantoms().classes))})/P\d{{4,}}_\d\d\.png"
)


class _Canvas:
    """A slice being painted: HU on a grid of millimetres, in the patient's own axes."""

    def __init__(self, patient: Patient, size: int, h: float) -> None:
        self.pixel, self.h = FIELD_OF_VIEW / size, h
        grid = (np.arange(size, dtype=np.float32) + 0.5) * self.pixel - FIELD_OF_VIEW / 2
        x, y = grid[None, :] - patient.shift[0], grid[:, None] - patient.shift[1]
        cos, sin = self._turn = math.cos(patient.tilt), math.sin(patient.tilt)
        self.x, self.y = x * cos + y * sin, y * cos - x * sin
        self.hu = np.full((size, size), _AIR, dtype=np.float32)
        self._origin = (FIELD_OF_VIEW / 2 + patient.shift[0], FIELD_OF_VIEW / 2 + patient.shift[1])

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """How much of each pixel (0..1) lies inside a shape, from the signed distance to its edge."""
        return np.clip(0.5 - distance / self.pixel, 0.0, 1.0)

    def paint(self, distance: np.ndarray, hu: float | np.ndarray) -> None:
        """Fill a shape given by its signed distance on the whole grid."""
        self.hu += self.cover(distance) * (hu - self.hu)

    def window(self, points: list[tuple[float, float]], reach: float) -> tuple[slice, slice]:
        """The rows and columns within `reach` mm of the points' bounding box."""
        cos, sin = self._turn
        columns = [x * cos - y * sin + self._origin[0] for x, y in points]
        rows = [x * sin + y * cos + self._origin[1] for x, y in points]
        low = [max(int((min(mm) - reach) / self.pixel - 1.5), 0) for mm in (rows, columns)]
        high = [max(int((max(mm) + reach) / self.pixel + 2.5), 0) for mm in (rows, columns)]
        return slice(low[0], high[0]), slice(low[1], high[1])

    def paint_rod(self, rod: Rod, hu: float, grow: float = 0.0, within: np.ndarray | None = None) -> None:
        """Fill a rod's section with this plane, made `grow` mm thicker, only where `within` (0..1) allows."""
        if rod.spans(self.h, grow + self.pixel):
            box = self.window([rod.start[:2], rod.end[:2]], max(rod.r0, rod.r1) + grow)
            part = self.cover(rod.distance(self.x[box], self.y[box], self.h) - grow)
            part = part if within is None else part * within[box]
            self.hu[box] += part * (hu - self.hu[box])


def draw_phantom(label: str, patient_seed: int, z: float, *, size: int = 256) -> np.ndarray:
    """Draw one axial slice of a phantom patient: int16 HU of shape (size, size).

    The anatomy depends on `patient_seed` alone. `label` is a class of `known_sets.phantoms()`, whose `nodules` say
    what it adds: "none", a "smooth" round nodule of 15 to 22 mm, often calcified, or a "spiculated" and lobulated mass
    of 32 to 48 mm; it changes no pixel elsewhere. `z` is the height in mm over the nodule's centre (without one: over
    the patient's middle slice).
    """
    classes = phantoms().classes
    if label not in classes:
        raise UsageError(f"There is no phantom of class {label!r}. Fix: use one of {', '.join(classes)}.")
    if patient_seed < 0 or size < 32:
        raise UsageError(f"{patient_seed=}, {size=} does not work. Fix: a seed that is not negative, a size from 32.")
    patient = draw_patient(patient_seed)
    canvas = _Canvas(patient, size, patient.level + z)
    coarse, fine = (_smooth_noise(random(patient_seed, _TEXTURE, cells), size, cells, z) for cells in (12, 44))
    lung = canvas.cover(patient.lung(canvas.x, canvas.y, canvas.h))
    _paint_table(canvas, patient)
    _paint_chest_wall(canvas, patient, coarse)
    _paint_mediastinum(canvas, patient)
    _paint_lungs(canvas, patient, lung, patient.texture * (coarse + 0.8 * fine))
    _paint_bones(canvas, patient, fine)
    if nodule := draw_nodule(label, patient_seed):
        _paint_nodule(canvas, nodule, z, lung)
    rng = random(patient_seed, _NOISE, round(z * 1000) + 1_000_000)
    white = rng.standard_normal((size + 1, size + 1), dtype=np.float32)
    # The mean of two by two neighbours has half the deviation: correlated noise, as from a reconstruction kernel.
    noise = 0.5 * (white[1:, 1:] + white[:-1, 1:] + white[1:, :-1] + white[:-1, :-1])
    return np.clip(np.rint(canvas.hu + patient.noise * noise), -1024, 3071).astype(np.int16)


def write_phantom_cohort(
    folder: str | Path,
    *,
    patients_per_class: int = 150,
    slices_per_patient: int = 3,
    size: int = 192,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write a cohort of 8-bit PNGs, `CLASS/PATIENT_SLICE.png`, with a metadata.csv of file_name, label, patient_id.

    A cohort with the same parameters that is there already and undamaged is kept; another one is replaced. The files
    appear all at once, so an interrupted call leaves what was there before.

    Raises:
        LungCTError: the folder holds files that this function did not write, or it cannot be written.
        UsageError: a number is out of range.
    """
    parameters = dict(
        patients_per_class=patients_per_class, slices_per_patient=slices_per_patient, size=size, seed=seed
    )
    if patients_per_class < 1 or not 1 <= slices_per_patient <= 99 or size < 32 or seed < 0:
        raise UsageError(f"A cohort of {parameters} cannot be drawn. Fix: 1 patient, 1 to 99 slices, size 32 or more.")
    folder = Path(folder)
    partial = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    try:
        if _is_intact(folder, parameters):
            return folder
        _refuse_foreign_files(folder)
        shutil.rmtree(partial, ignore_errors=True)
        _write_files(partial, parameters, progress)
        _put_in_place(partial, folder, parameters)
    except OSError as error:
        raise LungCTError(f"No phantoms can be written to {folder}: {error}. Fix: name another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _write_files(folder: Path, parameters: dict[str, int], progress: bool) -> None:
    per_class, count, size, seed = parameters.values()
    classes = phantoms().classes
    # Patients are numbered in a random order, so that a number says nothing about the class.
    order = random(seed, 0).random(per_class * len(classes)).argsort(kind="stable")
    for label in classes:
        (folder / label).mkdir(parents=True)
    rows, console = ["file_name,label,patient_id"], Console(stderr=True)
    for number, rank in enumerate(track(order, "Drawing phantoms", disable=not progress, console=console)):
        label, patient = classes[rank % len(classes)], f"P{number:04d}"
        patient_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        for index in range(count):
            z = SLICE_REACH * (2.0 * (index + 0.5) / count - 1.0)
            name = f"{label}/{patient}_{index:02d}.png"
            hu = draw_phantom(label, patient_seed, z, size=size)
            Image.fromarray(LUNG_WINDOW.apply(hu)).save(folder / name)
            rows.append(f"{name},{label},{patient}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "phantoms.json").write_text(json.dumps(_record(folder, parameters), indent=2) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[str]:
    """Relative names of the folder's files, sorted, without hidden ones (.DS_Store)."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")


def _record(folder: Path, parameters: dict[str, int]) -> dict[str, object]:
    """What phantoms.json must say of the folder as it is now: version, parameters, a hash over all names and bytes."""
    digest = hashlib.sha256()
    for name in _files(folder):
        if name != "phantoms.json":
            digest.update(f"{name}\0{(folder / name).stat().st_size}\0".encode() + (folder / name).read_bytes())
    return {"generator_version": GENERATOR_VERSION, "parameters": parameters, "sha256": digest.hexdigest()}


def _is_intact(folder: Path, parameters: dict[str, int]) -> bool:
    """Whether the folder holds the cohort of these parameters, byte for byte as it was written."""
    try:
        return json.loads((folder / "phantoms.json").read_text(encoding="utf-8")) == _record(folder, parameters)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _refuse_foreign_files(folder: Path) -> None:
    foreign = [name for name in _files(folder) if not _OUR_FILES.fullmatch(name)] if folder.is_dir() else []
    if foreign or (folder.exists() and not folder.is_dir()):
        found = f"holds other data ({foreign[0]})" if foreign else "is a file"
        raise LungCTError(f"No phantoms can be written to {folder}: it {found}. Fix: name another folder.")


def _put_in_place(partial: Path, folder: Path, parameters: dict[str, int]) -> None:
    replaced = partial.with_suffix(".old.tmp")
    if folder.exists():
        os.rename(folder, replaced)
    try:
        os.rename(partial, folder)
    except OSError:
        if not _is_intact(folder, parameters):  # else another process has put the same cohort there first
            raise
    shutil.rmtree(replaced, ignore_errors=True)


def _smooth_noise(rng: np.random.Generator, size: int, cells: int, z: float) -> np.ndarray:
    """Smooth random field with about `cells` bumps across, standard deviation about 0.6, that drifts along z."""
    layers = rng.standard_normal((5, cells + 1, cells + 1), dtype=np.float32)
    depth = min(max(2.0 + z / 12.0, 0.0), 3.999)
    low = int(depth)
    layer = layers[low] + (depth - low) * (layers[low + 1] - layers[low])
    position = (np.arange(size, dtype=np.float32) + 0.5) * (cells / size)
    left = position.astype(int)
    share = position - left
    share = share * share * (3.0 - 2.0 * share)
    columns = layer[:, left] + share * (layer[:, left + 1] - layer[:, left])  # no matrix product: BLAS may round anew
    return columns[left] + share[:, None] * (columns[left + 1] - columns[left])


def _paint_table(canvas: _Canvas, patient: Patient) -> None:
    back = patient.half_depth + patient.wall + patient.fat + 6.0
    surface = back - 4.0 + patient.table_gap * 0.3 - canvas.x**2 / 1400.0 - canvas.y
    for inset, hu in ((0.0, -180.0), (2.4, -890.0), (20.0, -220.0), (22.0, _AIR)):
        canvas.paint(surface + inset, hu)


def _paint_chest_wall(canvas: _Canvas, patient: Patient, texture: np.ndarray) -> None:
    """Skin, fat, muscle."""
    x, y, wall = canvas.x, canvas.y - 6.0, patient.wall
    skin = patient.cavity(x, y, wall + patient.fat)
    skin += 5.0 * np.exp(-((x / 14.0) ** 2)) * (y > 0)  # the furrow along the spine
    canvas.paint(skin, 20.0)
    canvas.paint(skin + 2.0, _FAT + 6.0 * texture)
    canvas.paint(patient.cavity(x, y, wall) + 1.5 * texture, _MUSCLE + 8.0 * texture)
    seam = np.abs(patient.cavity(x, y, 0.62 * wall) + 2.0 * texture) - 0.9 + 1.2 * (texture < 0.1)
    canvas.paint(seam, _FAT)  # between two layers of muscle


def _paint_mediastinum(canvas: _Canvas, patient: Patient) -> None:
    x, y, h = canvas.x, canvas.y, canvas.h
    canvas.paint(np.maximum(patient.cavity(x, y), patient.mediastinum(x, y, h)), _FAT + 10.0)
    canvas.paint(patient.heart_distance(x, y, h), patient.vessel_hu)
    for rod in patient.tissue[:-1]:
        canvas.paint_rod(rod, patient.vessel_hu)
    canvas.paint_rod(patient.tissue[-1], 35.0)


def _paint_lungs(canvas: _Canvas, patient: Patient, lung: np.ndarray, texture: np.ndarray) -> None:
    air = patient.lung_hu + patient.lung_gradient * canvas.y / (2.0 * patient.half_depth) + texture
    canvas.hu += lung * (air - canvas.hu)
    for rod in patient.lung_vessels:
        # Thin vessels fill only part of a slice's thickness, so they are dimmer.
        hu = patient.lung_hu + (patient.vessel_hu - patient.lung_hu) * min(1.0, rod.r1 / 2.8)
        canvas.paint_rod(rod, hu, within=lung)
    for grow, hu in ((1.3, 15.0), (0.0, -985.0)):  # walls, then the air in them
        for rod in patient.airways:
            canvas.paint_rod(rod, hu, grow=grow)


def _paint_bones(canvas: _Canvas, patient: Patient, texture: np.ndarray) -> None:
    h, spine, bone = canvas.h, patient.spine_y, patient.bone_hu

    def flat(x0: float, y0: float, x1: float, y1: float, radius: float) -> Rod:
        return Rod((x0, y0, h), (x1, y1, h), radius, radius)

    lamina = spine + 27.0
    posterior = [flat(0.0, lamina + 6.0, 0.0, lamina + 20.0, 3.0)]  # spinous process
    for side in (-1.0, 1.0):
        posterior += [
            flat(side * 12.0, spine + 10.0, side * 12.0, lamina - 4.0, 3.4),  # pedicle
            flat(side * 12.0, lamina - 4.0, 0.0, lamina + 4.0, 3.4),  # lamina
            flat(side * 13.0, lamina - 8.0, side * 31.0, lamina - 1.0, 4.0),  # transverse process
        ]
    skeleton = [*posterior, *patient.ribs(h)]
    for grow, hu in ((0.0, bone), (-1.9, _MARROW)):
        for rod in skeleton:
            canvas.paint_rod(rod, hu, grow=grow)
    canvas.paint_rod(flat(0.0, lamina - 8.0, 0.0, lamina - 6.0, 8.0), 25.0)  # spinal canal
    front = -patient.half_depth - 5.0
    for grow, hu in ((0.0, bone * 0.8), (-1.8, _MARROW * 0.7)):
        canvas.paint_rod(flat(-13.0, front, 13.0, front, 5.0), hu, grow=grow)  # sternum
    box = canvas.window([(0.0, spine)], 22.0)
    x, y = canvas.x[box], canvas.y[box] - spine
    oval = np.hypot(x, y) * (1.0 - 1.0 / np.maximum(np.hypot(x / 17.5, y / 14.5), 1e-3))
    body = np.maximum(oval, 0.6 * (y - 11.0))  # flat towards the canal
    for inset, filling in ((0.0, bone + 0.0 * x), (1.8, _MARROW + 40.0 * texture[box])):
        canvas.hu[box] += canvas.cover(body + inset) * (filling - canvas.hu[box])


def _paint_nodule(canvas: _Canvas, nodule: Nodule, z: float, lung: np.ndarray) -> None:
    """Fill the nodule's section and its spicules, inside the lungs only."""
    box = canvas.window([(nodule.x, nodule.y)], 1.7 * nodule.radius + 16.0)
    x, y = canvas.x[box], canvas.y[box]
    dx, dy = x - nodule.x, y - nodule.y
    distance = np.hypot(dx, dy)
    edge = distance - nodule.radius_at(np.arctan2(dy, dx), z)
    for rod in nodule.spicules:
        edge = np.minimum(edge, rod.distance(x, y, z))
    hu = canvas.hu[box]
    hu += canvas.cover(edge) * lung[box] * (nodule.hu - hu)
    if nodule.core > 0.0:
        core = math.sqrt(max((nodule.core * nodule.radius) ** 2 - z**2, 0.0))
        hu += canvas.cover(distance - core) * lung[box] * (nodule.core_hu - hu)
