"""Clusters of points that are connected within a radius, and which of them look like objects."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import math

import numpy as np
from jaxtyping import Float, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel
from pc_geometry.grid import MARGIN, as_columns, build_grid, number_cells, require_radius

REACH = 2
"""Cells of side radius / sqrt(d) hold points within the radius at most this many cells apart."""

TIED_AREAS = 1e-4
"""Relative difference up to which the areas of rectangles count as equal."""

BOX_PAIRS = 1000
"""Pairs of points in two cells from which on a bounding box pays."""


def cluster_radius(
    points: Float[np.ndarray, "n d"],
    radius: float,
    *,
    min_points: int = 1,
) -> Int64[np.ndarray, " n"]:
    """Group points that are connected by steps of at most the radius.

    Distances are computed in float64 whatever the input, and a step of exactly the radius counts:
    (dx * dx + dy * dy) + dz * dz <= radius * radius. The result depends on nothing but the points.

    Args:
        points: Positions, d = 2 or 3.
        radius: Longest step within a cluster, in the unit of `points`.
        min_points: Clusters with fewer points are dropped.

    Returns:
        Cluster of each point, numbered from 0 by first appearance, -1 in dropped clusters.

    Raises:
        ValueError: If `radius` is not positive and finite, or so small that the points spread over
            some 10^12 cells of it along an axis or lie in about 700 000 separate layers of cells
            along every axis, which no real cloud does; if `min_points` is not
            positive, or a coordinate is not finite.

    Source: radially bounded nearest neighbours (Klasing, Wollherr and Buss, ICRA 2008), whose
        clusters are the connected components of the radius graph, and DBSCAN's with one point for
        a core. Differs in joining cells of a grid instead of searching around every point.

    >>> street = np.float32([[0, 0], [3, 0], [0, 1], [0, 2]])
    >>> cluster_radius(street, 1.0).tolist()
    [0, 1, 0, 0]
    >>> cluster_radius(street, 1.0, min_points=2).tolist()
    [0, -1, 0, 0]
    """
    points = require_points(points)
    radius = require_radius(radius)
    min_points = require_count("min_points", min_points)
    n, d = points.shape
    labels = np.full(n, -1, np.int64)
    if n:
        xyz = as_columns(points)
        number, step = number_cells(xyz, radius * (1 - MARGIN) / math.sqrt(d), REACH)
        grid = build_grid(xyz, number)
        parent = np.arange(len(grid.key))
        _join_cells(grid.xyz, grid.key, grid.start, _nearest_first(step), radius * radius, parent)
        _number_clusters(parent, grid.cell_of_point, grid.start, min_points, labels)
    return labels


def filter_clusters(
    points: Float[np.ndarray, "n 3"],
    labels: Int64[np.ndarray, " n"],
    *,
    min_extent: float = 0.3,
    max_extent: float = 15.0,
    min_height: float = 0.3,
    max_height: float = 4.0,
    max_aspect_ratio: float = 6.0,
) -> Int64[np.ndarray, " n"]:
    """Keep the clusters that have the size of an object, such as a vehicle or a pedestrian.

    The extent of a cluster is the longer side of the rectangle of least area around its points
    seen from above (of several such the one whose longer side is shortest), and its aspect ratio is
    the longer side over the shorter one, so neither depends on how the object is turned. All limits
    are inclusive.

    Args:
        points: Positions, z up, in m for the default limits.
        labels: Cluster of each point, negative for none.
        min_extent: Least extent.
        max_extent: Largest extent.
        min_height: Least height along z.
        max_height: Largest height along z.
        max_aspect_ratio: Largest aspect ratio; `inf` keeps clusters that are a straight line.

    Returns:
        Cluster of each point among the kept ones, numbered from 0 by first appearance, else -1.

    Raises:
        ValueError: If there is not one label a point, a limit is negative or not a number, a lower
            limit is above its upper limit, or a coordinate is not finite.

    Source: cross-modal contrastive units (Cai et al., 2024), instance-aware clustering, where
        clusters of "anomalous sizes or aspect ratios" are dropped. No limits are printed; these
        are ours.

    >>> pole_and_car = np.float32([[9, 9, 0], [9, 9, 5], [0, 0, 0], [4, 2, 1], [4, 0, 1]])
    >>> filter_clusters(pole_and_car, np.array([0, 0, 1, 1, 1])).tolist()
    [-1, -1, 0, 0, 0]
    """
    points = require_points(points, dims=(3,))
    if labels.shape != (len(points),):
        raise ValueError(f"labels must be one a point, shape {(len(points),)}, got {labels.shape}")
    _require_limits("extent", min_extent, max_extent)
    _require_limits("height", min_height, max_height)
    _require_limits("aspect ratio", 0.0, max_aspect_ratio)

    member = np.flatnonzero(labels >= 0)
    _, cluster = np.unique(labels[member], return_inverse=True)
    longer, shorter, height = _measure(points[member], cluster)
    kept = (min_extent <= longer) & (longer <= max_extent)
    kept &= (min_height <= height) & (height <= max_height)
    with np.errstate(invalid="ignore"):  # an infinite ratio of a side of length 0
        kept &= ~(longer > max_aspect_ratio * shorter)
    member, cluster = member[kept[cluster]], cluster[kept[cluster]]
    _, first, cluster = np.unique(cluster, return_index=True, return_inverse=True)
    filtered = np.full(len(points), -1, np.int64)
    filtered[member] = np.argsort(np.argsort(first))[cluster]
    return filtered


def _measure(points: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return the longer and shorter side and the height of clusters 0 to c - 1: [3 c]."""
    x, y, z = as_columns(points)
    order = np.lexsort((y, x, cluster))
    start = np.append(0, np.cumsum(np.bincount(cluster)))
    measures = np.empty((3, len(start) - 1))
    _measure_clusters(x[order], y[order], z[order], start, *measures)
    return measures


