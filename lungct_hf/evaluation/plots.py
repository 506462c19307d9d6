"""The report as small PNGs. Every line differs in dash and marker as well as in colour (Okabe and Ito's palette)."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..decision import OPERATING_POINTS
from ..errors import require
from ..files import write_atomic
from ..silence import keep_no_fonts
from .calibration import risk_coverage
from .figures import ECE_BINS, confusion_counts, reliability
from .operating import roc_band
from .report import Part, Report
from .sample import Sample
from .tables import SOURCES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By the number of the class; 7, 4 and 5 of them have no common factor, so that 100 classes are 100 different styles.
_HUES = ("#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v")
_BLUE, _ORANGE, _BLACK = _HUES[:3]
_GREY = "#595959"
_CURVES = 8  # more classes than this are drawn in grey but for the _WORST
_WORST = 5
_WRITTEN = (5, 16)  # up to so many classes a confusion matrix has counts and per cent, counts
_NAMED = 40  # up to so many classes its axes have all names
_COLOURS = 48  # a drawn plot needs no more, and the file is a third of the size


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Draw comparison, confusion, roc, precision_recall, reliability and risk_coverage as PNGs in `folder`.

    Where classes are marked positive roc_positive as well; of two classes it stands in the place of roc.
    """
    require("matplotlib", "train")
    part = report.parts[report.headline]
    drawings: dict[str, Callable[[], Figure]] = {
        "comparison": lambda: _comparison(report),
        "confusion": lambda: _confusion(part),
        "roc": lambda: _curves(part.test, report.metrics["test"], "auroc"),
        "roc_positive": lambda: _roc_positive(part.test, report.metrics),
        "precision_recall": lambda: _curves(part.test, report.metrics["test"], "average_precision"),
        "reliability": lambda: _reliability(part),
        "risk_coverage": lambda: _risk_coverage(part, report.metrics["test"]),
    }
    if "operating" not in report.metrics:
        del drawings["roc_positive"]
    elif len(part.test.classes) == 2:
        del drawings["roc"]
    written = []
    for name, draw in drawings.items():
        written.append(folder / f"{name}.png")
        write_atomic(written[-1], _png(draw()))
    return written


def _comparison(report: Report) -> Figure:
    """Balanced accuracy with intervals: every source under every protocol, slices filled, cases hollow."""
    blocks = {report.headline: report.metrics} | report.metrics.get("other_protocols", {})
    rows = [
        (f"{SOURCES[source]}\n{protocol}", block)
        for protocol, found in blocks.items()
        for source, block in {"model": found["test"], **found["baselines"]}.items()
    ]
    figure, axes = _canvas(6.4, 1.3 + 0.52 * len(rows))
    for place, (_, block) in enumerate(rows):
        axes.axhspan(place - 0.42, place + 0.42, color="#F3F3F3", lw=0, zorder=0)
        for shift, found, filled in ((-0.14, block, True), (0.14, block["cases"], False)):
            interval = found["intervals"]["balanced_accuracy"]
            y = place + shift
            if interval["low"] is not None:
                axes.plot([interval["low"], interval["high"]], [y, y], color=_GREY, lw=1.6, zorder=1)
            face = _BLUE if filled else "white"
            label = ("slices" if filled else "cases (slices pooled)") if place == 0 else None
            marker = "o" if filled else "D"
            axes.plot(interval["value"], y, marker, ms=6.5, color=_BLUE, mfc=face, label=label, zorder=2)
    chance = 1 / len(report.parts[report.headline].test.classes)
    axes.axvline(chance, color=_GREY, ls=":", lw=1.2)
    axes.text(chance, -0.62, " chance", color=_GREY, fontsize=8, va="center")
    axes.set(xlim=(0, 1.01), ylim=(len(rows) - 0.4, -0.85), xlabel="balanced accuracy, 95 % interval")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.legend(loc="lower left", frameon=False, fontsize=8, ncols=2, bbox_to_anchor=(0, 1), borderaxespad=0.1)
    return figure


def _confusion(part: Part) -> Figure:
    classes = part.test.classes
    size = len(classes)
    side = 3.4 + 0.3 * min(max(0, size - 3), 12)
    figure, both = _canvas(2.1 * side, side, 2)
    # All names where they can be read, else as many as can, each at its own row.
    shown = np.arange(0, size, -(-size // _NAMED))
    names = [textwrap.fill(_text(classes[int(c)]), 16) for c in shown]
    font = 10 if size <= _WRITTEN[0] else 7
    flat = size <= 3 and max(map(len, classes)) <= 10
    for axes, sample, unit in ((both[0], part.test, "slices"), (both[1], part.test.cases(), "cases")):
        counts = confusion_counts(sample)
        totals = counts.sum(axis=1, keepdims=True)
        shares = np.divide(counts, totals, out=np.zeros((size, size)), where=totals > 0)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts if size <= _WRITTEN[1] else counts[:0]):
            dark = shares[row, column] > 0.55
            text = f"{count}\n{100 * shares[row, column]:.0f} %" if size <= _WRITTEN[0] else str(count or "")
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=font)
        axes.set_xticks(shown, names, rotation=0 if flat else 90)
        axes.set_yticks(shown, names, rotation=90 if flat else 0, va="center")
        axes.set(title=f"{len(sample)} {unit}", xlabel="named", ylabel="true")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=9 if size <= _WRITTEN[1] else 6)
    return figure


