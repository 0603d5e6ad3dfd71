"""Clusters of points within a radius, whose neighbours are looked up in the range image."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import math

import numpy as np
from jaxtyping import Float, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel
from pc_geometry.grid import as_columns, build_grid, require_radius
from pc_geometry.range_view import range_image

_ROUNDING = 1e-9
"""Radians added to an angle, far above what rounding takes from it."""


def cluster_range_image(
    points: Float[np.ndarray, "n 3"],
    radius: float,
    *,
    min_points: int = 1,
    beams: int = 64,
    columns: int = 2048,
    max_window: tuple[int, int] | None = None,
) -> Int64[np.ndarray, " n"]:
    """Group points that are connected by steps of at most the radius, with a range image's help.

    All points are sorted into the pixels of the range image, hidden ones too. A cluster grows from
    its first point: what may lie within the radius of a point is in a window of pixels around it,
    which widens as the point comes closer, and there each point is looked at until it is in a
    cluster. No neighbour is missed, so the result equals that of `cluster_radius` and the size of
    the image is a matter of speed alone, unless `max_window` cuts windows short.

    Args:
        points: Positions in the sensor's frame, z up.
        radius: Longest step within a cluster, in the unit of `points`.
        min_points: Clusters with fewer points are dropped.
        beams: Rows of the image, over the elevations that occur.
        columns: Columns of the image, over the full turn.
        max_window: How many rows up and down, and columns left and right, a window reaches at
            most; steps beyond it do not count. None for no limit.

    Returns:
        Cluster of each point, numbered from 0 by first appearance, -1 in dropped clusters.

    Raises:
        ValueError: If `radius` is not positive and finite, a count is not positive, `max_window` is
            negative, or a coordinate is not finite.

    Source: cross-modal contrastive units (Cai et al., 2024), section II-B: all points within a
        radius are clustered "in the range image" with a k-d tree, after radially bounded nearest
        neighbours (Klasing et al., ICRA 2008). Image and window are not printed; differs in having
        no tree: the pixels are the index.

    >>> street = np.float32([[5, 0, 0], [-5, 0.3, 0], [5, 0.9, 0], [-5, -0.3, 0]])
    >>> cluster_range_image(street, 1.0).tolist()
    [0, 1, 0, 1]
    """
    points = require_points(points, dims=(3,))
    radius = require_radius(radius)
    min_points = require_count("min_points", min_points)
    beams, columns = require_count("beams", beams), require_count("columns", columns)
    window = (beams, columns) if max_window is None else max_window
    most = [require_count("a side of max_window", side, least=0) for side in window]
    labels = np.full(len(points), -1, np.int64)
    if not len(points):
        return labels
    xyz = as_columns(points)
    flat = np.hypot(xyz[0], xyz[1])
    elevation = np.arctan2(xyz[2], flat)
    row_scale, column_scale = beams / max(np.ptp(elevation), _ROUNDING), columns / (2 * math.pi)
    rows = ((elevation.max() - elevation) * row_scale).astype(np.int64)
    _, _, pixel = range_image(points, beams, columns, rows=np.minimum(rows, beams - 1))
    pixel = np.maximum(pixel, 0)  # the sensor itself is near only to what looks everywhere
    reach = np.stack(
        [
            _reach(np.hypot(flat, xyz[2]), radius, row_scale, most[0]),
            _reach(flat, radius, column_scale, most[1]),
        ]
    )
    grid = build_grid(xyz, pixel)
    start = np.append(0, np.cumsum(np.bincount(pixel, minlength=beams * columns)))
    _grow(
        grid.xyz,
        grid.order,
        pixel[grid.order].astype(np.int64),
        reach[:, grid.order],
        start,
        columns,
        radius * radius,
        min_points,
        labels,
    )
    return labels


def _reach(distance: np.ndarray, radius: float, scale: float, most: int) -> np.ndarray:
    """Return how many pixels away a point within the radius may be, at most `most`.

    Seen from the sensor, a ball of the radius spans asin(radius / distance) to either side: in
    elevation by the distance in space, in azimuth by the horizontal one.
    """
    ratio = radius * (1 + _ROUNDING) / np.maximum(distance, radius)
    angle = np.where(ratio >= 1, math.pi, np.arcsin(np.minimum(ratio, 1))) + _ROUNDING
    return np.minimum(angle * scale + 1, most).astype(np.int64)


@kernel
def _grow(xyz, order, pixel, reach, start, columns, limit, min_points, labels):
    """Write the cluster of each point; see `cluster_range_image`.

    Points are sorted by pixel. `free[p]` leads to the first point from p on that is in no cluster
    yet, so those that are cost nothing, however often windows pass over them.
    """
    n = len(order)
    place = np.empty(n, np.int64)
    for p in range(n):
        place[order[p]] = p
    free = np.arange(n + 1)
    queue = np.empty(n, np.int64)
    count = 0
    for seed in place:
        if free[seed] != seed:
            continue
        queue[0] = seed
        free[seed] = seed + 1
        head, tail = 0, 1
        while head < tail:
            tail = _look_around(
                xyz, queue[head], pixel, reach, start, columns, limit, free, queue, tail
            )
            head += 1
        if tail >= min_points:
            for p in queue[:tail]:
                labels[order[p]] = count
            count += 1


@kernel
def _look_around(xyz, p, pixel, reach, start, columns, limit, free, queue, tail):
    """Append the free points within the limit of point p from the window around its pixel."""
    row, column = pixel[p] // columns, pixel[p] % columns
    high, low = row - reach[0, p], row + reach[0, p]
    left, right = column - reach[1, p], column + reach[1, p]
    if right - left >= columns:
        left, right = 0, columns - 1
    for r in range(max(high, 0), min(low + 1, (len(start) - 1) // columns)):
        base = r * columns
        first, last = start[base + max(left, 0)], start[base + min(right, columns - 1) + 1]
        tail = _take(xyz, p, first, last, limit, free, queue, tail)
        if left < 0:  # behind the sensor the image goes on at its other side
            first, last = start[base + left + columns], start[base + columns]
            tail = _take(xyz, p, first, last, limit, free, queue, tail)
        elif right >= columns:
            first, last = start[base], start[base + right - columns + 1]
            tail = _take(xyz, p, first, last, limit, free, queue, tail)
    return tail


@kernel
def _take(xyz, p, first, last, limit, free, queue, tail):
    """Append the free points of [first, last) within the limit of point p; return the new end."""
    x, y, z = xyz[0, p], xyz[1, p], xyz[2, p]
    q = _next_free(free, first)
    while q < last:
        dx, dy, dz = xyz[0, q] - x, xyz[1, q] - y, xyz[2, q] - z
        if dx * dx + dy * dy + dz * dz <= limit:
            queue[tail] = q
            tail += 1
            free[q] = q + 1
        q = _next_free(free, q + 1)
    return tail


@kernel
def _next_free(free, p):
    """Find the first free point from p on and shorten the way to it."""
    while free[p] != p:
        free[p] = free[free[p]]
        p = free[p]
    return p
