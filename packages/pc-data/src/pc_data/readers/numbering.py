"""Scans of several scenes, numbered through."""

import numpy as np
from jaxtyping import Int64


def locate(ends: Int64[np.ndarray, " scenes"], index: int) -> tuple[int, int]:
    """The scene of a scan, and its number there.

    Args:
        ends: Number of scans up to the end of each scene.
        index: Of the scan; negative ones count from the end.

    Raises:
        IndexError: If there is no such scan.

    >>> locate(np.array([3, 5]), -1)
    (1, 1)
    """
    index = range(int(ends[-1]))[index]
    scene = int(np.searchsorted(ends, index, side="right"))
    return scene, index - (int(ends[scene - 1]) if scene else 0)
