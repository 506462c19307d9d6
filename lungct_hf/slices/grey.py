"""Grey pictures in one channel: a third of the pixels to check, to scale and to keep."""

from __future__ import annotations

from PIL import Image


def one_channel(picture: Image.Image) -> Image.Image:
    """An RGB picture as L where its three channels are equal; any other picture as it is."""
    if picture.mode != "RGB":
        return picture
    content = picture.tobytes("raw", "R")
    if content != picture.tobytes("raw", "G") or content != picture.tobytes("raw", "B"):
        return picture
    return Image.frombytes("L", picture.size, content)


def three_channels(picture: Image.Image) -> Image.Image:
    """A picture of mode L or RGB as RGB."""
    return picture if picture.mode == "RGB" else Image.merge("RGB", [picture] * 3)
