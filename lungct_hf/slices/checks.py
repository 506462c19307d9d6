"""The input checks: is this picture an axial CT slice of a chest, like those that a model learned from?

The absolute rules use what holds for every scanner and window: a body of few densities (fat, muscle, blood), air
around it, large dark regions with sharp walls in it. What depends on how slices were made, their window and their
framing, is compared to the model's own slices (limits.py). Each rule has a reason code; their false-reject and catch
rates are measured by benchmarks/input_checks.py and stated in docs/inputs.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from .limits import SCHEMA_1_LIMITS, InputLimits
from .measure import SIDE, Layout, colour_fraction, layout, otsu, reduced, sides_over_middle, small_grey
from .outline import Outline, grain, outline
from .strokes import is_page, text_blocks

MIN_SIDE = 64  # pixels
_USUAL_SIDE = 192

_COLOUR = 0.03  # of the picture; a coloured arrow is less
_FLAT_GRAPHIC = 0.65  # of pixels equal to their neighbour: drawn, not photographed
_TEXT_BLOCKS = 3  # two letters in a corner, a ring or a cable make one or two
_BRIGHT_BORDER = 0.4  # less of the border is dark: no air around a body, so paper, an inverted slice or a close crop
_BLACK = 8  # grey levels that are below the window or nearly so
_BLANK = 8  # grey levels in the whole picture
# Greys of soft tissue. In a lung window from -160 +- 820 HU (146) to -550 +- 500 HU (255); in ours 190 to 230.
_TISSUE, _SURE_TISSUE = 132, 160
_USUAL_TISSUE = (180, 242)
_CONTRAST = 60  # grey levels from lung to tissue; 89 and more on CT
_TIGHTNESS = 0.65  # 0.70 and more on CT, 0.50 to 0.89 on X-rays, 0.42 and more on photographs
_HAZE = 0.05  # up to 0.039 on CT, also where pneumonia clouds the lungs; 0.053 to 0.146 on X-rays
_MUCH_HAZE = 0.12
_LUNG = 0.008  # of the body's area
_SMALL_LUNG = 0.05
_LITTLE_LUNG = 0.1
_ABOVE_AIR = 8  # grey levels (47 HU) by which lung is brighter than the gas in a bowel or a windpipe
_BONE, _NOT_WHITE = 0.15, 225  # of the tissue, where soft tissue itself is darker; a skull has more, a chest less
_CORE = 0.04  # of the body's area, deep inside dark regions: certainly lungs
_SOME_CORE = 0.02
_SOFT = 0.7  # of the step from dark to bright, at the walls of lungs; 0.59 and more on CT, up to 0.57 on X-rays
_VERY_SOFT = 0.5
_DENSE, _CLEAR = 0.92, 0.008  # tightness and haze where a wide window leaves little contrast between tissues
_LOOSE, _MOST_CORE = 0.5, 0.5  # tightness and core where a narrow window spreads tissues far apart
# How much brighter than its middle the sides of a picture are, in grey levels: at most 37 in slices as they should be
# (the median is -70), at least 8 in most that are inverted.
_UPRIGHT, _TURNED, _SURELY_TURNED = -45.0, 8.0, 45.0
_CUT_LUNG = 0.25  # of the body's area, dark and brighter than air, at the border of a close crop
_CLOSE_CROP, _CUT_ARMS = 0.8, 0.95  # of the border is dark: less in a crop through lungs, less in one through arms
_STRETCHED = 0.55  # grain down by grain across: 0.71 and more in axial pictures, up to 0.41 in reformats
# Width by height of a body with air around it: 0.98 and more in chests, 0.93 where a wide picture was squeezed into a
# square, 0.66 to 0.85 in heads and in lateral planes.
_TALL, _NOT_WIDE = 0.9, 1.0
_WALLED = 0.008  # of the body, dark with body on all sides: what a blanket encloses is not
_SHELL, _SURE_SHELL, _FULL_SHELL = 0.5, 0.6, 0.95  # of the outline that has bone just below it; ribs make 0.1 to 0.4
_SKULL = (0.05, 0.4)  # of the body that is bone, in windows that show the brain as even as soft tissue
_BRAIN = 60  # grey levels: what is darker than a white skull is brighter than lung in any window


@dataclass
class Findings:
    """Codes and warnings as in an input report, and what was measured."""

    codes: set[str] = field(default_factory=set)
    warnings: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)


def check_picture(
    picture: Image.Image, *, is_hu: bool = False, is_ct: bool = False, limits: InputLimits | None = None
) -> Findings:
    """Check a picture, L or RGB; three equal channels are measured as one is.

    `is_hu`: the picture was windowed from HU, so neither colour, text nor polarity can be wrong. `is_ct`: a header
    says that it is CT, so only what is in view is in question. `limits`: what the model learned from; without them
    only what can be no axial chest CT at all is refused.
    """
    found = Findings()
    side = min(picture.size)
    if side < MIN_SIDE:
        found.codes.add("too-small")
        return found
    if side < _USUAL_SIDE:
        found.warnings.add("low-resolution")
    of_schema_1 = limits == SCHEMA_1_LIMITS
    small = reduced(picture, SIDE)
    if not is_hu and _is_drawn_or_coloured(picture, small, found, of_schema_1):
        return found
    grey = small_grey(small)
    measured = layout(grey)
    judge = _judge_as_schema_1 if of_schema_1 else _judge
    code = judge(measured)
    if not is_hu:
        is_inverted = _is_inverted_as_schema_1 if of_schema_1 else _is_inverted
        if is_inverted(grey, measured):
            code = "inverted"
        elif measured.dark_border < _BRIGHT_BORDER and _may_be_page(measured) and is_page(picture):
            code = "burned-in-text"
    if code == "not-ct" and not is_hu and _has_black_lungs(layout(grey, _BLACK)):
        code = "wrong-window" if of_schema_1 else None
    if code is None and not of_schema_1:
        code = _judge_outline(picture, grey, measured, is_picture=not is_hu)
    if is_hu and code == "wrong-window":
        code = "not-ct"  # HU of a patient cannot look like that: the values are something else
    if is_ct and code == "not-ct":
        code = "no-lung" if measured.lung_fraction < _SMALL_LUNG else None
    found.facts |= _facts(measured, grey.shape)
    if code is None and limits is not None and not of_schema_1:
        code = limits.judge(found.facts)
        if code:
            found.facts["model_range"] = limits.outside(found.facts)
    if code:
        found.codes.add(code)
    elif measured.lung_fraction < _LITTLE_LUNG:
        found.warnings.add("little-lung")
    if of_schema_1 and code is None and not (is_hu or _USUAL_TISSUE[0] <= measured.tissue <= _USUAL_TISSUE[1]):
        found.warnings.add("unusual-window")
    return found


def _facts(measured: Layout, shape: tuple[int, ...]) -> dict[str, float]:
    """What a report keeps of a picture: what may depend on how it was made (limits.py), and how much lung it shows."""
    facts = {
        "tissue_grey": measured.tissue,
        "lung_grey": measured.lung,
        "haze": measured.haze,
        "aspect": shape[1] / shape[0],
        "body_fraction": measured.filled,
        "lung_fraction": measured.lung_fraction,
        "dark_border": measured.dark_border,
    }
    return {name: round(value, 4) for name, value in facts.items()}


def _is_drawn_or_coloured(picture: Image.Image, small: Image.Image, found: Findings, of_schema_1: bool) -> bool:
    blocks, flat = text_blocks(picture, letters_only=not of_schema_1)
    if small.mode == "RGB" and colour_fraction(small) >= _COLOUR:
        is_drawn = blocks >= _TEXT_BLOCKS or flat >= _FLAT_GRAPHIC
        found.codes.add("burned-in-text" if is_drawn else "colour-photograph")
        return True
    if blocks >= _TEXT_BLOCKS:
        found.codes.add("burned-in-text")
        return True
    if blocks:
        found.warnings.add("marks")
    return False


def _judge(measured: Layout) -> str | None:
    """The one code that a picture's layout earns in any window, or None."""
    if measured.spread < _BLANK:
        return "no-lung"
    if _is_projection(measured) or not _is_section(measured):
        return "not-ct"
    if _is_upright(measured):
        return "not-axial"
    return "no-lung" if _is_without_lung(measured) else None


