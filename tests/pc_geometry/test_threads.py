import threading

import numpy as np
import pytest
from pc_geometry.threads import share_rows

from tests.lanes import unchecked_only


def visits(num_rows, num_threads, **options):
    """How often each row comes, and the slices."""
    counts, slices, lock = np.zeros(num_rows, int), [], threading.Lock()

    def work(rows):
        with lock:
            counts[rows] += 1
            slices.append(rows)

    share_rows(work, num_rows, num_threads, **options)
    return counts, slices


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 1000])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 70])
def test_every_row_comes_once(num_rows, num_threads):
    counts, slices = visits(num_rows, num_threads)
    assert (counts == 1).all()
    assert len(slices) == (4 * num_threads if num_threads > 1 else 1)
    assert max(part.stop - part.start for part in slices) <= num_rows / len(slices) + 1


@unchecked_only
def test_small_numpy_integers():
    counts, slices = visits(100, np.uint8(64))
    assert (counts == 1).all()
    assert len(slices) == 256


def test_cuts_per_thread():
    assert len(visits(100, 2, cuts_per_thread=3)[1]) == 6


def test_an_error_of_a_thread_comes_out():
    def fail(rows):
        raise RuntimeError(f"at {rows.start}")

    with pytest.raises(RuntimeError, match="at 0"):
        share_rows(fail, 10, 2)


@pytest.mark.parametrize("num_threads", [0, -1])
def test_no_threads(num_threads):
    with pytest.raises(ValueError, match=f"num_threads must be at least 1, got {num_threads}"):
        share_rows(print, 10, num_threads)


@unchecked_only
@pytest.mark.parametrize("num_threads", [2.0, 1.5])
def test_a_fraction_of_threads(num_threads):
    with pytest.raises(ValueError, match=f"num_threads must be an integer .* got {num_threads}"):
        share_rows(print, 10, num_threads)
