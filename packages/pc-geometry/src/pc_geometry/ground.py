"""The ground of a LiDAR scan as lines in polar segments."""
# ruff: noqa: ANN001, ANN201, ANN202  (numba infers the types of kernels)

import math

import numpy as np
from jaxtyping import Bool, Float

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel

LINE_MARGIN = 0.1
"""How far a line reaches beyond its first and last point, in metres."""

MAX_SEGMENTS, MAX_BINS = 4096, 1024
"""Most segments, and bins in each: cells are stored densely, and segments searched one by one."""

ATAN = (
    0.9999744910973762,
    -0.33256831655861335,
    0.1932352922754816,
    -0.11572944139564927,
    0.05195053207881153,
    -0.011465809673299538,
)
"""Odd polynomial (x, x^3, ... x^11) within 2e-6 of the arctangent on [0, 1]."""


def segment_ground(
    points: Float[np.ndarray, "n 3"],
    *,
    sensor_height: float,
    min_range: float = 2.5,
    max_range: float = 80.0,
    num_segments: int = 180,
    num_bins: int = 120,
    max_distance: float = 0.15,
    max_slope: float = 0.2,
    max_fit_error: float = 0.05,
    long_threshold: float = 5.0,
    max_long_height: float = 0.1,
    max_start_height: float = 0.4,
    line_search_angle: float = 0.3,
) -> Bool[np.ndarray, " n"]:
    """Mark the points on the ground, by lines fitted outwards through the lowest points.

    The surroundings are cut into segments of azimuth and each segment into bins of horizontal
    range. Walking outwards through the lowest point of every bin, a line takes up points as long as
    it fits all of them. A point is on the ground if it is close to a line of its own segment, or,
    where that has none at this range, of the nearest segments that do. Computed in float64.

    The defaults suit a car with a LiDAR of 32 to 128 beams. They find planar ground: kerbs and
    grass up to `max_distance` count as ground, points below the ground do not.

    Args:
        points: Positions in metres, z up, with the sensor's axis at x = y = 0.
        sensor_height: Height of the origin of `points` above the ground, in metres: that of the
            sensor in a sensor frame, 0 in a vehicle frame with z = 0 on the ground. Only the start
            of the first line depends on it, with a tolerance of `max_start_height`.
        min_range: Points with less horizontal range are not ground, in metres.
        max_range: Points with this horizontal range or more are not ground, in metres.
        num_segments: Number of segments of azimuth, at most 4096.
        num_bins: Number of bins of range in a segment, at most 1024.
        max_distance: Vertical distance to a line below which a point is ground, in metres.
        max_slope: Steepest line, rise over run.
        max_fit_error: Largest vertical distance between a line and a point that it is fitted to,
            in metres.
        long_threshold: Distance in range between consecutive lowest points that makes a gap, in
            metres. No line starts across a gap.
        max_long_height: Largest height over or under the line for points beyond a gap, in metres.
        max_start_height: Largest step in height from the end of a line, or the ground under the
            sensor, to the start of the next line, in metres.
        line_search_angle: How far to either side to look for a line, exclusive, in radians.

    Raises:
        ValueError: If a parameter is out of its range or a coordinate is not finite.

    Source: Himmelsbach, von Hundelshausen and Wuensche, Fast Segmentation of 3D Point Clouds for
        Ground Vehicles (IV 2010). Gaps and the search in other segments, which the paper does not
        have, follow the usual open implementation, with two differences: what counts as beyond a
        gap is forgotten whenever a line starts anew, and of the lines on either side the closer
        one counts. There is no minimum slope.

    >>> x = np.arange(3.0, 9.0)
    >>> road = np.stack([x, np.zeros(6), np.full(6, -1.7)], axis=1)
    >>> post = np.array([[8.0, 0.0, -1.7], [8.0, 0.0, -1.0], [8.0, 0.0, -0.3]])
    >>> segment_ground(np.concatenate([road, post]), sensor_height=1.7).tolist()
    [True, True, True, True, True, True, True, False, False]
    """
    points = require_points(points, dims=(3,))
    require_polar_range(sensor_height, min_range, max_range)
    num_segments = require_count("num_segments", num_segments, most=MAX_SEGMENTS)
    num_bins = require_count("num_bins", num_bins, most=MAX_BINS)
    require_nonnegative(
        max_distance=max_distance,
        max_slope=max_slope,
        max_fit_error=max_fit_error,
        long_threshold=long_threshold,
        max_long_height=max_long_height,
        max_start_height=max_start_height,
        line_search_angle=line_search_angle,
    )
    n = len(points)
    cell = np.empty(n, np.int32)
    profile = np.empty((n, 2))
    _locate(points, num_segments, num_bins, (float(min_range), float(max_range)), cell, profile)
    low = np.full((num_segments * num_bins, 2), np.inf)
    _keep_lowest(profile, cell, low)
    lines = np.empty((num_segments, num_bins // 2 + 1, 4))
    num_lines = np.zeros(num_segments, np.int64)
    limits = (max_slope, max_fit_error, long_threshold, max_long_height, max_start_height)
    _fit_lines(
        low.reshape(num_segments, num_bins, 2),
        -float(sensor_height),
        tuple(map(float, limits)),
        lines,
        num_lines,
    )
    reach = math.ceil(min(line_search_angle, math.pi) * num_segments / (2 * math.pi)) - 1
    ground = np.empty(n, np.bool_)
    _classify(profile, cell, lines, num_lines, num_bins, reach, float(max_distance), ground)
    return ground


def require_polar_range(sensor_height: float, min_range: float, max_range: float) -> None:
    """Check the frame and the ring around the sensor in which ground is looked for.

    Raises:
        ValueError: If `sensor_height` is not finite or not 0 <= min_range < max_range < infinity.
    """
    if not math.isfinite(sensor_height):
        raise ValueError(f"sensor_height must be finite, got {sensor_height}")
    if not 0 <= min_range < max_range < math.inf:
        raise ValueError(
            "ranges must satisfy 0 <= min_range < max_range < infinity, "
            f"got min_range {min_range} and max_range {max_range}"
        )


def require_nonnegative(**limits: float) -> None:
    """Check limits by name.

    Raises:
        ValueError: If one is negative or not finite.
    """
    for name, value in limits.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")


@kernel
def azimuth_sector(x, y, num_sectors):
    """Return which of `num_sectors` equal sectors, counted from +x towards +y, holds (x, y).

    Exactly floor(azimuth / width): a polynomial decides, and the library function where the
    polynomial is too close to a border to tell. The origin is in sector 0.
    """
    near, far = min(abs(x), abs(y)), max(abs(x), abs(y))
    if far == 0.0:
        return 0
    r = near / far
    u = r * r
    angle = ATAN[4] + u * ATAN[5]
    angle = ATAN[2] + u * (ATAN[3] + u * angle)
    angle = r * (ATAN[0] + u * (ATAN[1] + u * angle))
    if abs(y) > abs(x):
        angle = 0.5 * math.pi - angle
    if x < 0:
        angle = math.pi - angle
    if y < 0:
        angle = 2 * math.pi - angle
    position = angle * (num_sectors / (2 * math.pi))
    fraction = position - math.floor(position)
    doubt = 1e-6 * num_sectors
    if fraction < doubt or fraction > 1 - doubt:
        angle = math.atan2(y, x)
        if angle < 0:
            angle += 2 * math.pi
        position = angle * (num_sectors / (2 * math.pi))
    return min(int(position), num_sectors - 1)


@kernel
def _locate(points, num_segments, num_bins, spans, cell, profile):
    """Write the polar cell (-1 if out of range) and (range, height) of each point."""
    min_range, max_range = spans
    scale = num_bins / (max_range - min_range)
    for i in range(len(points)):
        x, y = np.float64(points[i, 0]), np.float64(points[i, 1])
        d = math.sqrt(x * x + y * y)
        profile[i, 0] = d
        profile[i, 1] = points[i, 2]
        cell[i] = -1
        if min_range <= d < max_range:
            bin_ = min(int((d - min_range) * scale), num_bins - 1)
            cell[i] = azimuth_sector(x, y, num_segments) * num_bins + bin_


@kernel
def _keep_lowest(profile, cell, low):
    """Write (range, height) of the lowest point of each cell; the first one of equal height."""
    for i in range(len(profile)):
        c = cell[i]
        if c >= 0 and profile[i, 1] < low[c, 1]:
            low[c, 0] = profile[i, 0]
            low[c, 1] = profile[i, 1]


@kernel
def _fit_lines(low, ground, limits, lines, num_lines):
    """Write the lines of each segment as (first range, last range, slope, height at range 0)."""
    num_segments, num_bins = low.shape[:2]
    chain = np.empty((num_bins, 2))
    for segment in range(num_segments):
        size = 0
        for b in range(num_bins):
            if low[segment, b, 1] < np.inf:
                chain[size, 0] = low[segment, b, 0]
                chain[size, 1] = low[segment, b, 1]
                size += 1
        num_lines[segment] = _fit_chain(chain[:size], ground, limits, lines[segment])


@kernel
def _fit_chain(chain, ground, limits, lines):
    """Write the lines through consecutive points of one segment; return how many.

    The current line holds the points from `first` up to `i`, the one that is tried next. `ground`
    is the height at which the next line may start.
    """
    max_slope, max_error, long_threshold, max_long_height, max_start_height = limits
    count, first, i = 0, 0, 1
    is_long = False
    slope = offset = 0.0
    while i < len(chain):
        gap = chain[i, 0] - chain[i - 1, 0]
        is_long |= gap > long_threshold
        if i - first < 2:
            level = abs(chain[i - 1, 1] - ground) < max_start_height
            if not (level and gap < long_threshold):
                first = i
                is_long = False
            i += 1
            continue
        step = abs(slope * chain[i, 0] + offset - chain[i, 1])
        if not is_long or (i - first > 2 and step <= max_long_height):
            new_slope, new_offset, error = _fit_line(chain[first : i + 1])
            if error <= max_error and abs(new_slope) <= max_slope:
                slope, offset = new_slope, new_offset
                i += 1
                continue
        if i - first > 2:
            ground = _store(lines, count, chain[first:i], slope, offset)
            count += 1
        first = i - 1
        is_long = False
    if len(chain) - first > 2:
        _store(lines, count, chain[first:], slope, offset)
        count += 1
    return count


@kernel
def _store(lines, k, chain, slope, offset):
    """Write line `k`; return its height at the last point."""
    lines[k, 0] = chain[0, 0]
    lines[k, 1] = chain[-1, 0]
    lines[k, 2] = slope
    lines[k, 3] = offset
    return slope * chain[-1, 0] + offset


@kernel
def _fit_line(chain):
    """Return slope, height at range 0 and largest residual of the least-squares line."""
    n = len(chain)
    d_mean = z_mean = 0.0
    for k in range(n):
        d_mean += chain[k, 0]
        z_mean += chain[k, 1]
    d_mean /= n
    z_mean /= n
    dd = dz = 0.0
    for k in range(n):
        d = chain[k, 0] - d_mean
        dd += d * d
        dz += d * (chain[k, 1] - z_mean)
    slope = dz / dd
    offset = z_mean - slope * d_mean
    error = 0.0
    for k in range(n):
        error = max(error, abs(chain[k, 1] - slope * chain[k, 0] - offset))
    return slope, offset, error


@kernel
def _height(lines, count, d, z):
    """Return the vertical distance to the last line that covers range `d`, infinite if none."""
    for k in range(count - 1, -1, -1):
        if lines[k, 0] - LINE_MARGIN < d < lines[k, 1] + LINE_MARGIN:
            return abs(z - lines[k, 2] * d - lines[k, 3])
    return np.inf


@kernel
def _classify(profile, cell, lines, num_lines, num_bins, reach, max_distance, ground):
    """Write which points are close to a line of the nearest segment that has one."""
    num_segments = len(num_lines)
    for i in range(len(profile)):
        ground[i] = False
        if cell[i] < 0:
            continue
        d, height = profile[i, 0], profile[i, 1]
        own = cell[i] // num_bins
        nearest = _height(lines[own], num_lines[own], d, height)
        step = 1
        while nearest == np.inf and step <= reach:
            left, right = (own + step) % num_segments, (own - step) % num_segments
            nearest = min(
                _height(lines[left], num_lines[left], d, height),
                _height(lines[right], num_lines[right], d, height),
            )
            step += 1
        ground[i] = nearest < max_distance