def _is_upright(measured: Layout) -> bool:
    """Whether a body with tall lungs runs straight out of the picture below, as in a frontal or lateral plane."""
    runs_out = measured.core_fraction >= _SOME_CORE and measured.foot >= 0.97 and measured.flanks < 0.1
    if runs_out and measured.core_aspect < 1.4:
        return True
    # Below and above, and not quite straight.
    ends = measured.ends > 0.2 and measured.foot > 0.75 and measured.sides < 0.2
    return measured.core_fraction >= _CORE and ends and measured.core_aspect < 1.25


def _is_projection(measured: Layout) -> bool:
    """Whether dark fades into bright as on an X-ray; pneumonia is hazy as well, but in lungs with sharp walls."""
    if measured.core_fraction >= _SOME_CORE:
        is_soft = measured.sharpness < (_SOFT if measured.haze > _HAZE else _VERY_SOFT)
    else:
        is_soft = measured.haze > _HAZE and (measured.ends > 0.1 or measured.tightness < 0.7)
    return is_soft or measured.haze > _MUCH_HAZE


def _is_section(measured: Layout) -> bool:
    """Whether tissue and lung look like a section of a body in some window, wide or narrow."""
    if measured.tissue - max(measured.lung, measured.air) < min(_CONTRAST, measured.tissue / 2):
        return False
    core, is_lean = measured.core_fraction, measured.haze <= _HAZE
    has_lungs, is_even = core >= _CORE, measured.tightness >= _DENSE
    is_wide = is_even and measured.haze <= _CLEAR
    is_narrow = (
        0.1 <= core <= _MOST_CORE and measured.tightness >= _LOOSE and is_lean and 0.9 <= measured.core_aspect <= 2.5
    )
    is_black = has_lungs and measured.core_black >= 0.9  # below the window, as in one for bone or soft tissue
    if measured.tissue < _TISSUE or measured.tightness < _TIGHTNESS or is_black:
        is_plain = has_lungs and measured.tightness >= 0.85
        has_some = is_even and core > 0.005 and measured.lung_fraction > _SMALL_LUNG
        return is_wide or is_narrow or (is_lean and (is_black or is_plain or has_some))
    # A head on a black ground is bright and tight as well.
    return measured.tissue >= _SURE_TISSUE or core >= _SOME_CORE or is_wide


