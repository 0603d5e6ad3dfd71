"""Range images: the view of a spinning LiDAR, one row a beam and one column an azimuth."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import math

import numpy as np
from jaxtyping import Float, Float32, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel

_NOTHING = 0x7FFFFFFFFFFFFFFF
"""What a pixel starts with: above the rank of any point."""

_UNSURE = -2

_BLOCK = 512
"""Points whose angles are guessed together, so that these are vector instructions."""

_GUESS_ERROR = 1e-5
"""Above the error of a guessed angle in radians, which is 2.2e-6."""


def range_image(
    points: Float[np.ndarray, "n 3"],
    beams: int | Float[np.ndarray, " b"],
    columns: int,
    *,
    fov_degrees: tuple[float, float] = (-25.0, 3.0),
    rows: Int64[np.ndarray, " n"] | None = None,
) -> tuple[
    Float32[np.ndarray, "rows columns"], Int64[np.ndarray, "rows columns"], Int64[np.ndarray, " n"]
]:
    """Project points on a sphere around the origin, keeping the closest one of each pixel.

    Row 0 looks highest. Column 0 begins straight behind the sensor (yaw pi, at -x), and columns
    go clockwise seen from above: left (+y) at a quarter, ahead (+x) at the middle, right at three
    quarters. Angles are those of float64 atan2 whatever the input.

    Args:
        points: Positions in the sensor's frame, z up, metres.
        beams: Number of rows, uniform in elevation over `fov_degrees`; or the elevation of each
            beam in degrees, in any order: a row a beam, sorted from the highest down, and each
            point goes to the nearest one (between two equally near ones to the lower).
        columns: Number of columns, over the full turn.
        fov_degrees: Elevation of the lower and the upper edge of the image, both included; used if
            `beams` is a number. The default is usual for the HDL-64E of KITTI.
        rows: Row of each point where the sensor tells (its ring, counted from the top), -1 for
            none. Elevations are then not looked at.

    Returns:
        The range image in metres, infinite where no point falls; the index of the point that each
        pixel shows (the lowest one at equal float32 range), -1 where there is none; and the flat
        pixel `row * columns + column` of each point, seen or hidden, -1 for points outside the
        field of view and at the origin. `values.ravel()[pixel]` takes an image back to the points.

    Raises:
        ValueError: If a number of rows or columns is not a positive integer, the field of view is
            empty or beyond +-90 degrees, `rows` does not fit, or a coordinate is not finite.

    Source: RangeNet++ (Milioto et al., IROS 2019), equation 1. Differs in leaving out points above
        and below the field of view, which it moves into the outermost rows.

    >>> ahead_and_left = np.float32([[4, 0, 0], [2, 0, 0], [0, 1, 0]])
    >>> image, index, pixel = range_image(ahead_and_left, 1, 4)
    >>> image.tolist(), index.tolist(), pixel.tolist()
    ([[inf, 1.0, 2.0, inf]], [[-1, 2, 1, -1]], [2, 2, 1])
    """
    points = require_points(points, dims=(3,))
    columns = require_count("columns", columns)
    num_rows = _require_rows(beams, fov_degrees)
    lower, upper = np.radians(fov_degrees)
    if isinstance(beams, np.ndarray):
        lower, upper = 0.0, 1.0  # not looked at
        rows = _nearest_beams(points, beams) if rows is None else rows
    fixed_rows = np.empty(0, np.int64)
    if rows is not None:
        if not np.can_cast(rows.dtype, np.int64, "same_kind"):
            raise ValueError(f"rows must be whole numbers, got {rows.dtype}; convert them yourself")
        fixed_rows = np.ascontiguousarray(rows, np.int64)
        if fixed_rows.shape != (len(points),):
            raise ValueError(f"rows must have shape ({len(points)},), got {fixed_rows.shape}")
        if len(points) and not -1 <= fixed_rows.min() <= fixed_rows.max() < num_rows:
            raise ValueError(
                f"rows must be in [-1, {num_rows - 1}], got {fixed_rows.min()} to "
                f"{fixed_rows.max()}"
            )
    ranks = np.full(num_rows * columns, _NOTHING)
    pixel = np.empty(len(points), np.int64)
    _project(points, fixed_rows, lower, upper, num_rows, columns, ranks, pixel)
    image = np.empty((num_rows, columns), np.float32)
    index = np.empty((num_rows, columns), np.int64)
    _unpack(ranks, image.reshape(-1).view(np.int32), index.reshape(-1))
    return image, index, pixel


def _require_rows(beams: int | np.ndarray, fov_degrees: tuple[float, float]) -> int:
    """Return the number of rows."""
    if isinstance(beams, np.ndarray):
        if beams.ndim != 1 or not beams.size or not (np.abs(beams) <= 90).all():
            raise ValueError(
                f"beams must be a number of rows or elevations within +-90 degrees, got {beams}"
            )
        return beams.size
    beams = require_count("beams", beams)
    lower, upper = fov_degrees
    if not -90 <= lower < upper <= 90:
        raise ValueError(
            f"fov_degrees must be (lower, upper) with -90 <= lower < upper <= 90, got {fov_degrees}"
        )
    return beams


def _nearest_beams(points: np.ndarray, beams: np.ndarray) -> np.ndarray:
    """Return the row of the beam whose elevation is nearest to each point's."""
    ascending = np.sort(np.radians(np.asarray(beams, np.float64)))
    x, y, z = points.T.astype(np.float64)
    elevation = np.arctan2(z, np.sqrt(x * x + y * y))
    borders = (ascending[1:] + ascending[:-1]) / 2
    return len(ascending) - 1 - np.searchsorted(borders, elevation)


