"""How often each input check refuses what it should let through, and how often it catches what it should refuse.

    python benchmarks/input_checks.py                                   # phantoms and pictures drawn here
    python benchmarks/input_checks.py --slices DIR... --wrong DIR...    # the absolute rules alone, as for `audit`
    python benchmarks/input_checks.py --model DIR --slices DIR... --wrong DIR... --json rates.json

`--model` is a folder of slices that a model learns from: its limits are measured on them, and the other folders are
held to those. How a model refuses unseen slices of its own kind is judged on groups that its limits were not measured
on: groups linked as `lungct split` does are halved at random, in both directions.

`--slices` are folders of axial chest slices: each is counted as it is, and after changes that keep it a slice
(padding, a close crop, a smaller size) or spoil it (inverted; for DICOM: other windows). `--wrong` are folders of
anything else. A file whose extension or content cannot be read is counted under its reason too. What is drawn here is
held to the limits of a model of phantoms.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lungct_hf.cohort.link import link_slices
from lungct_hf.files import write_json
from lungct_hf.known_sets import phantoms
from lungct_hf.slices.checks import check_picture
from lungct_hf.slices.limits import InputLimits, fit_limits
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.report import InputReport, ordered
from lungct_hf.slices.source import Frame, open_slices
from lungct_hf.slices.window import LUNG_WINDOW, Window

LABELS = phantoms().classes
Change = Callable[[Image.Image], Image.Image]
WRONG_WINDOWS = {
    "bone": Window(400, 1800),
    "mediastinum": Window(40, 400),
    "soft tissue": Window(60, 500),
    "full range": Window(1024, 4096),
}


def padded(picture: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    side = max(picture.size) * 5 // 4
    square = Image.new("RGB", (side, side), fill)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def cropped(picture: Image.Image, share: float) -> Image.Image:
    across, down = round(picture.width * share), round(picture.height * share)
    return picture.crop((across, down, picture.width - across, picture.height - down))


KEPT: dict[str, Change] = {
    "black padding": lambda picture: padded(picture, (0, 0, 0)),
    "letterbox": lambda picture: padded(picture, (124, 116, 104)),
    "10 % cropped off each side": lambda picture: cropped(picture, 0.1),
    "20 % cropped off each side": lambda picture: cropped(picture, 0.2),
    "128 pixels": lambda picture: picture.resize((128, 128), Image.Resampling.BILINEAR),
    "mirrored": ImageOps.mirror,
}


def drawn() -> Iterator[tuple[str, str | None, Image.Image]]:
    """Group, the code that is right (None: let through) and a picture, all of them generated."""
    for seed in range(24):
        hu = draw_phantom(LABELS[seed % len(LABELS)], seed, 0.0, size=(96, 192, 256, 512)[seed % 4])
        lung = to_picture(hu, LUNG_WINDOW)
        yield "phantom", None, lung
        yield "phantom, inverted", "inverted", ImageOps.invert(lung)
        for name, window in WRONG_WINDOWS.items():
            yield f"phantom, {name} window", "wrong-window", to_picture(hu, window)
        rng = np.random.default_rng(seed)
        yield "noise", "not-ct", Image.fromarray(rng.integers(0, 256, (256, 256), dtype=np.uint8)).convert("RGB")
        yield "page of text", "burned-in-text", draw_page(rng)
        yield "phantom with burned-in text", "burned-in-text", write_on(lung.resize((512, 512)), rng)
        yield "colour picture", "colour-photograph", draw_colours(rng)
        yield "coronal slice", "not-axial", draw_coronal(rng)
        yield "X-ray", "not-ct", draw_xray(rng)
    for name, grey in (("black", 0), ("grey", 128), ("white", 255)):
        yield f"all {name}", "no-lung", Image.new("RGB", (256, 256), (grey, grey, grey))


def to_picture(hu: np.ndarray, window: Window) -> Image.Image:
    return Image.fromarray(window.apply(hu)).convert("RGB")


def words(rng: np.random.Generator, count: int) -> str:
    return " ".join("".join(rng.choice(list("aeiounrstlmd"), size=rng.integers(2, 9))) for _ in range(count))


def draw_page(rng: np.random.Generator) -> Image.Image:
    page = Image.new("RGB", (480, 640), (250, 250, 250))
    for row in range(24, 600, 18):
        ImageDraw.Draw(page).text((24, row), words(rng, 9)[:68], fill=(20, 20, 20))
    return page


def write_on(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    for row in (6, 20, 34):
        ImageDraw.Draw(picture).text((6, row), words(rng, 3).upper()[:20], fill=(255, 255, 255))
    return picture


def draw_colours(rng: np.random.Generator) -> Image.Image:
    """Smooth colours with grain, as in a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (400, 300), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 4, (300, 400, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def _ellipse(x: np.ndarray, y: np.ndarray, *shape: float) -> np.ndarray:
    cx, cy, rx, ry = shape
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1


def draw_coronal(rng: np.random.Generator) -> Image.Image:
    """A frontal plane in HU: neck, shoulders, two tall lungs on a diaphragm, belly to the lower edge."""
    y, x = np.mgrid[0:1:256j, 0:1:256j]
    wide = rng.uniform(0.36, 0.42)
    hu = np.full(x.shape, -1000.0)
    body = (np.abs(x - 0.5) < wide) & (y > 0.22) | _ellipse(x, y, 0.5, 0.24, wide, 0.12) | (np.abs(x - 0.5) < 0.14)
    hu[body] = -100
    hu[body & (np.abs(x - 0.5) < wide - 0.03)] = 50
    for side in (-1, 1):
        middle = 0.5 + side * 0.17
        hu[_ellipse(x, y, middle, 0.52, 0.13, 0.37) & ~_ellipse(x, y, middle, 0.92, 0.2, 0.16)] = -850
    hu += rng.normal(0, 25, x.shape)
    return to_picture(hu, LUNG_WINDOW)


def draw_xray(rng: np.random.Generator) -> Image.Image:
    """A frontal projection: the same anatomy, but everything fades into everything."""
    y, x = np.mgrid[0:1:256j, 0:1:256j]
    depth = 0.9 * np.exp(-(((x - 0.5) / 0.42) ** 4)) * (0.75 + 0.25 * y)
    for side in (-1, 1):
        across, down = (x - 0.5 - side * 0.2) / 0.15, (y - 0.48) / 0.34
        depth -= 0.5 * np.exp(-((across**2 + down**2) ** 1.5))
    depth += 0.35 * np.exp(-(((x - 0.5) / 0.06) ** 2)) + 0.03 * np.sin(y * rng.uniform(60, 80) - 4 * np.abs(x - 0.5))
    depth += rng.normal(0, 0.01, x.shape)
    grey = 255 * (depth - depth.min()) / np.ptp(depth)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def phantom_limits() -> InputLimits:
    """The limits of a model of phantoms, whose patients are none of those drawn above."""
    seeds = range(1000, 1064)
    hu = [draw_phantom(LABELS[seed % len(LABELS)], seed, 0.0, size=192) for seed in seeds]
    return fit_limits([InputReport(facts=check_picture(Image.fromarray(LUNG_WINDOW.apply(one))).facts) for one in hu])


def read(folder: Path, limits: InputLimits | None = None) -> Iterator[tuple[Frame | None, InputReport]]:
    """Each slice of a folder with its report; a file without one has its reason as only code."""
    console = Console(stderr=True)
    for item in track(open_slices(folder, limits=limits), f"Reading {folder.name}", console=console, transient=True):
        if isinstance(item, Frame):
            yield item, item.report
        else:
            yield None, InputReport((item.reason,))


class Own:
    """The slices that a model learns from, measured once by the absolute rules, and the groups that they form."""

    def __init__(self, folder: Path) -> None:
        found = [(frame, report) for frame, report in read(folder) if frame]
        self.folder, self.reports = folder, [report for _, report in found]
        paths = [Path(frame.file) for frame, _ in found]
        classes = sorted({path.parent.name for path in paths})
        thumbs = [frame.pixels.convert("L").resize((48, 48), Image.Resampling.BOX) for frame, _ in found]
        self.groups = np.array(
            link_slices(
                [classes.index(path.parent.name) for path in paths],
                [hashlib.sha256(frame.pixels.tobytes()).hexdigest() for frame, _ in found],
                np.stack([np.asarray(thumb) for thumb in thumbs]),
                [str(path.relative_to(folder)) for path in paths],
            )
        )
        self.limits = fit_limits(self.reports)

    def halve(self, rounds: int) -> list[Counter[str]]:
        """Of each halving of the groups, twice: the codes of one half by the limits that the other half sets."""
        rng, names, found = np.random.default_rng(0), np.unique(self.groups), []
        for _ in range(rounds):
            in_first = np.isin(self.groups, rng.permutation(names)[: len(names) // 2])
            for seen in (in_first, ~in_first):
                limits = fit_limits([report for report, is_seen in zip(self.reports, seen, strict=True) if is_seen])
                unseen = [report for report, is_seen in zip(self.reports, seen, strict=True) if not is_seen]
                found.append(Counter(report.reason or limits.judge(report.facts) or "fine" for report in unseen))
        return found


def main(
    model: Annotated[Path | None, typer.Option(help="A folder of slices that a model learns from.")] = None,
    slices: Annotated[list[Path] | None, typer.Option(help="Folders of axial chest slices.")] = None,
    wrong: Annotated[list[Path] | None, typer.Option(help="Folders of anything else.")] = None,
    halvings: Annotated[int, typer.Option(min=1, help="Random halvings of the model's groups.")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all rates to this file.")] = None,
) -> None:
    groups: dict[str, tuple[str, Counter[str]]] = {}
    took: list[float] = []
    own = Own(model) if model else None
    limits = own.limits if own else None

    def count(name: str, expected: str, code: str | None) -> None:
        groups.setdefault(name, (expected, Counter()))[1][code or "fine"] += 1

    def check(picture: Image.Image, limits: InputLimits | None) -> str | None:
        start = time.perf_counter()
        found = check_picture(picture, limits=limits)
        took.append(time.perf_counter() - start)
        return InputReport(ordered(found.codes)).reason

    halves = own.halve(halvings) if own else []
    for half in halves:
        groups.setdefault(f"{own.folder.name if own else ''}, unseen groups", ("fine", Counter()))[1].update(half)
    for folder in slices or []:
        is_own = own is None or folder.resolve() == own.folder.resolve()
        fine = "fine" if is_own else "any"
        for frame, report in read(folder, limits):
            count(folder.name, fine, report.reason)
            if frame is None:
                continue
            picture = frame.image
            check(picture, limits)
            for name, change in KEPT.items():
                count(f"{folder.name}, {name}", fine, check(change(picture), limits))
            count(f"{folder.name}, inverted", "inverted", check(ImageOps.invert(picture), limits))
            if report.facts["kind"] == "dicom":
                for name, window in WRONG_WINDOWS.items():
                    other = next(open_slices(Path(frame.file), window=window))
                    if isinstance(other, Frame):
                        right = "fine" if limits is None else "wrong-window"
                        count(f"{folder.name}, {name} window", right, check(other.image, limits))
    for folder in wrong or []:
        for _, report in read(folder, limits):
            count(folder.name, "any", report.reason)
    of_phantoms = phantom_limits()
    for name, expected, picture in drawn():
        count(name, expected or "fine", check(picture, of_phantoms))
    show(groups, took)
    shares = [1 - half["fine"] / half.total() for half in halves]
    if own and limits:
        print(f"{len(own.reports):,} slices in {len(set(own.groups)):,} groups; limits: {limits.to_json()}")
        print(f"Unseen groups: {100 * np.mean(shares):.2f} % refused on average, {100 * max(shares):.2f} % at worst.")
    if json_file:
        rates = {name: {"expected": expected, "codes": dict(found)} for name, (expected, found) in groups.items()}
        record = {"groups": rates, "milliseconds_median": round(1000 * statistics.median(took), 3)}
        record |= {"halves": shares, "input_limits": limits.to_json()} if limits else {}
        write_json(json_file, record)


def show(groups: dict[str, tuple[str, Counter[str]]], took: list[float]) -> None:
    table = Table("pictures", "count", "should be", "let through", "refused", "with that reason", "reasons")
    for name, (expected, found) in groups.items():
        total = found.total()
        refused = total - found["fine"]
        right = f"{100 * found[expected] / total:.1f} %" if expected not in ("fine", "any") else ""
        reasons = ", ".join(f"{code} {number}" for code, number in found.most_common() if code != "fine")
        shares = [f"{100 * number / total:.2f} %" for number in (found["fine"], refused)]
        table.add_row(name, str(total), expected, *shares, right, reasons)
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table)
    console.print(f"One check took {1000 * statistics.median(took):.2f} ms (median of {len(took):,}).")


if __name__ == "__main__":
    typer.run(main)
