"""The phantom's patients: sizes, positions and branching patterns, drawn from seeds; and the shapes they are made of.

Coordinates are millimetres: x to the patient's left (the right of the picture), y to the back (down), h towards the
head, with the carina at h = 0. The slices lie below it, where heart and hila are. Shapes are three-dimensional, so
neighbouring slices of one patient resemble each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..known_sets import phantoms

Point = tuple[float, float, float]

_ANATOMY, _VESSELS, _NODULE = 0, 1, 2  # streams of random numbers; 3 and 4 (texture, noise) belong to phantom.py
# The kinds of nodules, each with its own stream: what a class shows is said in known_sets.toml.
_SMOOTH, _SPICULATED = "smooth", "spiculated"
_KIND_STREAMS = {_SMOOTH: 1, _SPICULATED: 2}
_RIB_SPACING = 22.0  # mm, from rib to rib along the body


@dataclass(frozen=True)
class Rod:
    """A rod with round ends from `start` to `end`, of radius `r0` at the start and `r1` at the end."""

    start: Point
    end: Point
    r0: float
    r1: float

    def spans(self, h: float, margin: float) -> bool:
        """Whether the plane at height `h` comes within `margin` of the rod."""
        reach = max(self.r0, self.r1) + margin
        return min(self.start[2], self.end[2]) - reach <= h <= max(self.start[2], self.end[2]) + reach

    def distance(self, x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
        """Signed distance (mm, negative inside) of the points (x, y, h) to the rod's surface."""
        (x0, y0, h0), (x1, y1, h1) = self.start, self.end
        dx, dy, dh = x1 - x0, y1 - y0, h1 - h0
        along = ((x - x0) * dx + (y - y0) * dy + (h - h0) * dh) / max(dx * dx + dy * dy + dh * dh, 1e-9)
        along = np.clip(along, 0.0, 1.0)
        across = (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2 + (h - h0 - along * dh) ** 2
        return np.sqrt(across) - (self.r0 + along * (self.r1 - self.r0))


@dataclass(frozen=True)
class Patient:
    """One patient's anatomy. It is drawn without the label, so it carries no information about the class."""

    level: float  # height of the slice at z = 0, relative to the carina
    half_width: float  # of the chest cavity
    half_depth: float
    squareness: float  # exponent of the cavity's superellipse
    wall: float  # chest wall without fat
    fat: float
    shift: tuple[float, float]
    tilt: float  # radians
    table_gap: float
    heart: float  # scale
    heart_turn: float
    vessel_hu: float  # blood, without contrast medium
    lung_hu: float
    lung_gradient: float  # HU from front to back
    texture: float
    noise: float  # HU, one standard deviation
    bone_hu: float
    rib_phase: float
    rib_drop: float  # how far a rib descends from back to front
    tissue: tuple[Rod, ...]  # great vessels, oesophagus
    airways: tuple[Rod, ...]
    lung_vessels: tuple[Rod, ...]

    @property
    def spine_y(self) -> float:
        """Centre of the vertebral bodies."""
        return self.half_depth - 21.0

    def cavity(self, x: np.ndarray, y: np.ndarray, out: float = 0.0) -> np.ndarray:
        """Signed radial distance (mm) to the rib cage's inner surface, or to a layer `out` mm outside it."""
        half_width, half_depth, power = self.half_width + out, self.half_depth + out, self.squareness
        scaled = (np.abs(x / half_width) ** power + np.abs(y / half_depth) ** power) ** (1.0 / power)
        return np.hypot(x, y) * (1.0 - 1.0 / np.maximum(scaled, 1e-3))

    def mediastinum(self, x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
        """Signed distance to everything between the lungs, with its fat."""
        spine = np.hypot(x, y - self.spine_y) - 21.0
        lamina = np.hypot(x, y - self.half_depth - 6.0) - 25.0
        column = Rod((0.0, -self.half_depth, h), (0.0, self.spine_y, h), 4.0, 16.0).distance(x, y, h)
        together = smooth_min(smooth_min(spine, lamina, 8.0), column, 8.0)
        together = smooth_min(together, self.heart_distance(x, y, h) - 3.0, 8.0)
        for rod in self.tissue:
            if rod.spans(h, 10.0):
                together = smooth_min(together, rod.distance(x, y, h) - 2.0, 6.0)
        return together

    def lung(self, x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
        """Signed distance to the pleura, negative in the lungs: the cavity without the mediastinum."""
        return -smooth_min(-self.cavity(x, y), self.mediastinum(x, y, h), 5.0)

    def ribs(self, h: float) -> list[Rod]:
        """Where the plane cuts the ribs: each descends from back to front, so a higher slice cuts it further back."""

        def rim(side: float, share: float) -> Point:
            angle = math.pi * (0.41 - 0.80 * share)  # from beside the spine, round the flank, to the cartilage
            cos, sin, power = math.cos(angle), math.sin(angle), 2.0 / self.squareness
            out_x, out_y = (self.half_width + 6.0) * abs(cos) ** power, (self.half_depth + 6.0) * abs(sin) ** power
            return side * out_x, math.copysign(out_y, sin), h

        rods = []
        for side, offset in ((-1.0, 0.0), (1.0, 3.0)):
            drop = (self.rib_phase + offset - h) % _RIB_SPACING  # from the lowest rib's head above this slice
            while drop < 0.97 * self.rib_drop:
                back, middle, front = (rim(side, drop / self.rib_drop + step) for step in (-0.045, 0.0, 0.045))
                rods += [Rod(back, middle, 4.0, 5.0), Rod(middle, front, 5.0, 4.0)]
                drop += _RIB_SPACING
        return rods

    def heart_distance(self, x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
        """Signed distance (about, mm) to the heart, an ellipsoid whose apex points to the left and the front."""
        rise = 1.0 - ((h + 68.0) / (62.0 * self.heart)) ** 2
        if rise <= 0.02:
            return np.full(np.broadcast(x, y).shape, 1e3, dtype=np.float32)
        scale = self.heart * math.sqrt(rise) * self.half_width / 122.0
        cos, sin = math.cos(self.heart_turn), math.sin(self.heart_turn)
        dx, dy = x - 17.0 * scale, y + 0.30 * self.half_depth - 8.0
        along, across = (dx * cos - dy * sin) / (57.0 * scale), (dx * sin + dy * cos) / (42.0 * scale)
        scaled = np.hypot(along, across)
        return np.hypot(dx, dy) * (1.0 - 1.0 / np.maximum(scaled, 1e-3))


@dataclass(frozen=True)
class Nodule:
    """A nodule around (x, y) at z = 0: a sphere, whose outline may be lobulated, with spicules."""

    x: float
    y: float
    radius: float
    hu: float
    core: float  # radius of the calcified core as a share of the nodule's; 0 for none
    core_hu: float
    lobes: tuple[tuple[int, float, float, float], ...]  # frequency, amplitude, phase, twist per mm
    spicules: tuple[Rod, ...]  # heights are z

    def radius_at(self, angle: np.ndarray, z: float) -> np.ndarray:
        """The outline's radius in mm in the plane `z` mm from the centre."""
        wave = np.ones_like(angle)
        for frequency, amplitude, phase, twist in self.lobes:
            wave += amplitude * np.sin(frequency * angle + phase + twist * z)
        return math.sqrt(max(self.radius**2 - z**2, 0.0)) * wave


def smooth_min(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """The smaller of two distances, rounded over `blend` mm (Quilez's polynomial smooth minimum)."""
    overlap = np.maximum(blend - np.abs(a - b), 0.0) / blend
    return np.minimum(a, b) - overlap * overlap * (blend / 4.0)


def random(patient_seed: int, *stream: int) -> np.random.Generator:
    """The generator of one stream of one patient; the same numbers on every platform."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((patient_seed, *stream))))


@lru_cache(maxsize=16)
def draw_patient(patient_seed: int) -> Patient:
    """Draw a patient's anatomy; it depends on nothing but the seed."""
    rng = random(patient_seed, _ANATOMY)
    u = rng.uniform
    size = u(0.95, 1.03)
    half_width, half_depth = 122.0 * size * u(0.97, 1.03), 86.0 * size * u(0.96, 1.08)
    level = u(-45.0, -20.0)
    back = half_depth - 21.0
    return Patient(
        level=level,
        half_width=half_width,
        half_depth=half_depth,
        squareness=u(2.15, 2.6),
        wall=u(13.0, 19.0),
        fat=u(6.0, 14.0),
        shift=(u(-4.0, 4.0), u(-4.0, 4.0)),
        tilt=u(-0.03, 0.03),
        table_gap=u(0.0, 14.0),
        heart=u(0.88, 1.12),
        heart_turn=u(0.35, 0.85),
        vessel_hu=u(35.0, 55.0),
        lung_hu=u(-870.0, -840.0),
        lung_gradient=u(20.0, 40.0),
        texture=u(8.0, 20.0),
        noise=u(8.0, 16.0),
        bone_hu=u(480.0, 750.0),
        rib_phase=u(0.0, 22.0),
        rib_drop=u(95.0, 125.0),
        tissue=_great_vessels(half_width / 122.0, back, u(0.9, 1.15)),
        airways=_airways(half_width / 122.0, back),
        lung_vessels=_lung_vessels(random(patient_seed, _VESSELS), half_width, half_depth, level),
    )


def _great_vessels(s: float, back: float, width: float) -> tuple[Rod, ...]:
    """Aorta, superior vena cava, pulmonary arteries; oesophagus last. `s` scales sideways, `width` radii."""
    return (
        Rod((-4 * s, -20, -55), (-12 * s, -22, 20), 15 * width, 14.5 * width),  # ascending aorta
        Rod((24 * s, back - 18, 20), (23 * s, back - 14, -170), 12 * width, 11 * width),  # descending aorta
        Rod((-27 * s, -16, 60), (-27 * s, -12, -50), 8 * width, 9.5 * width),  # superior vena cava
        Rod((14 * s, -26, -42), (20 * s, -10, -13), 14 * width, 13 * width),  # pulmonary trunk
        Rod((18 * s, -10, -16), (-36 * s, 6, -19), 10 * width, 9 * width),  # right pulmonary artery
        Rod((20 * s, -10, -13), (36 * s, 10, -10), 11 * width, 9 * width),  # left pulmonary artery
        Rod((4, back - 27, 90), (7, back - 26, -170), 6, 6.5),  # oesophagus
    )


def _airways(scale: float, back: float) -> tuple[Rod, ...]:
    """Main bronchi and the first branches."""
    y = min(6.0, back - 44.0)
    right, left = (-30.0 * scale, y + 6.0, -20.0), (34.0 * scale, y + 8.0, -27.0)
    return (
        Rod((0.0, y, 2.0), right, 7.5, 6.5),
        Rod((0.0, y, 2.0), left, 7.0, 6.0),
        Rod(right, (-42.0 * scale, y + 18.0, -60.0), 5.5, 3.5),
        Rod(right, (-54.0 * scale, y - 4.0, -6.0), 4.5, 2.5),
        Rod(left, (48.0 * scale, y + 22.0, -66.0), 5.0, 3.0),
        Rod(left, (60.0 * scale, y - 2.0, -14.0), 4.5, 2.5),
    )


def _lung_vessels(rng: np.random.Generator, half_width: float, half_depth: float, level: float) -> tuple[Rod, ...]:
    """Two trees that branch from the hila into the lungs; only the branches near the patient's slices are kept."""
    kept = []
    for side in (-1.0, 1.0):
        hilum = (side * 36.0, 8.0, -14.0)
        roots = ((-0.9, 0.9), (-0.7, -0.5), (0.2, 1.2), (0.1, 0.0), (0.9, 0.5), (0.8, -0.9))
        branches: list[tuple[Point, Point, float, float]] = [(hilum, (side, y, h), 26.0, 3.7) for y, h in roots]
        # Two more at the slices' own level keep low slices from being bare.
        branches += [((side * 46.0, y, level), (side, y / 20.0, 0.1), 24.0, 2.6) for y in (-18.0, 14.0)]
        while branches:
            start, heading, length, radius = branches.pop()
            turn = rng.uniform(-0.35, 0.35, size=3).tolist()
            along = _unit((heading[0] + turn[0], heading[1] + turn[1], heading[2] + turn[2]))
            length *= 1.0 + 0.7 * turn[0]
            end = (start[0] + length * along[0], start[1] + length * along[1], start[2] + length * along[2])
            rod = Rod(start, end, radius, radius * 0.85)
            if rod.spans(level, 12.0):
                kept.append(rod)
            inside = (end[0] / half_width) ** 2 + (end[1] / half_depth) ** 2 < 0.98 and end[0] * side > 12.0
            if inside and radius > 0.55 and abs(end[2] - level) < 12.0 + 3.0 * length:  # its branches may come near
                a, t = along, (turn[0], turn[1], turn[2] + 1e-3)
                away = _unit((a[1] * t[2] - a[2] * t[1], a[2] * t[0] - a[0] * t[2], a[0] * t[1] - a[1] * t[0]))
                for bend, share in ((0.55, 0.84), (-0.55, 0.70)):
                    towards = (a[0] + bend * away[0], a[1] + bend * away[1], a[2] + bend * away[2])
                    branches.append((end, towards, 0.86 * length, radius * share))
    return tuple(kept)


def _unit(v: Point) -> Point:
    length = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
    return v[0] / length, v[1] / length, v[2] / length


@lru_cache(maxsize=16)
def draw_nodule(label: str, patient_seed: int) -> Nodule | None:
    """Draw the nodule that a patient of class `label` has, at a place in the lungs where it fits, or None."""
    kind = phantoms().nodules[label]
    if kind not in _KIND_STREAMS:
        return None
    rng = random(patient_seed, _NODULE, _KIND_STREAMS[kind])
    spiculated = kind == _SPICULATED
    radius = rng.uniform(16.0, 24.0) if spiculated else rng.uniform(7.5, 11.0)
    x, y = _place(rng, draw_patient(patient_seed), radius, pleural=spiculated and rng.random() < 0.4)
    hu = rng.uniform(20.0, 60.0)
    if not spiculated:
        core = rng.uniform(0.5, 1.0) if rng.random() < 0.65 else 0.0
        return Nodule(x, y, radius, hu, core, rng.uniform(250.0, 600.0), (), ())
    lobes = tuple(
        (k, rng.uniform(0.09, 0.22) / math.sqrt(k), rng.uniform(0.0, 2 * math.pi), rng.uniform(-0.05, 0.05))
        for k in (2, 3, 5, 7)
    )
    spicules = []
    for angle in np.linspace(0.0, 2 * math.pi, int(rng.integers(12, 22)), endpoint=False):
        heading = angle + rng.uniform(-0.2, 0.2)
        inner, outer = 0.6 * radius, radius + rng.uniform(4.0, 14.0)
        rise = rng.uniform(-0.25, 0.25)
        ends = [(x + r * math.cos(heading), y + r * math.sin(heading), r * rise) for r in (inner, outer)]
        spicules.append(Rod(ends[0], ends[1], rng.uniform(1.6, 2.8), 0.5))
    return Nodule(x, y, radius, hu, 0.0, 0.0, lobes, tuple(spicules))


def _place(rng: np.random.Generator, patient: Patient, radius: float, pleural: bool) -> tuple[float, float]:
    """A point in the lungs with room for the radius, or at the pleura so that the nodule touches it."""
    axis = np.arange(-140.0, 141.0, 4.0, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    depth = -patient.lung(x, y, patient.level)
    fits = (depth > 0.45 * radius) & (depth < 0.75 * radius) if pleural else depth > radius + 3.0
    if not fits.any():
        fits = depth == depth.max()
    where = np.flatnonzero(fits)
    chosen = where[rng.integers(len(where))]
    return float(x.flat[chosen]), float(y.flat[chosen])
