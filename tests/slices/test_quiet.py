"""Silence while slices are read belongs to the reading thread, and afterwards warnings are as they were."""

import threading
import warnings

import pytest

from lungct_hf.slices.read import quiet


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