def _is_without_lung(measured: Layout) -> bool:
    air = max(measured.air, 40.0) if measured.tissue >= _USUAL_TISSUE[0] else measured.air
    is_gas = measured.lung < air + _ABOVE_AIR
    is_head = measured.bone > _BONE and measured.tissue <= _NOT_WHITE and measured.core_fraction < _SOME_CORE
    is_cut = measured.dark_border < _CUT_ARMS and measured.veil > _CUT_LUNG
    little = measured.lung_fraction < _LUNG or (measured.lung_fraction < _SMALL_LUNG and (is_gas or is_head))
    return little and not is_cut


def _judge_outline(picture: Image.Image, grey: np.ndarray, measured: Layout, *, is_picture: bool) -> str | None:
    """The code that a picture which passes so far earns by its outline and its grain, or None.

    `is_picture`: its pixels are as a file holds them. Those of HU may have been made square, which stretches grain.
    """
    body = outline(grey, otsu(grey))
    if body is None:
        # All that is bright is thin: a skull alone, in a window that leaves the brain dark.
        is_skull = measured.core_fraction > _MOST_CORE and measured.lung > _BRAIN and measured.core_aspect < _NOT_WIDE
        return "no-lung" if is_skull and measured.dark_border > _CLOSE_CROP else None
    if _is_head(body, measured) or _is_without_walled_lung(body, measured):
        return "no-lung"
    if measured.dark_border > _CLOSE_CROP and body.aspect < _TALL and max(body.beside, body.above) < 0.3:
        return "not-axial"
    return "not-axial" if is_picture and grain(picture, grey) < _STRETCHED else None


def _is_head(body: Outline, measured: Layout) -> bool:
    """Whether bone lies all around just below the outline, as a skull does, and no lung fills what it encloses."""
    if measured.dark_border < 0.5:
        return False
    if _SKULL[0] < body.bone < _SKULL[1]:
        is_empty, is_narrow = body.walled_core < 0.03, body.aspect < _NOT_WIDE
        return (is_empty and body.shell > _SURE_SHELL) or (is_narrow and body.shell > _SHELL)
    # A window for the brain: all that is bright is skull, and what it encloses is one region, taller than wide.
    is_brain = measured.tissue >= _NOT_WHITE and measured.lung > _BRAIN and measured.core_fraction > 0.1
    is_brain &= measured.dark_border > _CLOSE_CROP
    is_oval = body.aspect < _NOT_WIDE or 0 < measured.core_aspect < _NOT_WIDE
    return is_brain and is_oval and body.shell > _FULL_SHELL


