"""Nearest neighbours, exact and reproducible."""

import numpy as np
from jaxtyping import Float, Float32, Int64

from pc_geometry.arrays import require_points
from pc_geometry.kdtree import build_tree, search_nearest
from pc_geometry.threads import share_rows


def knn(
    query: Float[np.ndarray, "m d"],
    points: Float[np.ndarray, "n d"],
    k: int,
    *,
    num_threads: int = 1,
) -> tuple[Float32[np.ndarray, "m k"], Int64[np.ndarray, "m k"]]:
    """Find the k nearest points of each query, nearest first.

    Ties in distance go to the lowest index, so the result does not depend on the tree, the number
    of threads or the machine. Distances are computed in the precision of the input and compared as
    float32. A query that is itself one of the points finds itself at distance 0; among exact
    duplicates the lowest index comes first, which then need not be its own.

    Args:
        query: Positions to search from, in the frame and unit of `points`.
        points: Positions to search among, d = 2 or 3.
        k: How many to find.
        num_threads: Threads that share the queries; 1 is right inside a data-loader worker.

    Returns:
        Euclidean distances, ascending along each row, and indices into `points`.

    Raises:
        ValueError: If `k` is not in [1, n], `num_threads` is not positive, the dimensions differ or
            are not 2 or 3, or a coordinate is not finite.

    >>> street = np.float32([[0, 0], [3, 0], [1, 0], [1, 0]])
    >>> distance, index = knn(street[:1], street, 3)
    >>> distance.tolist(), index.tolist()
    ([[0.0, 1.0, 1.0]], [[0, 2, 3]])
    """
    points = require_points(points)
    query = require_points(query, name="query")
    n, d = points.shape
    if query.shape[1] != d:
        raise ValueError(
            f"query and points must have the same dimension, got {query.shape[1]} and {d}"
        )
    if not 1 <= k <= n:
        raise ValueError(f"k must be in [1, {n}] (the number of points), got {k}")

    dtype = np.result_type(query, points)
    tree = build_tree(_as_xyz(points, dtype))
    query = _as_xyz(query, dtype)
    distance = np.empty((len(query), k), np.float32)
    index = np.empty((len(query), k), np.int64)

    def search(rows: slice) -> None:
        search_nearest(query[rows], *tree, distance[rows], index[rows])

    share_rows(search, len(query), num_threads)
    return distance, index


def _as_xyz(points: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert, and lift 2D points to the plane z = 0, which changes no distance."""
    points = points.astype(dtype, copy=False)
    return points if points.shape[1] == 3 else np.pad(points, ((0, 0), (0, 1)))
