"""How much one visitor may send, and how often."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import zipfile
from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..slices.archive import BAD_ARCHIVE

MB = 2**20
MAX_SLICE_FILE = 64 * MB  # a 512 x 512 slice has 0.5 MB
MAX_UPLOAD = 512 * MB  # of all files of a study
MAX_UNPACKED = 2048 * MB  # of a zip archive
MAX_FILES = 1_000
MAX_SLICES = 600  # of a study; a chest CT in 1 mm slices has about 350
_VISITORS = 10_000  # remembered at a time
_KEEP_FREE = 1024 * MB  # of the disk that uploads go to


def check_slice_file(path: Path) -> None:
    """Raises UsageError for a file that is larger than a slice can be."""
    size = path.stat().st_size
    if size > MAX_SLICE_FILE:
        raise UsageError(
            f"The file has {size / MB:,.0f} MB; a single slice may have {MAX_SLICE_FILE // MB}. Fix: send one slice."
        )


def check_study_files(paths: Sequence[Path]) -> None:
    """Raises UsageError for too many files, too many bytes, or an archive that says it unpacks to too much."""
    if len(paths) > MAX_FILES:
        raise UsageError(
            f"These are {len(paths):,} files; at most {MAX_FILES:,} are taken. Fix: send fewer, or a zip."
        )
    total = sum(path.stat().st_size for path in paths)
    if total > MAX_UPLOAD:
        raise UsageError(f"The files have {total / MB:,.0f} MB together; at most {MAX_UPLOAD // MB} are taken.")
    for path in paths:
        if not zipfile.is_zipfile(path):
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except BAD_ARCHIVE:
            continue  # its reader says what is wrong with it
        if unpacked > MAX_UNPACKED:
            raise UsageError(
                f"The archive unpacks to {unpacked / MB:,.0f} MB; at most {MAX_UNPACKED // MB:,} are taken. "
                "Fix: send one series."
            )


def has_room(size: int) -> bool:
    """Whether the disk that uploads go to can take `size` more bytes and keep some for everything else."""
    place = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free - size >= _KEEP_FREE


class RateLimit:
    """At most `calls` of one visitor in `seconds`; 0 calls: no limit. Thread-safe."""

    def __init__(self, calls: int, seconds: float = 60.0) -> None:
        self.calls, self.seconds = calls, seconds
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, visitor: str, now: float | None = None) -> bool:
        """Whether this call is still within the limit; it is counted when it is."""
        if not self.calls:
            return True
        now = time.monotonic() if now is None else now
        with self._lock:
            times = self._seen.setdefault(visitor, deque())
            self._seen.move_to_end(visitor)
            while len(self._seen) > _VISITORS:
                self._seen.popitem(last=False)
            while times and times[0] <= now - self.seconds:
                times.popleft()
            if len(times) >= self.calls:
                return False
            times.append(now)
            return True
