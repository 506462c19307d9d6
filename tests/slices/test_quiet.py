"""Silence while slices are read belongs to the reading thread, and afterwards warnings are as they were."""

import io
import os
import threading
import warnings

import pytest
from made_slices import only, phantom_hu
from PIL import Image

from lungct_hf.slices.read import _overheard, quiet
from lungct_hf.slices.source import Unreadable, open_slices
from lungct_hf.slices.window import LUNG_WINDOW


def test_what_is_said_inside_is_heard_and_goes_no_further() -> None:
    with warnings.catch_warnings(record=True) as outside:
        warnings.simplefilter("always")
        with quiet() as said:
            warnings.warn("of the file", stacklevel=1)
            with quiet() as inner:
                warnings.warn("of the page", stacklevel=1)
            warnings.warn("of the file again", stacklevel=1)
    assert said == ["of the file", "of the file again"] and inner == ["of the page"] and not outside


def test_threads_that_overlap_hear_themselves_and_leave_the_filters_alone() -> None:
    first_is_in, second_is_in, heard = threading.Event(), threading.Event(), {}

    def first() -> None:
        with quiet() as said:
            first_is_in.set()
            second_is_in.wait(10)
            warnings.warn("first", stacklevel=1)
            heard["first"] = said

    def second() -> None:
        first_is_in.wait(10)
        with quiet() as said:
            second_is_in.set()
            ends.wait(10)  # the other has left: what it found before must not come back under this thread's feet
            warnings.warn("second", stacklevel=1)
            heard["second"] = said

    ends = threading.Event()
    threads = [threading.Thread(target=one) for one in (first, second)]
    before = warnings.filters[:]
    for thread in threads:
        thread.start()
    threads[0].join(20)
    ends.set()
    threads[1].join(20)
    assert heard == {"first": ["first"], "second": ["second"]}
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", stacklevel=1)


def test_what_libtiff_prints_is_the_reason_and_lands_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    out = io.BytesIO()
    Image.fromarray(LUNG_WINDOW.apply(phantom_hu())).save(out, "TIFF", compression="tiff_lzw")
    whole = out.getvalue()
    only(whole)
    middle = len(whole) // 2
    row = next(open_slices(whole[:middle] + bytes(400) + whole[middle + 400 :]))
    assert isinstance(row, Unreadable) and row.reason == "damaged" and "LZWDecode" in row.detail
    assert row.detail.isprintable()
    assert capfd.readouterr() == ("", "")


def test_what_others_print_meanwhile_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with _overheard() as said:
        os.write(2, b"TIFFFillStrip: Read error on strip 0\nlistening on port 8000\n")
    assert said == ["TIFFFillStrip: Read error on strip 0"]
    assert capfd.readouterr().err == "listening on port 8000\n"
