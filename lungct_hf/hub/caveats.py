"""What the card says a model does not know, and whose work it rests on."""

from __future__ import annotations

from typing import Any

from .wording import Facts


def limitations(data: Facts, labels: list[str], metrics: Facts | None, calibration: Any = None) -> list[str]:
    """What a reader must know before believing a number; only what the records support."""
    out = []
    if data["phantom"]:
        out.append(
            "Trained on generated phantoms: useless on patients. The figures measure how well it sorts drawings."
        )
    else:
        out.append(
            "Demographics (age, sex, origin, smoking) of the people in the data are unknown, so nothing is known "
            "about how well it works for any of them."
        )
    if data["iq_oth"]:
        out += [
            "One vendor (Siemens SOMATOM) and two hospitals in Iraq, autumn 2019, 1 mm slices: other scanners, doses "
            "and reconstructions were never seen.",
            "The data have no patient ids and many near-copies. Split by image, a nearest-neighbour lookup without "
            "any learning already names nearly every slice rightly, so published figures near 100 % say little.",
            "Nearly all images that are not square are malignant, and other traces of how the files were made may "
            "tell the class as well. The model may use them.",
        ]
    test = (metrics or {}).get("test") or {}
    small = [n for n in labels if 0 < ((test.get("per_class") or {}).get(n) or {}).get("n", 0) < 50]
    if small:
        out.append(f"Fewer than 50 test slices for: {', '.join(small)}. These sensitivities are rough.")
    out += [
        "Slices of one patient are not independent: the number of groups, not of slices, says how much was tested."
        + ("" if test.get("intervals") else " No interval is given."),
        _always_answers(calibration or {}),
        "A slice can look normal in a patient who is not. One slice is not a scan.",
    ]
    return out


def _always_answers(calibration: Facts) -> str:
    said = 'Its probabilities always name one of three classes, even for a photo or a foot, never "none of these".'
    if calibration.get("abstain"):
        return (
            f"{said} Only `decide` may refuse to answer; transformers, timm and `predict` do not apply that rule. "
            "Calibration and rule hold for data like those they were fitted on."
        )
    return said if calibration.get("fitted_on") else f"{said} They are not calibrated."


def references(data: Facts) -> list[str]:
    out = [
        "The approach follows Gao, Tian, Lin and Lin, *A CT Image Classification Network Framework for Lung Tumors "
        "Based on Pre-trained MobileNetV2 Model and Transfer learning, And Its Application and Market Analysis in the "
        "Medical field*, [arXiv:2501.04996](https://arxiv.org/abs/2501.04996), 2025. This is not that model, and the "
        "figures are not comparable.",
        "Network: Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, "
        "[arXiv:1801.04381](https://arxiv.org/abs/1801.04381), 2018.",
    ]
    if data["iq_oth"]:
        out.append(
            "Data: Al-Yasriy and Al-Huseiny, *The IQ-OTH/NCCD lung cancer dataset*, Mendeley Data, "
            "[doi:10.17632/bhmdr45bh2](https://doi.org/10.17632/bhmdr45bh2)."
        )
    return out
