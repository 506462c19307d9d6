"""What the card says a model does not know, and whose work it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .wording import Facts, number, plain


def limitations(
    data: Facts, labels: Sequence[str], metrics: Facts | None, calibration: Any = None, *, older: bool = False
) -> list[str]:
    """What a reader must know before believing a number; only what the records support. `older`: of schema 1."""
    out = []
    if not data["phantom"]:
        out.append(
            "Demographics (age, sex, origin, smoking) of the people in the data are unknown, so nothing is known "
            "about how well it works for any of them."
        )
    out += data["known"].caveats if data["known"] else ()
    test = (metrics or {}).get("test") or {}
    small = [plain(n) for n in labels if 0 < ((test.get("per_class") or {}).get(n) or {}).get("n", 0) < 50]
    if small:
        out.append(f"Fewer than 50 test slices for: {', '.join(small)}. These sensitivities are rough.")
    out += [
        "Slices of one patient are not independent: the number of groups, not of slices, says how much was tested."
        + ("" if test.get("intervals") else " No interval is given."),
        _always_answers(len(labels), calibration or {}, older),
        "A slice can look normal in a patient who is not. One slice is not a scan.",
    ]
    return out


def _always_answers(classes: int, calibration: Facts, older: bool) -> str:
    said = (
        f"Its probabilities always name one of {number(classes)} classes, even for a photo or a foot, never "
        '"none of these".'
    )
    if not older:
        said += " Only this package checks what it is shown"
        said += " and may refuse to answer" if calibration.get("abstain") else ""
        said += "; transformers and timm answer whatever they are given."
    if calibration.get("abstain"):
        if older:
            said += " Only `decide` may refuse to answer; transformers, timm and `predict` do not apply that rule."
        return f"{said} Calibration and rule hold for data like those they were fitted on."
    return said if calibration.get("fitted_on") else f"{said} They are not calibrated."


def references(data: Facts, architecture: str) -> list[str]:
    out = [
        "The approach follows Gao, Tian, Lin and Lin, *A CT Image Classification Network Framework for Lung Tumors "
        "Based on Pre-trained MobileNetV2 Model and Transfer learning, And Its Application and Market Analysis in the "
        "Medical field*, [arXiv:2501.04996](https://arxiv.org/abs/2501.04996), 2025. This is not that model, and the "
        "figures are not comparable.",
    ]
    if is_mobilenet(architecture):
        out.append(
            "Network: Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, "
            "[arXiv:1801.04381](https://arxiv.org/abs/1801.04381), 2018."
        )
    if data["known"] and data["known"].cite:
        out.append(f"Data: {data['known'].cite}")
    return out


def is_mobilenet(architecture: str) -> bool:
    return architecture.lower().startswith("mobilenetv2")