def _curves(sample: Sample, block: dict[str, Any], kind: str) -> Figure:
    """ROC or precision-recall curves, one class against the others; the legend holds the areas and intervals.

    Two classes have one ROC curve, which the positive one stands for. Of many classes those with the smallest areas
    are told apart.
    """
    assert sample.probabilities is not None
    classes = sample.classes
    counts = np.bincount(sample.labels, minlength=len(classes))
    drawn = [c for c in range(len(classes)) if 0 < counts[c] < len(sample)]
    if len(classes) == 2 and (kind == "auroc" or classes.positive):
        drawn = [c for c in drawn if c == (classes.index(classes.positive[0]) if classes.positive else 1)]
    found = block["intervals"]
    areas = {c: found["per_class"][classes[c]].get(kind) or found["auroc"] for c in drawn}
    told = drawn
    if len(drawn) > _CURVES:
        told = sorted(drawn, key=lambda c: (areas[c]["value"], c))[:_WORST]
    figure, axes = _canvas(4.6, 4.3 + 0.27 * max(3, len(told)))
    for c in drawn:
        x, y = _curve(sample.labels == c, sample.probabilities[:, c], kind)
        if c not in told:
            axes.step(x, y, color="#BFBFBF", lw=0.6, where="post", zorder=0)
            continue
        colour, dashes, marker = _style(c)
        label = f"{_text(classes[c])}  {_with_interval(areas[c])}"
        axes.step(x, y, color=colour, ls=dashes, lw=1.7, where="post", label=label)
        every = max(1, len(x) // 7)
        axes.plot(x[every // 2 :: every], y[every // 2 :: every], marker, color=colour, ms=5)
        if kind != "auroc":
            axes.axhline(counts[c] / len(sample), color=colour, lw=0.7, ls=":")
    if len(told) < len(drawn):
        axes.plot([], [], color="#BFBFBF", lw=0.6, label=f"{len(drawn) - len(told)} classes with larger areas")
    if kind == "auroc":
        axes.plot([0, 1], [0, 1], color=_GREY, ls=":", lw=1)
        title = "ROC" if len(classes) == 2 else "ROC, each class against the others"
        axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=title)
    else:
        axes.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="Precision-recall; dotted: chance")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03), aspect="equal")
    title = "AUROC" if kind == "auroc" else "average precision"
    _legend_below(axes, title=f"{title} [95 % interval]")
    return figure


