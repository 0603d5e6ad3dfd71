"""Cubic voxels: which one a point is in, and one point for each."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import math

import numpy as np
from jaxtyping import Float, Int64
from numba import njit

from pc_geometry.arrays import require_points

MAX_INDEX = 2**31 - 1
"""Largest voxel index, either way of the origin."""


def voxel_coordinates(
    points: Float[np.ndarray, "n d"],
    voxel_size: float,
    *,
    origin: Float[np.ndarray, " d"] | None = None,
) -> Int64[np.ndarray, "n d"]:
    """Compute the integer voxel of each point: floor((points - origin) / voxel_size).

    Computed in float64 whatever the input, so that a point does not change its voxel with the
    precision of the arithmetic.

    Args:
        points: Positions, d = 2 or 3.
        voxel_size: Side of a voxel, in the unit of `points`.
        origin: Lower corner of voxel 0; the per-axis minimum if not given.

    Raises:
        ValueError: If `voxel_size` is not positive, a coordinate is not finite, or a voxel is
            more than 2^31 - 1 from the origin.

    >>> voxel_coordinates(np.float32([[0.0, 0.05], [0.25, -0.05]]), 0.1).tolist()
    [[0, 1], [2, 0]]
    """
    return _cells(require_points(points), voxel_size, origin).astype(np.int64)


def voxel_subsample(
    points: Float[np.ndarray, "n d"],
    voxel_size: float,
    *,
    rng: np.random.Generator | None = None,
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " n"]]:
    """Keep one point for each occupied voxel of a grid that starts at the per-axis minimum.

    Voxels are numbered by first appearance in `points`. Time and memory grow with the number of
    points, never with the volume.

    Args:
        points: Positions, d = 2 or 3.
        voxel_size: Side of a voxel, in the unit of `points`.
        rng: Draws the kept point uniformly among those of a voxel; without it the first is kept,
            and the kept indices ascend.

    Returns:
        Index of the kept point of each voxel, and for each point the position of its voxel in
        there: `points[indices[inverse]]` are the representatives of `points`.

    Raises:
        ValueError: As for `voxel_coordinates`.

    Source: ScaLR (Puy et al., CVPR 2024), sub-sampling of the input with 0.1 m: random for
        training, first in file order for validation. Differs in dividing in float64.

    >>> indices, inverse = voxel_subsample(np.float32([[0, 0], [9, 9], [0.01, 0]]), 0.1)
    >>> indices.tolist(), inverse.tolist()
    ([0, 1], [0, 1, 0])
    """
    points = require_points(points)
    cells = _cells(points, voxel_size, None)
    n = len(points)
    slots = np.full(1 << math.ceil(math.log2(1.5 * n + 1)), -1, np.int32)
    indices = np.empty(n, np.int64)
    inverse = np.empty(n, np.int64)
    indices = indices[: _number_cells(cells, slots, indices, inverse)].copy()
    if rng is not None:
        _keep_highest(rng.random(n), inverse, indices)
    return indices, inverse


def _cells(points: np.ndarray, voxel_size: float, origin: np.ndarray | None) -> np.ndarray:
    """Return the voxel of each point as int32 [n d]."""
    if not 0 < voxel_size < math.inf:
        raise ValueError(f"voxel_size must be positive and finite, got {voxel_size}")
    n, d = points.shape
    if origin is None:
        origin = np.empty(d)
        _minimum(points, origin)
    elif np.shape(origin) != (d,) or not np.isfinite(origin).all():
        raise ValueError(f"origin must be {d} finite numbers (one an axis), got {origin}")
    cells = np.empty((n, d), np.int32)
    num_far = _discretise(points, np.asarray(origin, np.float64), float(voxel_size), cells)
    if num_far:
        raise ValueError(
            f"voxel_size {voxel_size} puts {num_far} coordinates more than {MAX_INDEX} voxels from "
            "the origin; take larger voxels or drop the outliers"
        )
    return cells


@njit(cache=True, nogil=True)
def _minimum(points, lowest):
    """Write the minimum of each axis."""
    n, d = points.shape
    for axis in range(d):
        low = np.inf
        for i in range(n):
            low = min(low, np.float64(points[i, axis]))
        lowest[axis] = low


@njit(cache=True, nogil=True)
def _discretise(points, origin, size, cells):
    """Write floor((points - origin) / size); return how many do not fit in an int32."""
    n, d = points.shape
    num_far = 0
    for axis in range(d):
        start = origin[axis]
        for i in range(n):
            cell = np.floor((np.float64(points[i, axis]) - start) / size)
            fits = abs(cell) <= MAX_INDEX
            num_far += not fits
            cells[i, axis] = np.int32(cell if fits else 0.0)
    return num_far


@njit(cache=True, nogil=True)
def _number_cells(cells, slots, first, inverse):
    """Number distinct rows by first appearance; return how many there are.

    `slots` is a hash table with open addressing: a power of two entries, -1 where free, else the
    number of a voxel, whose row is `cells[first[number]]`. Comparing rows instead of packed keys
    leaves the range of coordinates free.
    """
    n, d = cells.shape
    mask = len(slots) - 1
    count = 0
    for i in range(n):
        # 32 bits times 31 bits stay below 2^63, so plain Python integers agree.
        key = 0
        for axis in range(d):
            key = (key ^ (np.int64(cells[i, axis]) & 0xFFFFFFFF)) * 0x7FEB352D
            key = (key ^ (key >> 31)) & 0xFFFFFFFF
        slot = key & mask
        while True:
            number = slots[slot]
            if number < 0:
                number = count
                slots[slot] = number
                first[number] = i
                count += 1
                break
            row = first[number]
            same = True
            for axis in range(d):
                same &= cells[i, axis] == cells[row, axis]
            if same:
                break
            slot = (slot + 1) & mask
        inverse[i] = number
    return count


@njit(cache=True, nogil=True)
def _keep_highest(score, inverse, indices):
    """Replace the kept point of each voxel by the one with the highest score."""
    for i in range(len(inverse)):
        number = inverse[i]
        if score[i] > score[indices[number]]:
            indices[number] = i