def _require_limits(name: str, low: float, high: float) -> None:
    if not 0 <= low <= high:
        raise ValueError(f"the limits of {name} must be 0 <= low <= high, got {low} and {high}")


def _nearest_first(step: tuple[int, int, int]) -> np.ndarray:
    """Return what to add to a cell to get the half of its neighbours that comes after it."""
    around = np.arange(-REACH, REACH + 1)
    offsets = np.stack(np.meshgrid(around, around, around, indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = offsets[np.argsort((offsets**2).sum(axis=1), kind="stable")]
    added = offsets @ np.array(step)
    return added[added > 0]


@kernel
def _root(parent, cell):
    """Find the first cell of a tree and shorten the way to it."""
    while parent[cell] != cell:
        parent[cell] = parent[parent[cell]]
        cell = parent[cell]
    return cell


@kernel
def _join_cells(xyz, key, start, offsets, limit, parent):
    """Join the trees of all pairs of cells that hold points within the limit of one another.

    All points of one cell are, so only pairs of cells that no path joins yet are looked at, and
    only up to the first pair of points. Near cells come first: they join most others for free.
    """
    num_cells = len(key)
    for offset in offsets:
        b = 0
        for a in range(num_cells):
            wanted = key[a] + offset
            while b < num_cells and key[b] < wanted:
                b += 1
            if b == num_cells:
                break
            if key[b] != wanted:
                continue
            root_a, root_b = _root(parent, a), _root(parent, b)
            if root_a != root_b and _touch(
                xyz, start[a], start[a + 1], start[b], start[b + 1], limit
            ):
                parent[max(root_a, root_b)] = min(root_a, root_b)


@kernel
def _touch(xyz, a0, a1, b0, b1, limit):
    """Tell whether a point in [a0, a1) lies within the limit of a point in [b0, b1)."""
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    x0 = y0 = z0 = -np.inf
    x1 = y1 = z1 = np.inf
    if (a1 - a0) * (b1 - b0) > BOX_PAIRS:
        (x0, x1), (y0, y1), (z0, z1) = _range(xs, b0, b1), _range(ys, b0, b1), _range(zs, b0, b1)
    for i in range(a0, a1):
        x, y, z = xs[i], ys[i], zs[i]
        # As in the tree of knn each operation is monotonic, so pruning needs no tolerance.
        dx, dy, dz = max(x0 - x, x - x1, 0.0), max(y0 - y, y - y1, 0.0), max(z0 - z, z - z1, 0.0)
        if dx * dx + dy * dy + dz * dz > limit:
            continue
        for j in range(b0, b1):
            dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
            if dx * dx + dy * dy + dz * dz <= limit:
                return True
    return False


@kernel
def _range(values, lo, hi):
    """Return the lowest and highest of values [lo, hi)."""
    low = high = values[lo]
    for i in range(lo + 1, hi):
        low, high = min(low, values[i]), max(high, values[i])
    return low, high


@kernel
def _number_clusters(parent, cell_of_point, start, min_points, labels):
    """Write the number of the cluster of each point, by first appearance; see `cluster_radius`."""
    size = np.zeros(len(parent), np.int64)
    for cell in range(len(parent)):
        size[_root(parent, cell)] += start[cell + 1] - start[cell]
    number = np.full(len(parent), -1, np.int64)
    count = 0
    for i in range(len(labels)):
        root = _root(parent, cell_of_point[i])
        if size[root] < min_points:
            continue
        if number[root] < 0:
            number[root] = count
            count += 1
        labels[i] = number[root]


@kernel
def _measure_clusters(x, y, z, start, longer, shorter, height):
    """Write the sides of the smallest rectangle around each cluster in x and y, and its height.

    The points are sorted by cluster, then x, then y, as the hull needs them.
    """
    hull = np.empty((len(x) + 1, 2))
    for cluster in range(len(longer)):
        lo, hi = start[cluster], start[cluster + 1]
        size = _hull(x, y, lo, hi, hull)
        longer[cluster], shorter[cluster] = _rectangle(hull[:size])
        z0, z1 = _range(z, lo, hi)
        height[cluster] = z1 - z0


@kernel
def _hull(x, y, lo, hi, hull):
    """Write the corners of the convex hull of sorted points [lo, hi); return how many there are.

    Source: the monotone chain of Andrew (Information Processing Letters, 1979): along the lower
    side, then back along the upper one.
    """
    size = 0
    for side in range(2):
        base = size
        for i in range(lo, hi):
            p = i if side == 0 else lo + hi - 1 - i
            while size >= base + 2:
                ax, ay = (
                    hull[size - 1, 0] - hull[size - 2, 0],
                    hull[size - 1, 1] - hull[size - 2, 1],
                )
                bx, by = x[p] - hull[size - 2, 0], y[p] - hull[size - 2, 1]
                if ax * by - ay * bx > 0:
                    break
                size -= 1
            hull[size, 0], hull[size, 1] = x[p], y[p]
            size += 1
        size -= 1  # the last corner of one side is the first of the other
    return max(size, 1)


@kernel
def _rectangle(hull):
    """Return the longer and the shorter side of the smallest rectangle around a convex polygon.

    Where several are smallest but for rounding (the L of a car's corner fits two), the one with
    the shortest longer side counts, so that the heading does not decide.

    Source: one side of the rectangle lies along a side of the polygon (Freeman and Shapira,
    Communications of the ACM, 1975).
    """
    sides = np.zeros((len(hull), 2))
    smallest = np.inf
    for i in range(len(hull)):
        ux, uy = hull[i, 0] - hull[i - 1, 0], hull[i, 1] - hull[i - 1, 1]
        length = math.hypot(ux, uy)
        if length == 0:
            continue
        ux, uy = ux / length, uy / length
        along0 = across0 = np.inf
        along1 = across1 = -np.inf
        for j in range(len(hull)):
            dx, dy = hull[j, 0] - hull[i, 0], hull[j, 1] - hull[i, 1]
            along, across = dx * ux + dy * uy, dy * ux - dx * uy
            along0, along1 = min(along0, along), max(along1, along)
            across0, across1 = min(across0, across), max(across1, across)
        a, b = along1 - along0, across1 - across0
        sides[i, 0], sides[i, 1] = max(a, b), min(a, b)
        smallest = min(smallest, a * b)
    longer, shorter = np.inf, 0.0
    for i in range(len(hull)):
        area = sides[i, 0] * sides[i, 1]
        if 0 < sides[i, 0] < longer and area <= smallest * (1 + TIED_AREAS):
            longer, shorter = sides[i, 0], sides[i, 1]
    return (longer, shorter) if longer < np.inf else (0.0, 0.0)