def _roc_positive(sample: Sample, metrics: dict[str, Any]) -> Figure:
    """The ROC curve of any positive class with its band, and where the fitted cuts come out."""
    made, block = metrics["bootstrap"], metrics["operating"]["slices"]
    figure, axes = _canvas(4.6, 5.6)
    x, y, low, high = roc_band(sample, replicates=made["replicates"], seed=made["seed"])
    axes.fill_between(x, low, high, color=_BLUE, alpha=0.2, lw=0, label="95 % band, whole groups resampled")
    axes.plot(x, y, color=_BLUE, lw=1.7, label=f"AUROC {_with_interval(block['auroc'])}")
    for number, (name, point) in enumerate((block["points"] or {}).items()):
        figure_name, target = OPERATING_POINTS[name]
        colour, _, marker = _style(number + 1)
        at = [1 - point["specificity"]["value"]], [point["sensitivity"]["value"]]
        if None not in (*at[0], *at[1]):
            said = f"cut for {100 * target:.0f} % {figure_name}"
            axes.plot(*at, marker, color=colour, ms=7, ls="", label=said, zorder=3)
    axes.plot([0, 1], [0, 1], color=_GREY, ls=":", lw=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_title(f"ROC, {textwrap.shorten(_text(', '.join(sample.classes.positive)), 48, placeholder=' ...')}")
    _legend_below(axes)
    return figure


def _curve(truth: np.ndarray, scores: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    if kind == "auroc":
        x, y, _ = roc_curve(truth, scores)
    else:
        y, x, _ = precision_recall_curve(truth, scores)
    return x, y


def _style(number: int) -> tuple[str, str, str]:
    """Colour, dash and marker of a class."""
    return _HUES[number % 7], _DASHES[number % 4], _MARKERS[number % 5]


def _text(name: str) -> str:
    """A class's name as matplotlib draws it: no dollar starts a formula, no underscore hides a line from a legend."""
    return name.replace("$", r"\$") if not name.startswith("_") else f" {name}".replace("$", r"\$")


def _reliability(part: Part) -> Figure:
    figure, (axes, below) = _canvas(4.6, 5.2, 2, heights=(4, 1))
    least = np.floor(10 / len(part.test.classes)) / 10  # the highest of C probabilities is at least 1 / C
    styles = [(part.test, _BLUE, "-", "o", "as published")]
    if part.uncalibrated is not None:
        styles.append((part.uncalibrated, _ORANGE, "--", "s", "before calibration"))
    for sample, colour, dashes, marker, name in styles:
        found = reliability(sample)
        some = found["count"] > 0
        total = found["count"].sum()
        ece = np.nansum(found["count"] * np.abs(found["accuracy"] - found["confidence"])) / total
        axes.plot(found["confidence"][some], found["accuracy"][some], color=colour, ls=dashes, lw=1.2, zorder=2)
        sizes = 18 + 150 * found["count"][some] / total
        axes.scatter(found["confidence"][some], found["accuracy"][some], s=sizes, c=colour, marker=marker, zorder=3)
        axes.plot([], [], color=colour, ls=dashes, marker=marker, label=f"{name}: ECE {ece:.3f}")
    axes.plot([0, 1], [0, 1], color=_GREY, ls=":", lw=1)
    axes.set(xlim=(least, 1.01), ylim=(-0.02, 1.03), ylabel="accuracy in the bin", title="Reliability")
    _legend_below(axes)
    count = reliability(part.test)["count"]
    middles = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    below.bar(middles, count, width=0.9 / ECE_BINS, color=_BLUE)
    below.set(xlim=(least, 1.01), xlabel="confidence (highest probability)", ylabel="slices")
    return figure


def _risk_coverage(part: Part, block: dict[str, Any]) -> Figure:
    assert part.test.probabilities is not None
    curve = risk_coverage(part.test.probabilities, part.test.labels)
    figure, axes = _canvas(5.4, 4.6)
    axes.step(curve["coverage"], curve["risk"], where="post", color=_BLUE, lw=1.8, label="model, by confidence")
    axes.axhline(curve["risk"][-1], color=_GREY, ls=":", lw=1, label="error when everything is answered")
    rule = block.get("abstention")
    if rule and rule["error"]["value"] is not None:
        error, low, high = (rule["error"][key] for key in ("value", "low", "high"))
        spread = [[error - low], [high - error]] if low is not None else None
        said = f"abstain rule: {100 * rule['coverage']['value']:.0f} % answered, {100 * error:.1f} % of them wrong"
        at = rule["coverage"]["value"]
        axes.errorbar(at, error, spread, fmt="D", color=_BLACK, ms=7, capsize=4, label=said, zorder=3)
        if rule["target_error"] is not None:
            axes.axhline(rule["target_error"], color=_BLACK, ls="--", lw=1, label="target error")
    top = max(0.06, 1.25 * float(curve["risk"][curve["coverage"] > 0.05].max(initial=0)))
    top = max(top, 1.1 * (rule["error"]["high"] or 0)) if rule else top
    axes.set(xlim=(0, 1.02), ylim=(-0.005, min(1.0, top)), xlabel="coverage (share answered)")
    axes.set(ylabel="error among the answers", title=f"Risk and coverage, AURC {curve['aurc']:.3f}")
    _legend_below(axes)
    return figure


def _legend_below(axes: Axes, title: str | None = None) -> None:
    """Where it covers no curve."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        fontsize=9,
        title=title,
        title_fontsize=9,
        handlelength=3.5,
        frameon=False,
    )


def _with_interval(interval: dict[str, Any]) -> str:
    if interval["value"] is None:
        return "undefined"
    known = f" [{interval['low']:.3f}, {interval['high']:.3f}]" if interval["low"] is not None else ""
    return f"{interval['value']:.3f}{known}"


def new_figure(**options: Any) -> Figure:
    """A figure outside pyplot's global state, so that nothing has to be closed."""
    keep_no_fonts()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def _canvas(width: float, height: float, columns: int = 1, heights: tuple[int, ...] = ()) -> tuple[Figure, Any]:
    """A figure and its axes; sizes in inches at 100 dpi."""
    figure = new_figure(figsize=(width, height), dpi=100)
    if heights:
        return figure, figure.subplots(len(heights), 1, height_ratios=heights, sharex=True)
    axes: Axes | np.ndarray = figure.subplots(1, columns)
    for one in np.atleast_1d(np.asarray(axes, dtype=object)):
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=9)
    return figure, axes


def _png(figure: Figure) -> bytes:
    """Few colours, and no date or version in the file: the same numbers give the same bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})
    small, picture = io.BytesIO(), Image.open(drawn).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(small, format="PNG", optimize=True)
    return small.getvalue()
