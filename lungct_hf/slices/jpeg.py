"""Damage in JPEG files that decoders pass over: they paint what was lost grey, or go on with what does not belong."""

from __future__ import annotations

import simplejpeg

from ..errors import BadSliceError, brief

_ZEROS = bytes(32)  # bytes: 256 bits that are all 0 are no code of a picture that is not even
_BASELINE = (0xC0, 0xC1)
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA)}


def check_jpeg(content: bytes) -> None:
    """Refuse a JPEG file whose picture data have no end, hold a long run of zeros, or are not what its tables decode.

    Raises:
        BadSliceError: it is damaged so.
    """
    frame, first_symbols, place = 0, dict[int, int](), 2
    while place + 1 < len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == 0xFF or marker in _WITHOUT_LENGTH:  # fill bytes
            place += 1 if marker == 0xFF else 2
            continue
        segment = content[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == 0xC4:
            _note_first_symbols(segment, first_symbols)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            frame = marker
        elif marker == 0xDA:
            break
    end = content.rfind(b"\xff\xd9")
    if end < place:
        raise BadSliceError("its picture data have no end: what follows is cut off or overwritten", "truncated")
    # Zeros are right where they are the code of an even block: no step from the last one, and nothing in it.
    if frame in _BASELINE and any(first_symbols.values()) and content.find(_ZEROS, place, end) >= 0:
        raise BadSliceError("part of its picture data is overwritten with zeros")
    _decode_strictly(content)


def _decode_strictly(content: bytes) -> None:
    """Decode once more with a decoder that reports what others pass over: codes that no table has, restart markers out
    of turn, data that end early or go on after the last block, as where another picture's were written over them."""
    try:
        colours = simplejpeg.decode_jpeg_header(content, strict=False)[2]
        simplejpeg.decode_jpeg(content, colorspace="CMYK" if colours in ("CMYK", "YCCK") else "GRAY", strict=True)
    except ValueError as error:
        # What else it reports (an odd JFIF version, say) harms no pixel; what it does not decode, Pillow has decoded.
        if any(word in str(error).lower() for word in ("corrupt", "premature")):
            raise BadSliceError(f"its picture data are damaged ({brief(error)})") from error


def _note_first_symbols(segment: bytes, first_symbols: dict[int, int]) -> None:
    """Of each Huffman table in a DHT segment, by its class and number, the symbol whose code is all zeros."""
    place = 0
    while place + 17 < len(segment):
        first_symbols[segment[place]] = segment[place + 17]
        place += 17 + sum(segment[place + 1 : place + 17])
