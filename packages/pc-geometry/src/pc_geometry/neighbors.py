"""Nearest neighbours, exact and reproducible."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.grid import (
    MARGIN,
    as_columns,
    build_grid,
    count_within,
    neighbor_spans,
    number_cells,
    pick_within,
    require_radius,
    write_within,
)
from pc_geometry.kdtree import build_tree, search_nearest
from pc_geometry.threads import share_parts, share_rows


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
    query, points = _require_pair(query, points, "query", "points")
    k = require_count("k", k, most=len(points))
    num_threads = require_count("num_threads", num_threads)
    dtype = np.result_type(query, points)
    tree = build_tree(_as_xyz(points, dtype))
    query = _as_xyz(query, dtype)
    distance = np.empty((len(query), k), np.float32)
    index = np.empty((len(query), k), np.int64)

    def search(rows: slice) -> None:
        search_nearest(query[rows], tree, distance[rows], index[rows])

    share_rows(search, len(query), num_threads)
    return distance, index


def radius_neighbors(
    query: Float[np.ndarray, "m d"],
    points: Float[np.ndarray, "n d"],
    radius: float,
    *,
    num_threads: int = 1,
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " m+1"]]:
    """Find all points within a radius of each query, as compressed sparse rows.

    Distances are computed in float64 whatever the input, and a point exactly at the radius is
    within: (dx * dx + dy * dy) + dz * dz <= radius * radius. Time grows with the number of pairs,
    memory with the points and pairs, never with the volume.

    Args:
        query: Positions to search from, in the frame and unit of `points`.
        points: Positions to search among, d = 2 or 3.
        radius: Largest distance, in the unit of `points`.
        num_threads: Threads that share the points; 1 is right inside a data-loader worker.

    Returns:
        Indices into `points` and splits: the neighbours of query i are
        `indices[splits[i] : splits[i + 1]]`, in ascending order of index. A query that is itself
        one of the points is among its own neighbours.

    Raises:
        ValueError: If `radius` is not positive and finite, or so small that the points spread over
            some 10^12 cells of it along an axis or lie in about a million separate layers of cells
            along every axis, which no real cloud does; if `num_threads` is not
            positive, the dimensions differ or are not 2 or 3, or a coordinate is not finite.

    >>> street = np.float32([[0, 0], [3, 0], [1, 0], [1, 0]])
    >>> indices, splits = radius_neighbors(street, street, 1.0)
    >>> [row.tolist() for row in np.split(indices, splits[1:-1])]
    [[0, 2, 3], [1], [0, 2, 3], [0, 2, 3]]
    """
    query, points = _require_pair(query, points, "query", "points")
    radius = require_radius(radius)
    num_threads = require_count("num_threads", num_threads)
    m, n = len(query), len(points)
    splits = np.zeros(m + 1, np.int64)
    if not (m and n):
        return np.empty(0, np.int64), splits

    # Points look for queries, not queries for points: in ascending order they fill ascending rows.
    search, order = _face(points, query, radius)
    num_parts = 1 if num_threads == 1 else 2 * num_threads
    cuts = _even_cuts(search, num_parts)
    count = np.zeros((num_parts, m), np.int64)

    _for_parts(count_within, search, cuts, count, num_threads=num_threads)
    splits[1 + order] = count.sum(axis=0)
    np.cumsum(splits, out=splits)
    cursor = splits[order] + np.cumsum(count, axis=0) - count
    indices = np.empty(splits[-1], np.int64)
    most = int(_around(search).max())
    _for_parts(write_within, search, cuts, cursor, most, indices, num_threads=num_threads)
    return indices, splits


def match_radius(
    a: Float[np.ndarray, "n d"],
    b: Float[np.ndarray, "m d"],
    radius: float,
    *,
    max_neighbors: int,
    rng: np.random.Generator,
    num_threads: int = 1,
) -> Int64[np.ndarray, "p 2"]:
    """Pair each point of one cloud with a random near one of another cloud.

    For each point of `a` one of its `max_neighbors` nearest points in `b` is drawn uniformly among
    those that are closer than the radius, strictly: dx * dx + dy * dy + dz * dz < radius * radius
    in float64. Among equally near ones the lowest indices count as nearest. Points of `a` without
    any are left out.

    Args:
        a: Positions to pair, d = 2 or 3.
        b: Positions to draw from, in the frame and unit of `a`.
        radius: Distance that a pair stays below, in the unit of `a`.
        max_neighbors: How many of the nearest are drawn from.
        rng: Draws one number for each point of `a`.
        num_threads: Threads that share `a`; they do not change the result.

    Returns:
        Index into `a`, ascending, and index into `b` of each pair.

    Raises:
        ValueError: If `radius` is not positive and finite, or so small that the points spread over
            some 10^12 cells of it along an axis or lie in about a million separate layers of cells
            along every axis, which no real cloud does; if `max_neighbors` or
            `num_threads` is not positive, the dimensions differ or are not 2 or 3, or a coordinate
            is not finite.

    Source: Masked Scene Contrast (Wu et al., CVPR 2023), positive pairs of two views as its
        released code finds them: 8 nearest, below 0.03 m. Differs in comparing in float64, and in
        drawing exactly uniformly.

    >>> view = np.float32([[0, 0, 0], [5, 0, 0], [1, 0, 0]])
    >>> rng = np.random.default_rng(0)
    >>> match_radius(view, view[:1], 0.5, max_neighbors=8, rng=rng).tolist()
    [[0, 0]]
    """
    a, b = _require_pair(a, b, "a", "b")
    radius = require_radius(radius)
    max_neighbors = require_count("max_neighbors", max_neighbors)
    num_threads = require_count("num_threads", num_threads)
    draw = rng.random(len(a))
    picked = np.full(len(a), -1, np.int64)
    if len(a) and len(b):
        search, order = _face(a, b, radius)
        nearest, most = min(max_neighbors, len(b)), int(_around(search).max())

        def pick(rows: slice) -> None:
            pick_within(*search, rows.start, rows.stop, order, draw, nearest, most, picked)

        share_rows(pick, len(a), num_threads)
    matched = np.flatnonzero(picked >= 0)
    return np.stack([matched, picked[matched]], axis=1)


def _face(
    query: np.ndarray, points: np.ndarray, radius: float
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]:
    """Put both clouds on one grid with cells of the radius.

    Returns:
        What the kernels of `grid` need to search around each query, in the order of their
        arguments, and the index of each of the sorted points.
    """
    centers = as_columns(query)
    if query is points:
        number, step = number_cells(centers, radius * (1 + MARGIN), 1)
        cells = grid = build_grid(centers, number)
    else:
        xyz = as_columns(points)
        number, step = number_cells(
            np.concatenate([xyz, centers], axis=1), radius * (1 + MARGIN), 1
        )
        grid = build_grid(xyz, number[: len(points)])
        cells = build_grid(centers, number[len(points) :])
    spans = neighbor_spans(cells, grid, step)
    return (centers, cells.cell_of_point, spans, grid.xyz, radius * radius), grid.order


def _around(search: tuple) -> np.ndarray:
    """Return how many points lie in and around each cell of the queries of a search."""
    spans = search[2]
    return (spans[..., 1] - spans[..., 0]).sum(axis=1)


def _even_cuts(search: tuple, num_parts: int) -> list[int]:
    """Cut the queries of a search into parts that look at about as many points each."""
    cell = search[1]
    work = np.cumsum(_around(search)[cell])
    inner = np.searchsorted(work, work[-1] * np.arange(1, num_parts) / num_parts)
    return [0, *inner.tolist(), len(cell)]


def _for_parts(
    kernel: Callable[..., None],
    search: tuple,
    cuts: list[int],
    state: np.ndarray,
    *arguments: np.ndarray | int,
    num_threads: int,
) -> None:
    """Run a kernel on the queries between neighbouring cuts, each time with its row of `state`."""

    def work(part: int) -> None:
        kernel(*search, cuts[part], cuts[part + 1], state[part], *arguments)

    share_parts(work, len(state), num_threads)


def _require_pair(
    a: np.ndarray, b: np.ndarray, name_a: str, name_b: str
) -> tuple[np.ndarray, np.ndarray]:
    """Check both as `require_points` does and that they have the same dimension."""
    is_same = a is b
    b = require_points(b, name=name_b)
    a = b if is_same else require_points(a, name=name_a)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{name_a} and {name_b} must have the same dimension, got {a.shape[1]} and {b.shape[1]}"
        )
    return a, b


def _as_xyz(points: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert, and lift 2D points to the plane z = 0, which changes no distance."""
    points = points.astype(dtype, copy=False)
    return points if points.shape[1] == 3 else np.pad(points, ((0, 0), (0, 1)))
