"""The ground of a LiDAR scan as planes in concentric zones."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import math

import numpy as np
from jaxtyping import Bool, Float

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel
from pc_geometry.eigen import diagonalise
from pc_geometry.ground import azimuth_sector, require_nonnegative, require_polar_range

NUM_RINGS = np.array([2, 4, 4, 4])
"""Rings of equal width in each zone, from the sensor outwards."""

NUM_SECTORS = np.array([16, 32, 54, 32])
"""Sectors of azimuth in each zone."""

FIRST_PATCH = np.concatenate([[0], np.cumsum(NUM_RINGS * NUM_SECTORS)])
"""Number of the first patch of each zone, and the number of patches."""

RING = np.repeat(np.arange(NUM_RINGS.sum()), np.repeat(NUM_SECTORS, NUM_RINGS))
"""Ring of each patch."""

MAX_ELEVATION = np.array([0.523, 0.746, 0.879, 1.125])
"""Mean height over the expected ground, in metres, from which a patch of the innermost rings must
be flat."""

MAX_VARIATION = np.array([0.0005, 0.000725, 0.001, 0.001])
"""Surface variation below which an elevated patch of those rings is flat."""

MAX_GRADE = 0.15
"""Mean height over the expected ground from which a patch of the outer rings has no ground, as a
share of its range: roofs and treetops are flat as well."""

MAX_DEPTH = 1.0
"""How far below the expected ground the innermost zone fits planes to points, in metres: what
is deeper may be reflections."""

WALL_SEED_HEIGHT = 0.25
WALL_DISTANCE = 0.1
"""Height of the seeds of a wall over the lowest points, and reach of its plane, in metres."""

MIN_VARIANCE = 1e-10
"""Variance up to which points are all at one place, in square metres."""

MIN_SPREAD = 1e-6
"""Ratio of the second to the first variance up to which points are on a line, not in a plane."""


def segment_ground_zones(
    points: Float[np.ndarray, "n 3"],
    *,
    sensor_height: float,
    min_range: float = 2.7,
    max_range: float = 80.0,
    max_distance: float = 0.125,
    max_slope: float = 0.5,
    seed_height: float = 0.125,
    num_lowest: int = 20,
    num_iterations: int = 3,
    min_points: int = 10,
) -> Bool[np.ndarray, " n"]:
    """Mark the points on the ground, by planes fitted to patches of concentric zones.

    Four zones around the sensor are cut into rings and sectors, with patches that are large where
    points are few. In each patch walls are set aside, then a plane is fitted to the lowest points
    and refitted to all points that are not above it. The patch has ground if that plane is upright
    enough and low, or, near the sensor, flat. Ground are the points up to `max_distance` above the
    plane and all below it. Computed in float64.

    What it misses are slopes on which a patch holds two beams far apart, as with 32 of them or
    fewer: the plane is then settled by the lower one alone. `segment_ground` follows those.

    Args:
        points: Positions in metres, z up, with the sensor's axis at x = y = 0.
        sensor_height: Height of the origin of `points` above the ground, in metres: that of the
            sensor in a sensor frame, 0 in a vehicle frame with z = 0 on the ground.
        min_range: Points with less horizontal range are not ground, in metres.
        max_range: Points with this horizontal range or more are not ground, in metres.
        max_distance: Distance over the plane below which a point is ground, in metres.
        max_slope: Steepest plane, rise over run.
        seed_height: How far above the mean of the lowest points the first plane takes points, in
            metres.
        num_lowest: How many points that mean is taken over.
        num_iterations: How often a plane is fitted.
        min_points: A patch with fewer points has no ground.

    Raises:
        ValueError: If a parameter is out of its range or a coordinate is not finite.

    Source: Patchwork (Lim, Oh and Myung, RA-L 2021): zones, plane fit, and uprightness, elevation
        and flatness with its fixed thresholds; Patchwork++ (Lee, Lim and Myung, IROS 2022):
        vertical planes. Left out of the latter is what needs more than one scan of positions: the
        thresholds that adapt over time with the temporal revert of patches, and the removal of
        reflections by intensity. Differs in four points: a fixed depth keeps reflections out of
        the planes near the sensor, points that are exactly on a line get the most upright plane
        through it, the outer rings have a limit of height too, and the steepest plane is at 27
        degrees instead of 45.

    >>> x, y = np.meshgrid(np.linspace(4, 9, 30), np.linspace(-1, 1, 20))
    >>> road = np.stack([x.ravel(), y.ravel(), np.full(600, -1.7)], axis=1)
    >>> roof = np.array([[4.0, 0.0, -0.3], [4.2, 0.0, -0.3]])
    >>> ground = segment_ground_zones(np.concatenate([road, roof]), sensor_height=1.7)
    >>> np.flatnonzero(~ground).tolist()
    [600, 601]
    """
    points = require_points(points, dims=(3,))
    require_polar_range(sensor_height, min_range, max_range)
    require_nonnegative(max_distance=max_distance, max_slope=max_slope, seed_height=seed_height)
    counts = (
        require_count("num_lowest", num_lowest),
        require_count("num_iterations", num_iterations),
        require_count("min_points", min_points, least=3),
    )
    n = len(points)
    patch = np.empty(n, np.int32)
    outwards = np.array([0, 1 / 8, 1 / 4, 1 / 2, 1])
    edges = min_range * (1 - outwards) + max_range * outwards
    _assign(points, edges, patch)
    start = np.zeros(FIRST_PATCH[-1] + 1, np.int64)
    order = np.empty(n, np.int32)
    xyz = np.empty((n, 3))
    _sort_by_patch(points, patch, start, order, xyz)
    ground = np.zeros(n, np.bool_)
    min_upright = 1 / math.hypot(1, max_slope)
    limits = float(max_distance), min_upright, float(seed_height)
    elevation = _max_elevation(edges) - float(sensor_height)
    _fit_patches(xyz, start, -float(sensor_height), elevation, limits, counts, order, ground)
    return ground


def _max_elevation(edges: np.ndarray) -> np.ndarray:
    """Return for each ring the mean height over the expected ground up to which a patch is low."""
    width = np.repeat(np.diff(edges) / NUM_RINGS, NUM_RINGS)
    middle = edges[0] + np.cumsum(width) - width / 2
    return np.concatenate([MAX_ELEVATION, MAX_GRADE * middle[len(MAX_ELEVATION) :]])


@kernel
def _assign(points, edges, patch):
    """Write the patch of each point, -1 if out of range."""
    for i in range(len(points)):
        x, y = np.float64(points[i, 0]), np.float64(points[i, 1])
        d = math.sqrt(x * x + y * y)
        patch[i] = -1
        if edges[0] <= d < edges[4]:
            zone = 0
            while d >= edges[zone + 1]:
                zone += 1
            inner, outer = edges[zone], edges[zone + 1]
            num_rings, num_sectors = NUM_RINGS[zone], NUM_SECTORS[zone]
            ring = min(int((d - inner) / (outer - inner) * num_rings), num_rings - 1)
            patch[i] = FIRST_PATCH[zone] + ring * num_sectors + azimuth_sector(x, y, num_sectors)


@kernel
def _sort_by_patch(points, patch, start, order, xyz):
    """Write the points in range patch by patch: where patches start, indices and positions."""
    for i in range(len(points)):
        if patch[i] >= 0:
            start[patch[i] + 1] += 1
    for k in range(1, len(start)):
        start[k] += start[k - 1]
    free = start[:-1].copy()
    for i in range(len(points)):
        if patch[i] >= 0:
            at = free[patch[i]]
            free[patch[i]] += 1
            order[at] = i
            for axis in range(3):
                xyz[at, axis] = points[i, axis]


@kernel
def _fit_patches(xyz, start, expected, max_height, limits, counts, order, ground):
    """Mark the ground of every patch.

    `expected` is the height of the ground under the sensor, `max_height` that of a low patch in
    each ring.
    """
    num_lowest, num_iterations, min_points = counts
    max_distance, min_upright, seed_height = limits
    heights = np.empty(num_lowest)
    matrix, axes = np.empty((3, 3)), np.empty((3, 3))
    free, chosen = np.ones(len(xyz), np.bool_), np.zeros(len(xyz), np.bool_)
    plane = np.empty(6)
    for k in range(len(start) - 1):
        lo, hi = start[k], start[k + 1]
        if hi - lo < min_points:
            continue
        part, loose, near = xyz[lo:hi], free[lo:hi], chosen[lo:hi]
        floor = _floor(part, expected) if k < FIRST_PATCH[1] else -np.inf
        for _ in range(num_iterations):
            _choose_lowest(part, loose, floor, heights, WALL_SEED_HEIGHT, near)
            _fit_plane(part, near, matrix, axes, plane)
            if plane[2] >= min_upright:
                break
            _set_aside(part, plane, loose)
        _choose_lowest(part, loose, floor, heights, seed_height, near)
        for _ in range(num_iterations):
            _fit_plane(part, near, matrix, axes, plane)
            _choose_below(part, loose, floor, plane, max_distance, near)
        _choose_below(part, loose, -np.inf, plane, max_distance, near)
        ring = RING[k]
        low = plane[4] < max_height[ring]
        flat = ring < len(MAX_VARIATION) and plane[5] < MAX_VARIATION[ring]
        if plane[2] >= min_upright and (low or flat):
            for j in range(lo, hi):
                ground[order[j]] = chosen[j]


@kernel
def _floor(xyz, expected):
    """Return the height below which points are reflections: none where all would be, on a ramp."""
    floor = expected - MAX_DEPTH
    for i in range(len(xyz)):
        if xyz[i, 2] >= floor:
            return floor
    return -np.inf


@kernel
def _choose_lowest(xyz, free, floor, heights, margin, chosen):
    """Choose free points from the floor up to `margin` above the mean height of the lowest."""
    size = 0
    for i in range(len(xyz)):
        z = xyz[i, 2]
        if free[i] and z >= floor and (size < len(heights) or z < heights[size - 1]):
            size = min(size + 1, len(heights))
            j = size - 1
            while j > 0 and heights[j - 1] > z:
                heights[j] = heights[j - 1]
                j -= 1
            heights[j] = z
    mean = 0.0
    for j in range(size):
        mean += heights[j] / size
    for i in range(len(xyz)):
        chosen[i] = free[i] and floor <= xyz[i, 2] < mean + margin


@kernel
def _choose_below(xyz, free, floor, plane, max_distance, chosen):
    """Choose the free points from the floor up to `max_distance` above the plane."""
    for i in range(len(xyz)):
        above = plane[0] * xyz[i, 0] + plane[1] * xyz[i, 1] + plane[2] * xyz[i, 2] - plane[3]
        chosen[i] = free[i] and xyz[i, 2] >= floor and above < max_distance


@kernel
def _set_aside(xyz, plane, free):
    """Take the points on a wall out of the free ones."""
    for i in range(len(xyz)):
        beside = plane[0] * xyz[i, 0] + plane[1] * xyz[i, 1] + plane[2] * xyz[i, 2] - plane[3]
        if abs(beside) < WALL_DISTANCE:
            free[i] = False


@kernel
def _fit_plane(xyz, chosen, matrix, axes, plane):
    """Write the plane of least squares: upward normal, offset, mean height, surface variation.

    Without points it is a plane that is not upright and has nothing close to it or below it.
    """
    n = 0
    x0, y0, z0 = xyz[0, 0], xyz[0, 1], xyz[0, 2]
    x = y = z = xx = xy = xz = yy = yz = zz = 0.0
    for i in range(len(xyz)):
        if chosen[i]:
            dx, dy, dz = xyz[i, 0] - x0, xyz[i, 1] - y0, xyz[i, 2] - z0
            n += 1
            x, y, z = x + dx, y + dy, z + dz
            xx, xy, xz = xx + dx * dx, xy + dx * dy, xz + dx * dz
            yy, yz, zz = yy + dy * dy, yz + dy * dz, zz + dz * dz
    if n == 0:
        for k in range(6):
            plane[k] = -np.inf if k == 3 else 0.0
        return
    x, y, z = x / n, y / n, z / n
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = xx / n - x * x, yy / n - y * y, zz / n - z * z
    matrix[0, 1], matrix[0, 2], matrix[1, 2] = xy / n - x * y, xz / n - x * z, yz / n - y * z
    matrix[1, 0], matrix[2, 0], matrix[2, 1] = matrix[0, 1], matrix[0, 2], matrix[1, 2]
    diagonalise(matrix, axes)
    plane[5] = _write_normal(matrix, axes, plane)
    plane[3] = plane[0] * (x + x0) + plane[1] * (y + y0) + plane[2] * (z + z0)
    plane[4] = z + z0


@kernel
def _write_normal(variances, axes, plane):
    """Write the upward normal; return the share of the variance that is along it.

    Points on a line, or at one place, get the most upright of the planes that hold them.
    """
    first = last = 0
    for k in range(1, 3):
        if variances[k, k] > variances[first, first]:
            first = k
        if variances[k, k] <= variances[last, last]:
            last = k
    middle = 3 - first - last
    if variances[first, first] <= MIN_VARIANCE:
        plane[0], plane[1], plane[2] = 0.0, 0.0, 1.0
        return 0.0
    if variances[middle, middle] <= MIN_SPREAD * variances[first, first]:
        x, y, z = axes[0, first], axes[1, first], axes[2, first]
        length = math.sqrt(x * x + y * y)
        if length > 0.0:
            plane[0], plane[1], plane[2] = -z * x / length, -z * y / length, length
        else:
            plane[0], plane[1], plane[2] = 1.0, 0.0, 0.0
    else:
        sign = math.copysign(1.0, axes[2, last])
        for k in range(3):
            plane[k] = sign * axes[k, last]
    return variances[last, last] / (variances[0, 0] + variances[1, 1] + variances[2, 2])