def _is_without_walled_lung(body: Outline, measured: Layout) -> bool:
    """Whether nothing dark lies within a body that has air around it; a close crop may cut through the walls."""
    return measured.dark_border > _CLOSE_CROP and body.walled < _WALLED


def _judge_as_schema_1(measured: Layout) -> str | None:
    """The code that a picture's layout earns from a model of schema 1: one lung window is right, all others wrong."""
    if measured.spread < _BLANK:
        return "no-lung"
    is_hazy = measured.haze > _HAZE and (measured.ends > 0.1 or measured.tightness < 0.7)
    if measured.haze > _MUCH_HAZE or is_hazy:
        return "not-ct"
    has_lungs = measured.core_fraction >= _CORE
    is_black = has_lungs and measured.core_black >= 0.9  # below the window, as in one for bone or soft tissue
    if measured.tissue < _TISSUE or measured.tightness < _TIGHTNESS or is_black:
        is_plain = has_lungs and measured.tightness >= 0.85
        is_even = (
            measured.core_fraction > 0.005 and measured.tightness >= 0.92 and measured.lung_fraction > _SMALL_LUNG
        )
        is_lean = measured.haze <= _HAZE and (is_plain or is_even)
        return "wrong-window" if is_black or is_lean else "not-ct"
    if max(measured.lung, measured.air) > measured.tissue - _CONTRAST:
        return "not-ct"
    if has_lungs and measured.ends > 0.2 and measured.sides < 0.2 and measured.core_aspect < 1.25:
        return "not-axial"  # the body runs out of the picture above and below only, and the lungs are tall
    if measured.tissue < _SURE_TISSUE and measured.core_fraction < _SOME_CORE:
        return "not-ct"  # a head on a black ground is bright and tight as well
    return "no-lung" if _is_without_lung(measured) else None


def _has_black_lungs(cut: Layout) -> bool:
    """Whether a picture, cut just above black, shows lungs of a chest in a window for soft tissue.

    There fat is dark too, so Otsu's threshold joins the lungs to the air outside. Heads in MRI have no such black.
    """
    is_chest = 1.15 <= cut.core_aspect <= 2.5 and cut.dark_border >= 0.6
    return is_chest and cut.core_fraction > 0.025 and cut.core_black >= 0.9 and cut.tissue < 150


def _is_inverted(grey: np.ndarray, measured: Layout) -> bool:
    """Whether a picture is a section of a chest once black and white are swapped.

    Levels alone cannot tell, they lie symmetrically. What can: the middle of a chest is brighter than its lungs.
    """
    turning, is_bright = sides_over_middle(grey), measured.dark_border < _BRIGHT_BORDER
    if turning < _UPRIGHT or not (is_bright or turning > _SURELY_TURNED):
        return False
    turned = layout(255 - grey)
    if turning > (_TURNED if is_bright else _SURELY_TURNED) and turned.core_fraction >= _SOME_CORE:
        return _judge(turned) is None
    return is_bright and _is_body(measured, turned, _judge(turned))


def _is_inverted_as_schema_1(grey: np.ndarray, measured: Layout) -> bool:
    if measured.dark_border >= _BRIGHT_BORDER:
        return False
    turned = layout(255 - grey)
    return _is_body(measured, turned, _judge_as_schema_1(turned))


def _is_body(measured: Layout, turned: Layout, code: str | None) -> bool:
    """Whether what is dark in a picture without air around it is a body; `code` is that of the `turned` picture.

    A body has bones, which are black then; where it reaches the border, nothing dark is left to enclose.
    """
    is_all_bright = measured.dark_border < 0.1 and turned.lung_fraction > _SMALL_LUNG
    if turned.dark_border < 0.6 or not (turned.core_fraction >= _SOME_CORE or is_all_bright):
        return False
    shows_body = measured.lung_black > 0.003 or measured.lung_fraction < _SMALL_LUNG
    return code == "wrong-window" or (code is None and shows_body)


def _may_be_page(measured: Layout) -> bool:
    """Whether what is dark could be print: thin everywhere, and not the sliver of lung in a close crop."""
    is_thin = measured.core_fraction < _SOME_CORE and measured.spread >= _BLANK
    is_flesh = _USUAL_TISSUE[0] <= measured.tissue <= _USUAL_TISSUE[1] and measured.haze <= _HAZE
    return is_thin and not (is_flesh and measured.lung_fraction < _LITTLE_LUNG)