@kernel
def _guess_angle(y, x):
    """Return atan2(y, x) within `_GUESS_ERROR`, without branches.

    The polynomial is a minimax fit of the arc tangent on [0, 1].
    """
    ax, ay = abs(x), abs(y)
    steep = ay > ax
    high = ay if steep else ax
    low = ax if steep else ay
    t = low / (high if high > 0.0 else 1.0)
    s = t * t
    p = 0.193540 + s * (-0.116426 + s * (0.052647 + s * -0.011719))
    angle = t * (0.999977 + s * (-0.332623 + s * p))
    angle = np.pi / 2 - angle if steep else angle
    return np.copysign(np.pi - angle if x < 0.0 else angle, y)


@kernel
def _guess_block(points, start, n, upper, row_scale, column_scale, reach, us, vs):
    """Write the range of `n` points and their (column, row) as fractional numbers."""
    for j in range(n):  # apart from the arithmetic, which is vector instructions then
        i = start + j
        us[j], vs[j], reach[j] = points[i, 0], points[i, 1], points[i, 2]
    for j in range(n):
        x, y, z = us[j], vs[j], reach[j]
        flat = x * x + y * y
        reach[j] = np.sqrt(flat + z * z)
        us[j] = (np.pi - _guess_angle(y, x)) * column_scale
        vs[j] = (upper - _guess_angle(z, np.sqrt(flat))) * row_scale


@kernel
def _guess_pixels(n, us, vs, reach, row_margin, column_margin, num_rows, num_columns, guess):
    """Write pixels, -1 outside the image and `_UNSURE` where a guess is too near a border."""
    for j in range(n):
        column, row = np.floor(us[j]), np.floor(vs[j])
        u, v = us[j] - column, vs[j] - row
        sure = (column_margin < u) & (u < 1.0 - column_margin)
        sure &= (row_margin < v) & (v < 1.0 - row_margin)
        inside = (row >= 0.0) & (row < num_rows) & (reach[j] > 0.0)
        cell = np.int32(row) * num_columns + np.int32(column)
        guess[j] = (cell if inside else -1) if sure else _UNSURE


@kernel
def _exact_pixel(x, y, z, row, upper, row_scale, column_scale, num_rows, num_columns):
    """Return the pixel of a point from its angles; row `_UNSURE` asks for the row too."""
    if row == _UNSURE:
        v = (upper - math.atan2(z, np.sqrt(x * x + y * y))) * row_scale
        row = min(np.int64(v), num_rows - 1) if 0.0 <= v <= num_rows else -1
    if row < 0 or (x == 0.0 and y == 0.0 and z == 0.0):
        return -1
    u = (np.pi - math.atan2(y, x)) * column_scale
    return row * num_columns + min(np.int64(u), num_columns - 1)


@kernel
def _project(points, fixed_rows, lower, upper, num_rows, num_columns, ranks, pixel):
    """Write the pixel of each point, and to each pixel the rank of its closest point.

    A rank is an integer that sorts like (float32 range, index).
    """
    row_scale, column_scale = num_rows / (upper - lower), num_columns / (2 * np.pi)
    row_margin, column_margin = _GUESS_ERROR * row_scale, _GUESS_ERROR * column_scale
    fixed = len(fixed_rows) > 0
    reach, us, vs = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    guess = np.empty(_BLOCK, np.int64)
    reach_32 = np.empty(_BLOCK, np.float32)
    bits = reach_32.view(np.int32)
    for start in range(0, len(points), _BLOCK):
        n = min(_BLOCK, len(points) - start)
        _guess_block(points, start, n, upper, row_scale, column_scale, reach, us, vs)
        if fixed:
            for j in range(n):
                vs[j] = fixed_rows[start + j] + 0.5
        _guess_pixels(n, us, vs, reach, row_margin, column_margin, num_rows, num_columns, guess)
        for j in range(n):
            reach_32[j] = reach[j]
            cell = guess[j]
            if cell == _UNSURE:
                row = fixed_rows[start + j] if fixed else _UNSURE
                x, y, z = points[start + j]
                cell = _exact_pixel(
                    *(np.float64(x), np.float64(y), np.float64(z), row, upper),
                    *(row_scale, column_scale, num_rows, num_columns),
                )
            pixel[start + j] = cell
            rank = (np.int64(bits[j]) << 32) | (start + j)
            if cell >= 0 and rank < ranks[cell]:
                ranks[cell] = rank


@kernel
def _unpack(ranks, bits, index):
    """Write the bits of the float32 range, and the index, that each rank was made of."""
    for i in range(len(ranks)):
        seen = ranks[i] != _NOTHING
        bits[i] = np.int32(ranks[i] >> 32) if seen else np.int32(0x7F800000)  # infinity
        index[i] = ranks[i] & 0xFFFFFFFF if seen else -1
