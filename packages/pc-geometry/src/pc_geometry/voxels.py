"""Voxels: which one a point is in, one point for each, and where a voxel is in a list."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import numpy as np
from jaxtyping import Float, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel
from pc_geometry.keys import (
    MAX_INDEX,
    cell_keys,
    make_grid,
    number_keys,
    point_keys,
)


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
    points = require_points(points)
    grid = make_grid(points, "voxel_size", voxel_size, origin)
    offset = points - grid.origin  # float64, as the origin is
    offset /= grid.sizes
    return np.floor(offset, out=offset).astype(np.int64)


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
    indices, inverse = _number_voxels(points, "voxel_size", voxel_size, None)
    if rng is not None:
        _keep_highest(rng.random(len(points)), inverse, indices)
    return indices, inverse


def occupied_volumes(
    points: Float[np.ndarray, "n 3"],
    size: float | tuple[float, float, float],
    *,
    origin: Float[np.ndarray, " 3"] | None = None,
    min_points: int = 1,
) -> Int64[np.ndarray, " n"]:
    """Number the occupied volumes of a scene, and tell which one each point is in.

    Volumes are boxes of a grid that starts at `origin`, numbered 0, 1, 2, ... by first appearance
    in `points`, without holes. Call it on the scan as recorded: augmented views then share the
    volumes of their points.

    Args:
        points: Positions.
        size: Edge of a volume, or its edges along x, y and z, in the unit of `points`.
        origin: A corner of the grid; the per-axis minimum if not given. A random one, drawn for
            each pass over the data, keeps the borders from always cutting the same things.
        min_points: Volumes with fewer points count as empty: their points get -1.

    Raises:
        ValueError: If `size` or `min_points` is not positive, a coordinate is not finite, or a
            volume is more than 2^31 - 1 from the origin.

    Source: SSPL (Zhang et al., NeurIPS 2022), section 3.1, which fixes neither size nor origin; it
        reports about 300 occupied volumes a scene. `min_points` is ours: pooling over a crop of a
        volume needs some points.

    >>> scene = np.float32([[0, 0, 0], [9, 0, 0], [1, 1, 1], [9, 1, 0]])
    >>> occupied_volumes(scene, 2.0).tolist()
    [0, 1, 0, 1]
    """
    points = require_points(points, dims=(3,))
    min_points = require_count("min_points", min_points)
    first, volume = _number_voxels(points, "size", size, origin)
    if min_points == 1:
        return volume
    large = np.bincount(volume, minlength=len(first)) >= min_points
    return np.where(large, np.cumsum(large) - 1, -1)[volume]


def find_voxels(
    cells: Int64[np.ndarray, "n d"], query: Int64[np.ndarray, "m d"]
) -> Int64[np.ndarray, " m"]:
    """Find voxels by their integer coordinates.

    Time and memory grow with n + m, never with the volume.

    Args:
        cells: Coordinates as `voxel_coordinates` gives them; any number of axes, so a leading
            column may hold the scan of a batch.
        query: The voxels to look for.

    Returns:
        The position in `cells` of each queried voxel, the lowest among equal ones, -1 where there
        is none.

    Raises:
        ValueError: If the numbers of axes differ, the entries are not integers, or one is more than
            2^31 - 1 from 0.

    >>> find_voxels(np.array([[0, 0], [2, 5]]), np.array([[2, 5], [5, 2]])).tolist()
    [1, -1]
    """
    if cells.ndim != 2 or query.ndim != 2 or cells.shape[1] != query.shape[1]:
        raise ValueError(
            "cells and query must have shapes [n d] and [m d] with the same d, got "
            f"{cells.shape} and {query.shape}"
        )
    if cells.dtype.kind not in "iu" or query.dtype.kind not in "iu":
        raise ValueError(
            f"cells and query must be integers, got {cells.dtype} and {query.dtype}; "
            "`voxel_coordinates` gives them"
        )
    both = np.concatenate([cells, query])  # float64 where one is uint64, exact up to the limit
    if both.size and max(-int(both.min()), int(both.max())) > MAX_INDEX:
        raise ValueError(
            f"cells and query must be at most {MAX_INDEX} from 0, got entries from {both.min()} to "
            f"{both.max()}"
        )
    first, number = number_keys(cell_keys(both.astype(np.int64, copy=False)))
    found = first[number[len(cells) :]]
    return np.where(found < len(cells), found, -1)


def _number_voxels(
    points: np.ndarray, name: str, size: float | tuple[float, ...], origin: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first point of each occupied voxel, and the number of each point's voxel."""
    return number_keys(point_keys(points, make_grid(points, name, size, origin)))


@kernel
def _keep_highest(score, inverse, indices):
    """Replace the kept point of each voxel by the one with the highest score."""
    for i in range(len(inverse)):
        number = inverse[i]
        if score[i] > score[indices[number]]:
            indices[number] = i
