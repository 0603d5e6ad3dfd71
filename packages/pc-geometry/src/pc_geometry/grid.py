"""A grid of the occupied cells of a point cloud, as flat arrays that numba kernels walk.

Points are sorted by cell, and cells by x, then y, then z, so that cells above one another lie side
by side in memory. Only occupied cells are stored: memory grows with the number of points, never
with the volume. Everything is in float64, into which float32 fits exactly.
"""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

from typing import NamedTuple

import numpy as np

from pc_geometry.compiling import kernel
from pc_geometry.kdtree import MOST_SORTED, select

MARGIN = 1e-3
"""Relative allowance for the rounding of a cell coordinate."""

MAX_CELL = 2**40
"""Largest cell index along an axis: its rounding stays below `MARGIN`."""

RADIX_BITS = 11


class Grid(NamedTuple):
    """The arrays of a grid with `c` occupied cells over `n` points.

    Attributes:
        xyz: Coordinates [3 n], sorted by cell, then by index.
        order: Index of each of those points in the input.
        key: Number of each cell, ascending: (x * size_y + y) * size_z + z.
        start: Position in `xyz` of the first point of each cell, and `n`: [c + 1].
    """

    xyz: np.ndarray
    order: np.ndarray
    key: np.ndarray
    start: np.ndarray

    @property
    def cell_of_point(self) -> np.ndarray:
        """The position in `key` of the cell of each input point."""
        cell = np.empty(len(self.order), np.int64)
        cell[self.order] = np.repeat(np.arange(len(self.key)), np.diff(self.start))
        return cell


def as_columns(points: np.ndarray) -> np.ndarray:
    """Return float64 columns [3 n]; 2D points lie in the plane z = 0, which changes no distance."""
    columns = np.zeros((3, len(points)))
    columns[: points.shape[1]] = points.T
    return columns


def require_radius(radius: float) -> float:
    """Return the radius as a Python float.

    Raises:
        ValueError: If it is not positive and finite.
    """
    if not 0 < radius < np.inf:
        raise ValueError(f"radius must be positive and finite, got {radius}")
    return float(radius)


