"""Points cut into small, compact buckets, in time linear in their number.

The cloud is covered with a grid of cells whose numbers interleave the bits of their coordinates (a
Morton curve that halves the longest side first). Ranges of numbers, halved until they hold at most
`BUCKET_SIZE` points, are the buckets. A cell with more points than that is treated like a cloud of
its own, so that neither outliers nor dense spots make buckets wide.
"""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

from typing import NamedTuple

import numpy as np

from pc_geometry.compiling import kernel

BUCKET_SIZE = 512
"""Most points in a bucket."""

GROUP_SIZE = 16
"""Consecutive buckets that share a box around their boxes."""

FINE_BITS = 8
"""A grid has up to 2^FINE_BITS times as many cells as the buckets that its points would fill."""

MAX_BITS = 18
"""A grid has at most 2^MAX_BITS cells."""

AXIS_BITS = 12
"""A grid has at most 2^AXIS_BITS cells along one axis."""

MIN_EXTENT = 1e-30
"""A cloud whose half side is below this is not divided along it, which could overflow."""


class Buckets(NamedTuple):
    """The `n` points of a cloud in the order of `B` buckets, and boxes around them.

    Attributes:
        xyz: Coordinates as columns [3 n]; z = 0 for a 2D cloud.
        index: Index of each of those points in the input, ascending inside a bucket.
        starts: Position of the first point of each bucket, and `n`: [B+1].
        box: Bounding boxes [G 6 GROUP_SIZE] of the buckets, lower then upper corner, in `G` groups;
            the last group is filled up with boxes that are infinitely far from everything.
        group_box: Bounding boxes [6 G] of the groups.
    """

    xyz: np.ndarray
    index: np.ndarray
    starts: np.ndarray
    box: np.ndarray
    group_box: np.ndarray


