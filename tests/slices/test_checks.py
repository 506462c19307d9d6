"""The input checks: slices pass however they are framed, anything else is refused for the right reason."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from drawn_parts import draw_abdomen, draw_frontal, draw_head, draw_neck
from made_slices import only
from PIL import Image, ImageDraw

from lungct_hf.known_sets import phantoms
from lungct_hf.slices.checks import MIN_SIDE, check_picture
from lungct_hf.slices.limits import SCHEMA_1_LIMITS
from lungct_hf.slices.measure import flood, layout, otsu, small_grey
from lungct_hf.slices.outline import grain
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.report import CODES, WARNINGS, InputReport, ordered
from lungct_hf.slices.source import Frame, open_slices
from lungct_hf.slices.window import LUNG_WINDOW, Window

LABELS = phantoms().classes
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "input_checks.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("input_checks", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def phantom(seed: int, size: int, window: Window = LUNG_WINDOW) -> Image.Image:
    return Image.fromarray(window.apply(draw_phantom(LABELS[seed % len(LABELS)], seed, 0.0, size=size))).convert("RGB")


@pytest.mark.parametrize("size", [64, 96, 128, 192, 224, 256, 300, 512])
def test_phantoms_of_every_size_pass(size: int) -> None:
    for seed in range(6):
        assert check_picture(phantom(seed, size)).codes == set()


@pytest.mark.parametrize(
    "window", [(-600, 1500), (-600, 1200), (-500, 1400), (-600, 1600), (-550, 1000), (-300, 1400)]
)
def test_other_lung_windows_pass(window: tuple[float, float]) -> None:
    for seed in range(3):
        assert check_picture(phantom(seed, 256, Window(*window))).codes == set()


def test_framing_keeps_a_slice_a_slice(benchmark: ModuleType) -> None:
    for name, change in benchmark.KEPT.items():
        for seed in range(4):
            assert check_picture(change(phantom(seed, 256))).codes == set(), name


def test_everything_drawn_gets_its_code(benchmark: ModuleType) -> None:
    right: dict[str, list[bool]] = {}
    limits = benchmark.phantom_limits()
    for name, expected, picture in benchmark.drawn():
        reason = InputReport(ordered(check_picture(picture, limits=limits).codes)).reason
        right.setdefault(name, []).append(reason == expected)
    assert len(right) > 12
    for name, hits in right.items():
        assert np.mean(hits) >= 0.9, (name, np.mean(hits))


def test_small_pictures_are_refused_by_their_side() -> None:
    assert check_picture(phantom(0, MIN_SIDE)).codes == set()
    assert check_picture(phantom(0, MIN_SIDE).crop((0, 0, MIN_SIDE, MIN_SIDE - 1))).codes == {"too-small"}
    for size in ((1, 1), (1, 4000), (4000, 1)):
        assert only(Image.new("L", size)).report.reason == "too-small"


def test_any_picture_gets_a_report() -> None:
    rng = np.random.default_rng(0)
    for size in ((64, 64), (64, 1000), (1000, 64), (65, 129), (2000, 90), (2049, 2047)):
        for picture in (
            Image.new("RGB", size),
            Image.new("RGB", size, (255, 255, 255)),
            Image.fromarray(rng.integers(0, 2, size[::-1], dtype=np.uint8) * 255).convert("RGB"),
            Image.linear_gradient("L").resize(size).convert("RGB"),
        ):
            found = check_picture(picture)
            assert found.codes <= set(CODES) and found.codes
            assert found.warnings <= set(WARNINGS)


def test_hu_without_lungs_are_told_from_hu_that_are_none() -> None:
    hu = draw_phantom("normal", 0, 0.0, size=256).astype(np.float32)
    belly = np.where((hu < -300) & (layout_inside(hu)), 40.0, hu)
    assert only(belly).report.reason == "no-lung"
    assert only(np.abs(np.random.default_rng(0).normal(300, 200, (256, 256)))).report.reason == "not-hu"


def layout_inside(hu: np.ndarray) -> np.ndarray:
    dark = hu < -300
    border = np.zeros_like(dark)
    border[0] = border[-1] = border[:, 0] = border[:, -1] = True
    small = np.zeros((254, 254), bool)
    small[:] = dark[:254, :254]
    outside = np.ones_like(dark)
    outside[:254, :254] = flood(border[:254, :254] & small, small)
    return ~outside


def test_flood_agrees_with_a_plain_search() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        passable, seeds = rng.random((30, 41)) < 0.6, rng.random((30, 41)) < 0.01
        expected = seeds & passable
        while True:
            grown = expected.copy()
            grown[1:] |= expected[:-1]
            grown[:-1] |= expected[1:]
            grown[:, 1:] |= expected[:, :-1]
            grown[:, :-1] |= expected[:, 1:]
            grown &= passable
            if (grown == expected).all():
                break
            expected = grown
        assert np.array_equal(flood(seeds, passable), expected)


def test_otsu_agrees_with_its_definition() -> None:
    rng = np.random.default_rng(1)
    grey = np.concatenate([rng.normal(60, 10, 500), rng.normal(200, 15, 700)]).clip(0, 255).astype(np.uint8)

    def between(cut: int) -> float:
        low, high = grey[grey <= cut], grey[grey > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    assert between(otsu(grey[None])) == pytest.approx(max(map(between, range(255))))


def test_edges_of_the_scanners_table_are_no_text() -> None:
    for seed in range(4):
        picture = phantom(seed, 512).convert("L")
        pen = ImageDraw.Draw(picture)
        # Two shells and a rail that cross: thin bright lines in all directions, as exports of whole scans show them.
        for rise in (0, 7, 14):
            pen.line(
                [(0, 425 + rise), (90, 470 + rise), (256, 490 + rise), (422, 470 + rise), (511, 425 + rise)], 255, 2
            )
        for x in range(4, 40, 6):
            pen.line([(x, 420), (x + 14, 455)], 255, 2)
        assert check_picture(picture, limits=SCHEMA_1_LIMITS).codes == {"burned-in-text"}  # as it used to be
        assert check_picture(picture).codes == set()
        pen.text((6, 6), "SURNAME FIRST 1961\nHOSPITAL 4711\nSE 3 IM 17", 255)
        assert check_picture(picture).codes == {"burned-in-text"}


def codes(hu: np.ndarray, window: Window = LUNG_WINDOW) -> set[str]:
    return check_picture(Image.fromarray(window.apply(hu))).codes


def test_heads_are_refused_in_windows_for_lung_and_for_brain() -> None:
    for seed in range(8):
        head = draw_head(seed)
        close = head[18:238, 36:220]
        for window in (LUNG_WINDOW, Window(-600, 1500), Window(40, 80), Window(50, 150), Window(40, 400)):
            for hu in (head, close):
                assert codes(hu, window) & {"no-lung", "not-ct", "not-axial"}, (seed, window, hu.shape)


def test_necks_and_bellies_with_air_are_without_lung() -> None:
    for seed in range(8):
        assert codes(draw_neck(seed)) == {"no-lung"}
        assert codes(draw_abdomen(seed)) == {"no-lung"}


def test_planes_through_thick_slices_are_told_by_their_grain() -> None:
    for seed in range(8):
        plane = Image.fromarray(LUNG_WINDOW.apply(draw_frontal(seed)))
        assert check_picture(plane).codes == {"not-axial"}
        assert check_picture(plane.resize((200, 200))).codes == {"not-axial"}
        # The same picture from slices as thin as its pixels: the grain says nothing there.
        thin = LUNG_WINDOW.apply(draw_frontal(seed, rows=256))
        assert grain(Image.fromarray(thin), thin) > 0.8


def test_axial_slices_with_pixels_made_square_keep_their_answer() -> None:
    for seed in range(3):
        hu = draw_phantom(LABELS[seed], seed, 0.0, size=512)
        squeezed = Image.fromarray(LUNG_WINDOW.apply(hu)).resize((512, 256), Image.Resampling.BOX)
        square = squeezed.resize((512, 512), Image.Resampling.BILINEAR)
        assert check_picture(square, is_hu=True, is_ct=True).codes == set()


def test_even_bands_are_cut_off() -> None:
    picture = phantom(0, 128)
    framed = Image.new("RGB", (128, 254), (124, 116, 104))
    framed.paste(picture, (0, 60))
    assert small_grey(framed).shape == (128, 128)
    assert layout(small_grey(framed)).lung_fraction == pytest.approx(
        layout(small_grey(picture)).lung_fraction, abs=0.01
    )


def test_real_slices_pass(real_data: Path) -> None:
    rows = list(open_slices(real_data))
    refused = [row for row in rows if not isinstance(row, Frame) or row.report.codes]
    assert len(rows) > 500 and len(refused) < 0.01 * len(rows), refused[:5]


def test_wrong_inputs_are_caught() -> None:
    shared = os.environ.get("LUNGCT_SHARED_DATA")
    if not shared or not (Path(shared) / "wrong-inputs").is_dir():
        pytest.skip("wrong inputs are not here: set LUNGCT_SHARED_DATA to a folder that holds wrong-inputs")
    right = {
        "photos": {"colour-photograph", "not-ct"},
        "documents": {"burned-in-text", "unsupported"},
        "screenshots": {"burned-in-text"},
        "chest-xray": {"not-ct"},
        "brain-mri": {"not-ct", "no-lung"},
    }
    for kind, reasons in right.items():
        rows = list(open_slices(Path(shared) / "wrong-inputs" / kind))
        given = [row.report.reason if isinstance(row, Frame) else row.reason for row in rows]
        assert np.mean([reason in reasons for reason in given]) > 0.9, (kind, given)


@pytest.mark.slow
def test_the_benchmark_prints_and_writes_its_rates(tmp_path: Path) -> None:
    phantom(0, 128).save(tmp_path / "slice.png")
    for seed in range(1, 6):
        phantom(seed, 128).save(tmp_path / f"slice {seed}.png")
    folder = str(tmp_path)
    command = [sys.executable, str(SCRIPT), "--model", folder, "--slices", folder, "--json", f"{folder}/rates.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "should be" in done.stdout, done.stderr
    assert "refused on average" in done.stdout
    rates = json.loads((tmp_path / "rates.json").read_text())
    assert rates["milliseconds_median"] > 0 and len(rates["halves"]) == 40 and rates["input_limits"]["slices"] == 6
