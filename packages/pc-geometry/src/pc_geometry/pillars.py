"""Pillars: columns of space over a square of the ground."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import math

import numpy as np
from jaxtyping import Float, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.boxes import list_members
from pc_geometry.compiling import kernel
from pc_geometry.keys import number_keys

MAX_PILLARS = 2**62
"""Most pillars of a grid, so that 64 bits number them."""


def pillarize(
    points: Float[np.ndarray, "n 3"],
    pillar_size: float,
    *,
    bounds: tuple[float, float, float, float, float, float],
    max_points: int | None = None,
    max_pillars: int | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Int64[np.ndarray, "p 2"]]:
    """Sort points into the occupied pillars of a bird's-eye grid, packed and without padding.

    A network encodes the kept points, pools them by pillar and scatters the result into an image
    of `pillar_grid(pillar_size, bounds)` pixels. Cells are computed in float64.

    Args:
        points: Positions, z up, metres.
        pillar_size: Side of a pillar.
        bounds: Lower x, y, z, then upper x, y, z of the space that counts; points on a lower bound
            are in, points on an upper one are out. The sides along x and y must be multiples of
            `pillar_size`.
        max_points: Most points of a pillar; those beyond are left out.
        max_pillars: Most pillars; those that appear after are left out.
        rng: Draws the order in which points come, so both limits strike at random; without it
            they come as in `points`.

    Returns:
        Indices of the kept points in ascending order, the pillar of each of them, and the (row,
        column) of each pillar: rows along y, columns along x. Pillars are numbered by first
        appearance, in the order that `rng` draws if it is given.

    Raises:
        ValueError: If `pillar_size` or a limit is not positive, `bounds` are empty or no multiple
            of `pillar_size`, or a coordinate is not finite.

    Source: PointPillars (Lang et al., CVPR 2019), section 2.1, and CenterPoint (Yin et al., CVPR
        2021): 0.32 m in (-74.88, -74.88, -2, 74.88, 74.88, 4), 20 points a pillar on Waymo.
        Differs in packing points instead of padding each pillar with zeros.

    >>> points = np.float32([[0.5, 3.5, 0], [9, 9, 9], [1.5, 0, 0], [0, 3, 1]])
    >>> indices, pillar, cells = pillarize(points, 1.0, bounds=(0, 0, -1, 2, 4, 2))
    >>> indices.tolist(), pillar.tolist(), cells.tolist()
    ([0, 2, 3], [0, 1, 0], [[3, 0], [0, 1]])
    """
    points = require_points(points, dims=(3,))
    num_rows, num_columns = pillar_grid(pillar_size, bounds)
    if max_points is not None:
        max_points = require_count("max_points", max_points)
    if max_pillars is not None:
        max_pillars = require_count("max_pillars", max_pillars)
    keys = np.empty(len(points), np.int64)
    _find_cells(points, np.array(bounds, np.float64), pillar_size, num_rows, num_columns, keys)
    indices = np.flatnonzero(keys >= 0)
    if rng is not None:
        indices = rng.permutation(indices)
    keys = keys[indices]
    first, pillar = number_keys(keys)
    cells = np.stack(np.divmod(keys[first], num_columns), axis=1)
    kept = np.ones(len(indices), np.bool_)
    if max_pillars is not None:
        kept = pillar < max_pillars
        cells = cells[:max_pillars]
    if max_points is not None:
        _limit_points(pillar, max_points, np.zeros(len(first), np.int64), kept)
    indices, pillar = indices[kept], pillar[kept]
    if rng is not None:
        of_point = np.full(len(points), -1)
        of_point[indices] = pillar
        indices = np.flatnonzero(of_point >= 0)
        pillar = of_point[indices]
    return indices, pillar, cells


def pillar_grid(
    pillar_size: float, bounds: tuple[float, float, float, float, float, float]
) -> tuple[int, int]:
    """Return the numbers of rows (along y) and columns (along x) of a grid of pillars.

    Raises:
        ValueError: As for `pillarize`.

    >>> pillar_grid(0.32, (-74.88, -74.88, -2, 74.88, 74.88, 4))
    (468, 468)
    """
    if not 0 < pillar_size < math.inf:
        raise ValueError(f"pillar_size must be positive and finite, got {pillar_size}")
    sides = np.subtract(bounds[3:], bounds[:3]) if len(bounds) == 6 else np.zeros(3)
    if not np.isfinite(sides).all() or not (sides > 0).all():
        raise ValueError(
            "bounds must be finite lower x, y, z, then upper x, y, z above them, got "
            f"{tuple(bounds)}"
        )
    columns, rows = sides[:2] / pillar_size
    if max(abs(columns - round(columns)), abs(rows - round(rows))) > 1e-3:
        raise ValueError(
            f"bounds must span a whole number of pillars of {pillar_size} along x and y, got "
            f"{columns:.3f} and {rows:.3f}"
        )
    num_rows, num_columns = round(rows), round(columns)
    if num_rows * num_columns > MAX_PILLARS:
        raise ValueError(
            f"bounds must hold at most {MAX_PILLARS} pillars, got {num_rows} x {num_columns}; "
            "take a larger pillar_size"
        )
    return num_rows, num_columns


def points_in_pillars(
    points: Float[np.ndarray, "n 3"],
    centers: Float[np.ndarray, "m 2"],
    size: float,
    *,
    num_threads: int = 1,
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " m+1"]]:
    """List the points in the square pillar around each centre, borders included.

    A point is in if |x - centre x| and |y - centre y| are at most size / 2, in float64. A point may
    be in several pillars.

    Args:
        points: Positions, z up.
        centers: (x, y) of each pillar's axis.
        size: Side of a pillar, in the unit of `points`.
        num_threads: Threads that share the points; 1 is right inside a data-loader worker.

    Returns:
        Indices of points and where those of each pillar start: pillar i holds the points
        `indices[splits[i]:splits[i + 1]]`, in ascending order.

    Raises:
        ValueError: If `size` or `num_threads` is not positive, a shape is wrong or a coordinate is
            not finite.

    Source: cross-modal self-supervised learning with effective contrastive units (Cai et al.,
        2024), section II-B: the context of a unit is all points in the pillar centred at it.

    >>> points = np.float32([[0, 0, 5], [1, 1, 0], [2, 0, 0]])
    >>> indices, splits = points_in_pillars(points, np.float32([[0.5, 0.5], [2, 0]]), 1.0)
    >>> indices.tolist(), splits.tolist()
    ([0, 1, 2], [0, 2, 3])
    """
    points = require_points(points, dims=(3,))
    centers = require_points(centers, name="centers", dims=(2,))
    if not 0 < size < math.inf:
        raise ValueError(f"size must be positive and finite, got {size}")
    boxes = np.zeros((len(centers), 7))
    boxes[:, :2] = centers
    boxes[:, 3:5] = size
    boxes[:, 5] = np.inf
    return list_members(points, boxes, num_threads)


@kernel
def _find_cells(points, bounds, size, num_rows, num_columns, keys):
    """Write row * num_columns + column of each point, -1 outside the bounds."""
    for i in range(len(points)):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        inside = (bounds[0] <= x) & (x < bounds[3]) & (bounds[1] <= y) & (y < bounds[4])
        inside &= (bounds[2] <= z) & (z < bounds[5])
        keys[i] = -1
        if inside:  # the quotient may round up to the number of cells
            column = min(np.int64((x - bounds[0]) / size), num_columns - 1)
            row = min(np.int64((y - bounds[1]) / size), num_rows - 1)
            keys[i] = row * num_columns + column


@kernel
def _limit_points(pillar, max_points, counts, kept):
    """Clear `kept` where a pillar has had `max_points` points before."""
    for i in range(len(pillar)):
        counts[pillar[i]] += 1
        if counts[pillar[i]] > max_points:
            kept[i] = False