def build_buckets(points: np.ndarray) -> Buckets:
    """Cut finite float32 or float64 points [n d], d = 2 or 3, n >= 1, into buckets."""
    n, d = points.shape
    if d == 2:
        points = np.concatenate([points, np.zeros((n, 1), points.dtype)], axis=1)
    index = np.arange(n, dtype=np.int32)
    is_start = np.zeros(n, np.bool_)
    _divide(points, index, is_start)
    xyz = np.empty((3, n), points.dtype)
    _gather(points, index, *xyz)
    starts = np.append(np.flatnonzero(is_start), n)
    num_buckets = len(starts) - 1
    num_groups = -(-num_buckets // GROUP_SIZE)
    box = np.full((6, num_groups * GROUP_SIZE), np.inf, points.dtype)
    box[3:] = -np.inf
    box[:3, :num_buckets] = np.minimum.reduceat(xyz, starts[:-1], axis=1)
    box[3:, :num_buckets] = np.maximum.reduceat(xyz, starts[:-1], axis=1)
    box = np.ascontiguousarray(box.reshape(6, num_groups, GROUP_SIZE).swapaxes(0, 1))
    lower, upper = box[:, :3].min(axis=2), box[:, 3:].max(axis=2)
    group_box = np.ascontiguousarray(np.concatenate([lower, upper], axis=1).T)
    return Buckets(xyz, index, starts, box, group_box)


@kernel
def _divide(points, index, is_start):
    """Reorder `index` into buckets and mark the first point of each."""
    n = len(points)
    other, cell = np.empty(n, np.int32), np.empty(n, np.int32)
    leader = np.empty(1 << MAX_BITS, np.int32)
    number = np.empty((3, 1 << AXIS_BITS), np.int32)
    lower, scale, levels = np.empty(3), np.empty(3), np.empty(3, np.int64)
    # Parts (begin, end) of more points than fit in a bucket, hence not many of them.
    parts = np.empty((n // BUCKET_SIZE + 1, 2), np.int64)
    parts[0, 0], parts[0, 1] = 0, n
    num_parts = 1
    while num_parts > 0:
        num_parts -= 1
        begin, end = parts[num_parts, 0], parts[num_parts, 1]
        bits = _lay_grid(points, index, begin, end, number, lower, scale, levels)
        if bits == 0:
            for p in range(begin, end, BUCKET_SIZE):
                is_start[p] = True
            continue
        first = np.zeros((1 << bits) + 1, np.int32)
        _count_cells(points, index, begin, end, number, lower, scale, levels, cell, first)
        num_parts = _cut_curve(first, leader, is_start, parts, num_parts)
        # Sort the points by range of cells; those of one range stay in their order.
        for p in range(begin, end):
            c = leader[cell[p]]
            to = first[c]
            first[c] = to + 1
            other[to] = index[p]
        for p in range(begin, end):
            index[p] = other[p]


@kernel
def _lay_grid(points, index, begin, end, number, lower, scale, levels):
    """Cover points with a grid of cells that are about cubes; return the bits of cell numbers.

    No bits means that there is nothing to divide. An axis has `levels` slices, and coordinate v is
    in slice `(v / 2 - lower) * scale`: halved, because the side of a box of finite points need not
    be finite, and subtracted first, so that the extremes never end in one slice. The numbers of the
    slices of a cell add up to its number along the curve.
    """
    extent, side, split = np.empty(3), np.empty(3), np.empty(MAX_BITS, np.int64)
    _measure(points, index, begin, end, lower, extent)
    for axis in range(3):
        side[axis] = extent[axis]
        levels[axis] = 1
    bits = 0
    while bits < MAX_BITS and (end - begin) << FINE_BITS > BUCKET_SIZE << bits:
        longest = 0
        for axis in range(1, 3):
            longest = axis if side[axis] > side[longest] else longest
        if side[longest] < MIN_EXTENT or levels[longest] == 1 << AXIS_BITS:
            break
        side[longest] *= 0.5
        levels[longest] *= 2
        split[bits] = longest
        bits += 1
    for axis in range(3):
        scale[axis] = levels[axis] / extent[axis] if levels[axis] > 1 else 0.0
        _number_slices(number[axis], levels[axis], split[:bits], axis)
    return bits


@kernel
def _measure(points, index, begin, end, lower, extent):
    """Write the lower corner and the sides of the box around points, both halved."""
    p = index[begin]
    x0, y0, z0 = points[p, 0], points[p, 1], points[p, 2]
    x1, y1, z1 = x0, y0, z0
    for i in range(begin, end):
        p = index[i]
        x, y, z = points[p, 0], points[p, 1], points[p, 2]
        x0, x1 = x if x < x0 else x0, x if x > x1 else x1
        y0, y1 = y if y < y0 else y0, y if y > y1 else y1
        z0, z1 = z if z < z0 else z0, z if z > z1 else z1
    lower[0], lower[1], lower[2] = 0.5 * x0, 0.5 * y0, 0.5 * z0
    extent[0], extent[1], extent[2] = 0.5 * x1 - lower[0], 0.5 * y1 - lower[1], 0.5 * z1 - lower[2]


@kernel
def _number_slices(number, num_slices, split, axis):
    """Spread the bits of each slice of an axis over the bits of a cell number."""
    bits = len(split)
    for i in range(num_slices):
        number[i] = 0
        rest = num_slices
        for b in range(bits):
            if split[b] == axis:
                rest >>= 1
                number[i] |= ((i & rest) != 0) << (bits - 1 - b)


@kernel
def _count_cells(points, index, begin, end, number, lower, scale, levels, cell, first):
    """Write the cell of each point, and where the points of each cell belong, and their end."""
    # Out of the arrays: the compiler cannot know that the loop does not change them.
    sx, sy, sz = scale[0], scale[1], scale[2]
    lx, ly, lz = lower[0], lower[1], lower[2]
    mx, my, mz = levels[0] - 1, levels[1] - 1, levels[2] - 1
    for p in range(begin, end):
        i = index[p]
        x = min(np.int64((0.5 * points[i, 0] - lx) * sx), mx)
        y = min(np.int64((0.5 * points[i, 1] - ly) * sy), my)
        z = min(np.int64((0.5 * points[i, 2] - lz) * sz), mz)
        c = number[0, x] + number[1, y] + number[2, z]
        cell[p] = c
        first[c] += 1
    total = begin
    for c in range(len(first)):
        count = first[c]
        first[c] = total
        total += count


@kernel
def _cut_curve(first, leader, is_start, parts, num_parts):
    """Cut the curve into ranges of cells that each are a bucket, or are one overfull cell.

    Marks the first points of buckets, appends overfull cells to `parts` and writes for each cell
    the first one of its range.
    """
    num_cells = len(first) - 1
    c = 0
    while c < num_cells:
        # The widest of the halved ranges that begins here and fits in a bucket.
        width = 1
        while (
            width < num_cells and c & width == 0 and first[c + 2 * width] - first[c] <= BUCKET_SIZE
        ):
            width *= 2
        begin, end = first[c], first[c + width]
        if end - begin > BUCKET_SIZE:
            parts[num_parts, 0], parts[num_parts, 1] = begin, end
            num_parts += 1
        elif end > begin:
            is_start[begin] = True
        for i in range(c, c + width):
            leader[i] = c
        c += width
    return num_parts


@kernel
def _gather(points, index, xs, ys, zs):
    """Write the points in the order of `index` as columns."""
    for p in range(len(index)):
        i = index[p]
        xs[p], ys[p], zs[p] = points[i, 0], points[i, 1], points[i, 2]
