"""One integer for each cell of a grid, and cells numbered by first appearance.

A key is exact, never only a hash: while the grid is small enough its axes are the digits of one
number, and where the digits run out, what has been packed so far is replaced by its number.
"""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

from typing import NamedTuple

import numpy as np

from pc_geometry.compiling import kernel

MAX_INDEX = 2**31 - 1
"""Largest cell index, either way of the origin."""

_MAX_KEY = 2**63 - 1
_FOLD = 256  # rows that NumPy reduces side by side


class Grid(NamedTuple):
    """Cells floor((points - origin) / sizes), computed in float64.

    Attributes:
        origin: Lower corner of cell 0, float64 [d].
        sizes: Sides of a cell, float64 [d].
        ranges: First and last occupied cell of each axis, empty where there are no points.
            Rounding keeps the order of numbers, so these of the extreme coordinates are exact.
    """

    origin: np.ndarray
    sizes: np.ndarray
    ranges: tuple[tuple[int, int], ...]


def require_sizes(name: str, size: float | tuple[float, ...], d: int) -> np.ndarray:
    """Return the sides of a cell as float64 [d].

    Raises:
        ValueError: If `size` is neither one positive, finite number nor one for each axis.
    """
    sizes = np.asarray(size, np.float64)
    if sizes.shape not in ((), (d,)) or not ((sizes > 0) & np.isfinite(sizes)).all():
        each = "" if sizes.ndim == 0 else f" (one number, or {d}: one an axis)"
        raise ValueError(f"{name} must be positive and finite{each}, got {size}")
    return np.full(d, sizes)


def require_origin(origin: np.ndarray, d: int) -> np.ndarray:
    """Return `origin` as float64 [d].

    Raises:
        ValueError: If it is not one finite number for each axis.
    """
    if np.shape(origin) != (d,) or not np.isfinite(origin).all():
        raise ValueError(f"origin must be {d} finite numbers (one an axis), got {origin}")
    return np.array(origin, np.float64)


def axis_bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the minimum and maximum of each axis of contiguous points [n d], n >= 1, as float64.

    Rows are taken many at a time: NumPy is slow on an inner axis of two or three.
    """
    n, d = points.shape
    whole = n - n % _FOLD
    bounds = []
    for extreme in (np.minimum, np.maximum):
        rest = points[whole:]
        if whole:
            wide = extreme.reduce(points[:whole].reshape(-1, _FOLD * d))
            rest = np.concatenate([wide.reshape(-1, d), rest])
        bounds.append(extreme.reduce(rest).astype(np.float64))
    return bounds[0], bounds[1]


def make_grid(
    points: np.ndarray, name: str, size: float | tuple[float, ...], origin: np.ndarray | None
) -> Grid:
    """Lay a grid over contiguous points [n d]; see `Grid`.

    Raises:
        ValueError: If `size`, called `name`, or `origin` is not what it should be, or a cell is
            more than 2^31 - 1 from the origin.
    """
    n, d = points.shape
    sizes = require_sizes(name, size, d)
    if origin is not None:
        origin = require_origin(origin, d)
    if n == 0:
        return Grid(np.zeros(d) if origin is None else origin, sizes, ())
    bounds = np.stack(axis_bounds(points))
    if origin is None:
        origin = bounds[0]
    with np.errstate(over="ignore"):
        ends = np.floor((bounds - origin) / sizes)
        if np.abs(ends).max() > MAX_INDEX:
            num_far = (np.abs(np.floor((points - origin) / sizes)) > MAX_INDEX).sum()
            raise ValueError(
                f"{name} {size} puts {num_far} coordinates more than {MAX_INDEX} voxels from the "
                "origin; take larger voxels or drop the outliers"
            )
    return Grid(origin, sizes, tuple((int(first), int(last)) for first, last in ends.T))


def point_keys(points: np.ndarray, grid: Grid) -> np.ndarray:
    """Return one int64 >= 0 a point, equal where floor((points - origin) / sizes) is."""
    keys = np.zeros(len(points), np.int64)
    room = 1
    for axis, (first, last) in enumerate(grid.ranges):
        extent = last - first + 1
        if room * extent > _MAX_KEY:
            keys, room = number_keys(keys)[1], len(keys)
        _append_axis(points, axis, grid.origin[axis], grid.sizes[axis], first, extent, keys)
        room *= extent
    return keys


def cell_keys(cells: np.ndarray) -> np.ndarray:
    """Return one int64 >= 0 for each row of int64 [n d], equal where rows are.

    Entries are at most 2^31 - 1 from 0.
    """
    keys = np.zeros(len(cells), np.int64)
    room = 1
    for column in cells.T if len(cells) else ():
        first, extent = column.min(), int(column.max() - column.min()) + 1
        if room * extent > _MAX_KEY:
            keys, room = number_keys(keys)[1], len(keys)
        keys = keys * extent + (column - first)
        room *= extent
    return keys


def number_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number distinct keys (int64 >= 0) by first appearance.

    Returns:
        Where each number appears first, and the number of each key.
    """
    n = len(keys)
    bits = int(1.5 * n + 1).bit_length()
    table = np.full((1 << bits, 2), -1)
    first = np.empty(n, np.int64)
    numbers = np.empty(n, np.int64)
    count = _number(keys, table, 32 - bits, first, numbers)
    return first[:count].copy(), numbers


@kernel
def _append_axis(points, axis, origin, size, first, extent, keys):
    """Append floor((points - origin) / size) - first as a digit of base `extent`."""
    for i in range(len(points)):
        cell = np.int32(np.floor((np.float64(points[i, axis]) - origin) / size))
        keys[i] = keys[i] * extent + (np.int64(cell) - first)


@kernel
def _number(keys, table, shift, first, numbers):
    """Fill a hash table with open addressing; return how many distinct keys there are.

    An entry is (key, its number), so that a probe is one cache miss; the number is -1 where free.
    """
    mask = len(table) - 1
    count = 0
    for i in range(len(keys)):
        key = keys[i]
        # 32 bits times 31 bits stay below 2^63, so plain Python integers agree.
        slot = (((key >> 32) * 0x45D9F3B) ^ key) & 0xFFFFFFFF
        slot = ((slot ^ (slot >> 15)) * 0x7FEB352D) & 0xFFFFFFFF
        slot >>= shift
        while True:
            number = table[slot, 1]
            if number < 0:
                number = count
                table[slot, 0] = key
                table[slot, 1] = number
                first[number] = i
                count += 1
                break
            if table[slot, 0] == key:
                break
            slot = (slot + 1) & mask
        numbers[i] = number
    return count