def number_cells(
    xyz: np.ndarray, side: float, reach: int
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Number the cell of each point so that cells up to `reach` apart are found by addition.

    Args:
        xyz: Coordinates [3 n], n >= 1.
        side: Side of a cell.
        reach: How many cells away neighbours are looked for; coordinates get a margin of as many,
            and wider gaps may be closed.

    Returns:
        The number of the cell of each point, and what one step along x, y and z adds to it.

    Raises:
        ValueError: If the points spread over more than 2^40 cells along an axis, or if, with wide
            gaps closed, the numbers of layers along the axes still multiply to 2^63 or more.
    """
    with np.errstate(over="ignore"):
        place = np.floor((xyz - xyz.min(axis=1, keepdims=True)) / side)
    if not place.max() <= MAX_CELL:
        raise ValueError(
            f"radius is too small for points that spread over {place.max():.0e} cells of {side:g} "
            f"along an axis (at most {MAX_CELL:.0e}); take a larger one or drop the outliers"
        )
    place = place.astype(np.int64)
    size = [int(axis.max()) + 1 + 2 * reach for axis in place]
    if size[0] * size[1] * size[2] >= 2**63:
        place = np.stack([_close_gaps(axis, reach + 1) for axis in place])
        size = [int(axis.max()) + 1 + 2 * reach for axis in place]
        if size[0] * size[1] * size[2] >= 2**63:
            raise ValueError(
                f"radius is too small for points that lie in {' x '.join(map(str, size))} layers "
                f"of cells of {side:g} (the product must be below 2^63); take a larger one"
            )
    step = (size[1] * size[2], size[2], 1)
    return (place + reach).T @ np.array(step), step


def _close_gaps(place: np.ndarray, widest: int) -> np.ndarray:
    """Shorten runs of empty layers, keeping the order and all distances below `widest`."""
    layers, inverse = np.unique(place, return_inverse=True)
    return np.cumsum(np.minimum(np.diff(layers, prepend=layers[0]), widest))[inverse]


def build_grid(xyz: np.ndarray, number: np.ndarray) -> Grid:
    """Sort the points [3 n] by the number of their cell, ties by index."""
    order = np.arange(len(number))
    _sort_stably(number, order, int(number.max(initial=0)).bit_length())
    key = number[order]
    is_first = np.ones(len(key), bool)
    is_first[1:] = key[1:] != key[:-1]
    start = np.flatnonzero(is_first)
    return Grid(
        xyz=np.take(xyz, order, axis=1),
        order=order,
        key=key[start],
        start=np.append(start, len(key)),
    )


@kernel
def _sort_stably(key, order, num_bits):
    """Reorder `order` in place so that `key[order]` ascends: radix sort from the lowest digit."""
    n = len(order)
    source, target = order, np.empty_like(order)
    mask = (1 << RADIX_BITS) - 1
    for shift in range(0, num_bits, RADIX_BITS):
        start = np.zeros(mask + 2, np.int64)
        for i in range(n):
            start[((key[i] >> shift) & mask) + 1] += 1
        for digit in range(mask):
            start[digit + 1] += start[digit]
        for i in range(n):
            p = source[i]
            digit = (key[p] >> shift) & mask
            target[start[digit]] = p
            start[digit] += 1
        source, target = target, source
    for i in range(n):
        order[i] = source[i]


def neighbor_spans(cells: Grid, grid: Grid, step: tuple[int, int, int]) -> np.ndarray:
    """Find where in `grid` the points next to each cell of `cells` lie.

    Returns:
        For each cell the first and last + 1 position of nine runs of points that together are
        the cells of `grid` at most one away: [c 9 2].
    """
    near = np.arange(-1, 2)
    offsets = (near[:, None] * step[0] + near * step[1]).ravel()
    spans = np.empty((len(cells.key), len(offsets), 2), np.int64)
    _find_spans(cells.key, grid.key, grid.start, offsets, spans)
    return spans


@kernel
def _find_spans(cells, key, start, offsets, spans):
    """Walk along both sorted lists at once, one time for each offset."""
    for row in range(len(offsets)):
        lo = hi = 0
        for cell in range(len(cells)):
            center = cells[cell] + offsets[row]
            while lo < len(key) and key[lo] < center - 1:
                lo += 1
            while hi < len(key) and key[hi] <= center + 1:
                hi += 1
            spans[cell, row, 0] = start[lo]
            spans[cell, row, 1] = start[hi]


@kernel
def count_within(query, cell, spans, xyz, limit, first, last, count) -> None:
    """Add to `count` [n] how many of the queries [first, last) lie within the limit of each point.

    Args:
        query: Columns of the queries [3 m], in any order.
        cell: The cell of each query, a row of `spans`.
        spans: Where the points around a cell are, see `neighbor_spans`.
        xyz: Columns of the points [3 n], in the order of a grid.
        limit: The radius, squared.
        first: The first query to look at.
        last: The query to stop before.
        count: One number for each point.
    """
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    for q in range(first, last):
        x, y, z = query[0, q], query[1, q], query[2, q]
        for row in range(spans.shape[1]):
            for p in range(spans[cell[q], row, 0], spans[cell[q], row, 1]):
                dx, dy, dz = xs[p] - x, ys[p] - y, zs[p] - z
                count[p] += dx * dx + dy * dy + dz * dz <= limit


@kernel
def write_within(query, cell, spans, xyz, limit, first, last, cursor, most, indices) -> None:
    """Append each of the queries [first, last) to the rows of the points within the limit of it.

    The queries come in ascending order, so every row ascends without sorting. `cursor` [n] is
    where the next entry of a point's row goes, `most` the largest number of points around a cell;
    the rest is as for `count_within`.
    """
    found = np.empty(most, np.int64)
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    for q in range(first, last):
        x, y, z = query[0, q], query[1, q], query[2, q]
        num_found = 0
        for row in range(spans.shape[1]):
            for p in range(spans[cell[q], row, 0], spans[cell[q], row, 1]):
                dx, dy, dz = xs[p] - x, ys[p] - y, zs[p] - z
                found[num_found] = p  # kept by advancing, which costs no branch
                num_found += dx * dx + dy * dy + dz * dz <= limit
        for i in range(num_found):
            p = found[i]
            indices[cursor[p]] = q
            cursor[p] += 1


@kernel
def pick_within(
    query, cell, spans, xyz, limit, first, last, order, draw, nearest, most, picked
) -> None:
    """Write one of the nearest points closer than the limit of queries [first, last), or -1.

    The point is number floor(draw * count) in the order of (distance, index), where count is at
    most `nearest`. `order` is the index of each point; the rest is as for `write_within`.
    """
    best, index = np.empty(most, np.int64), np.empty(most, np.int64)
    is_sorted = nearest <= MOST_SORTED
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    for q in range(first, last):
        x, y, z = query[0, q], query[1, q], query[2, q]
        count = np.int64(0)
        for row in range(spans.shape[1]):
            for p in range(spans[cell[q], row, 0], spans[cell[q], row, 1]):
                dx, dy, dz = xs[p] - x, ys[p] - y, zs[p] - z
                squared = dx * dx + dy * dy + dz * dz
                if not squared < limit:
                    continue
                bits = np.float64(squared).view(np.int64)  # they sort like the value
                at = count
                if is_sorted:
                    while at > 0 and (
                        bits < best[at - 1] or (bits == best[at - 1] and order[p] < index[at - 1])
                    ):
                        at -= 1
                    if at == nearest:
                        continue
                    count = min(count, nearest - 1)
                    for i in range(count, at, -1):
                        best[i], index[i] = best[i - 1], index[i - 1]
                best[at], index[at] = bits, order[p]
                count += 1
        if count == 0:
            picked[q] = -1
            continue
        num_near = min(count, nearest)
        wanted = min(int(draw[q] * num_near), num_near - 1)
        picked[q] = index[wanted] if is_sorted else _take(best, index, count, wanted)


@kernel
def _take(best, index, count, wanted):
    """Return entry number `wanted` of `index` in the order of (best, index); both are used up."""
    for _ in range(2):  # by distance; then those equally far, by index
        select(best, index, np.int64(0), count, wanted)
        value = best[wanted]
        num_tied = np.int64(0)
        for i in range(count):
            if best[i] < value:
                wanted -= 1
            elif best[i] == value:
                best[num_tied] = index[num_tied] = index[i]
                num_tied += 1
        count = num_tied
    return index[0]
