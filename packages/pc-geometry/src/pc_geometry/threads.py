"""Sharing rows among threads.

Plain threads over kernels that release the GIL: numba's own pool is not safe across the fork of a
data-loader worker. Every part writes its own rows, so the number of threads changes no result.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pc_geometry.arrays import require_count


def share_rows(
    work: Callable[[slice], object], num_rows: int, num_threads: int, *, cuts_per_thread: int = 4
) -> None:
    """Call `work` on consecutive slices that together cover `num_rows` rows once.

    More slices than threads even out rows that cost more than others.

    Raises:
        ValueError: If `num_threads` is not a positive integer.
    """
    num_threads = require_count("num_threads", num_threads)
    if num_threads == 1:
        work(slice(0, num_rows))
        return
    cuts = np.linspace(0, num_rows, cuts_per_thread * num_threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(work, map(slice, cuts[:-1], cuts[1:])))


def share_parts(work: Callable[[int], object], num_parts: int, num_threads: int) -> None:
    """Call `work` once with the number of each of `num_parts` parts.

    Raises:
        ValueError: If `num_threads` is not a positive integer.
    """

    def work_on(parts: slice) -> None:
        for part in range(parts.start, parts.stop):
            work(part)

    share_rows(work_on, num_parts, num_threads)
