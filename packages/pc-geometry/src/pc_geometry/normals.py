"""Surface normals of a point cloud."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import numpy as np
from jaxtyping import Float, Float32

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel
from pc_geometry.eigen import diagonalise
from pc_geometry.neighbors import knn
from pc_geometry.threads import share_rows

FLAT = 1e-12
"""Variance, relative to that along a line, below which neighbours count as collinear."""

LEVEL = 1e-5
"""Component of a unit normal below which it counts as zero: the sign of rounding errors."""


def estimate_normals(
    points: Float[np.ndarray, "n 3"],
    k: int,
    *,
    viewpoint: Float[np.ndarray, " 3"] | None = None,
    num_threads: int = 1,
) -> Float32[np.ndarray, "n 3"]:
    """Fit a plane to the nearest neighbours of each point and return its unit normal.

    The normal is the direction in which the `k` nearest points, the point itself among them, vary
    least, computed in float64. Where they lie on a line, which leaves it open, it is the one most
    along z (or along x for a line along z); where they coincide it is (0, 0, 1).

    Args:
        points: Positions.
        k: Points that a plane is fitted to, at least 3; all of them where there are fewer.
        viewpoint: Where the points were seen from, in the frame of `points`: normals point to its
            side of the surface. Without it, or where it lies in the plane, the last component
            that is not zero (1e-5 or more) is positive, so that ground points up and walls,
            however they are rounded, all to one side.
        num_threads: Threads that share the points; they do not change the result.

    Raises:
        ValueError: If `k` is below 3, `num_threads` is not positive, `viewpoint` is not three
            finite numbers, or a coordinate is not finite.

    Source: Hoppe et al. (SIGGRAPH 1992), section 3.2. Differs in taking the side from the
        viewpoint instead of propagating it.

    >>> ground = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    >>> estimate_normals(ground, 3, viewpoint=np.array([0.0, 0.0, -2.0]))[0].tolist()
    [0.0, 0.0, -1.0]
    """
    points = require_points(points, dims=(3,))
    k = require_count("k", k, least=3)
    num_threads = require_count("num_threads", num_threads)
    has_viewpoint = viewpoint is not None
    viewpoint = np.zeros(3) if viewpoint is None else np.array(viewpoint, np.float64)
    if viewpoint.shape != (3,) or not np.isfinite(viewpoint).all():
        raise ValueError(f"viewpoint must be three finite numbers, got {viewpoint}")
    normals = np.empty((len(points), 3), np.float32)
    if len(points) == 0:
        return normals
    index = knn(points, points, min(k, len(points)), num_threads=num_threads)[1]
    xyz = points.astype(np.float64)

    def fit(rows: slice) -> None:
        _fit_planes(xyz, index[rows], rows.start, has_viewpoint, viewpoint, normals[rows])

    share_rows(fit, len(points), num_threads)
    return normals


@kernel
def _fit_planes(xyz, index, first, has_viewpoint, viewpoint, normals):
    """Write the normal of each point from its neighbours; see `estimate_normals`."""
    covariance = np.empty((3, 3))
    vectors = np.empty((3, 3))
    for i in range(len(index)):
        _covariance(xyz, index[i], covariance)
        diagonalise(covariance, vectors)
        nx, ny, nz = _least(covariance, vectors)
        p = first + i
        side = (
            nx * (viewpoint[0] - xyz[p, 0])
            + ny * (viewpoint[1] - xyz[p, 1])
            + nz * (viewpoint[2] - xyz[p, 2])
        )
        if not has_viewpoint or side == 0:
            side = nz if abs(nz) >= LEVEL else (ny if abs(ny) >= LEVEL else nx)
        sign = -1.0 if side < 0 else 1.0
        # Adding zero turns -0 into 0.
        normals[i, 0], normals[i, 1], normals[i, 2] = sign * nx + 0, sign * ny + 0, sign * nz + 0


@kernel
def _covariance(xyz, rows, covariance):
    """Write the scatter matrix of some rows about their mean, in two passes for accuracy."""
    mx = my = mz = 0.0
    for p in rows:
        mx, my, mz = mx + xyz[p, 0], my + xyz[p, 1], mz + xyz[p, 2]
    mx, my, mz = mx / len(rows), my / len(rows), mz / len(rows)
    xx = xy = xz = yy = yz = zz = 0.0
    for p in rows:
        x, y, z = xyz[p, 0] - mx, xyz[p, 1] - my, xyz[p, 2] - mz
        xx, xy, xz = xx + x * x, xy + x * y, xz + x * z
        yy, yz, zz = yy + y * y, yz + y * z, zz + z * z
    covariance[0, 0], covariance[0, 1], covariance[0, 2] = xx, xy, xz
    covariance[1, 0], covariance[1, 1], covariance[1, 2] = xy, yy, yz
    covariance[2, 0], covariance[2, 1], covariance[2, 2] = xz, yz, zz


@kernel
def _least(values, vectors):
    """Return the unit direction of the least variance, by the rules of `estimate_normals`."""
    low = high = 0
    for i in range(1, 3):
        if values[i, i] < values[low, low]:
            low = i
        if values[i, i] >= values[high, high]:
            high = i
    if values[high, high] <= 0:
        return 0.0, 0.0, 1.0
    middle = 3 - low - high
    if values[middle, middle] > FLAT * values[high, high]:
        return vectors[0, low], vectors[1, low], vectors[2, low]
    x, y, z = vectors[0, high], vectors[1, high], vectors[2, high]
    across = np.sqrt(x * x + y * y)
    if across <= FLAT:
        return 1.0, 0.0, 0.0
    return -x * z / across, -y * z / across, across
