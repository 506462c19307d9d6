"""Unpack what is packed inside a file, block by block, so that a bomb is noticed before it fills anything."""

from __future__ import annotations

import bz2
import tempfile
import zlib
from typing import BinaryIO, cast

from ..errors import BadSliceError, brief

MB = 2**20
MAX_UNPACKED = 2048 * MB
_IN_MEMORY = 64 * MB
_BLOCK = MB
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def unpacked(packed: BinaryIO, packing: str = "gzip") -> BinaryIO:
    """What the rest of `packed` holds, "gzip" (zlib too) or "bzip2": in memory while it is small, else on the disk.

    Raises:
        BadSliceError: it is damaged, ends too early, or holds more than `MAX_UNPACKED`.
    """
    content = cast(BinaryIO, tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - the caller closes it
    try:
        ended = _gunzip(packed, content) if packing == "gzip" else _bunzip(packed, content)
        if not ended:
            raise BadSliceError("its packed content ends too early", "truncated")
    except (zlib.error, OSError, EOFError) as error:
        content.close()
        raise BadSliceError(f"it cannot be unpacked ({brief(error)})") from error
    except BadSliceError:
        content.close()
        raise
    content.seek(0)
    return content


def check_size(size: int, limit: int | None = None) -> None:
    """Raise BadSliceError for more bytes than `limit`, which is `MAX_UNPACKED` where it is not given."""
    limit = MAX_UNPACKED if limit is None else limit
    if size > limit:
        raise BadSliceError(f"it has {size / MB:,.0f} MB (limit {limit // MB:,} MB)", "too-large")


def _gunzip(packed: BinaryIO, content: BinaryIO) -> bool:
    unpacker, total, block = zlib.decompressobj(_GZIP_OR_ZLIB), 0, b""
    while block := block or packed.read(_BLOCK):
        if unpacker.eof:
            if not block.startswith(b"\x1f"):  # what follows the last member is ignored, as gzip does
                break
            unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)  # another member (RFC 1952), as bgzip writes them
        part = unpacker.decompress(block, _BLOCK)
        total += len(part)
        check_size(total)
        content.write(part)
        block = unpacker.unconsumed_tail or unpacker.unused_data
    return unpacker.eof


def _bunzip(packed: BinaryIO, content: BinaryIO) -> bool:
    unpacker, total = bz2.BZ2Decompressor(), 0
    while not unpacker.eof:
        block = packed.read(_BLOCK) if unpacker.needs_input else b""
        if unpacker.needs_input and not block:
            return False
        part = unpacker.decompress(block, _BLOCK)
        total += len(part)
        check_size(total)
        content.write(part)
    return True
