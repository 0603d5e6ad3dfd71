"""Farthest point sampling, exact and reproducible."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import numpy as np
from jaxtyping import Float, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.buckets import GROUP_SIZE, build_buckets
from pc_geometry.compiling import kernel


def farthest_point_sample(
    points: Float[np.ndarray, "n d"], num_samples: int, *, start: int = 0
) -> Int64[np.ndarray, " num_samples"]:
    """Choose points one after the other, each the farthest from all those chosen before it.

    Ties in distance go to the lowest index. A chosen point is not chosen again: once only
    duplicates of chosen points are left, they follow in ascending order. A prefix of the result is
    the result for fewer samples. Squared distances are computed and compared in the precision of
    the input, summed in the order of the axes; the buckets that make this fast change nothing.

    Args:
        points: Positions, d = 2 or 3; drop z for a sampling in bird's-eye view.
        num_samples: How many to choose, at most n.
        start: Index of the first one.

    Returns:
        Indices into `points` in the order of choice, `start` first.

    Raises:
        ValueError: If `num_samples` is not in [0, n], `start` is not in [0, n - 1] (unless nothing
            is chosen), the dimension is not 2 or 3, or a coordinate is not finite.

    Source: Eldar, Lindenbaum, Porat and Zeevi, "The farthest point strategy for progressive image
        sampling" (IEEE Transactions on Image Processing, 1997). Buckets that a new sample cannot
        change are skipped as in QuickFPS (Han et al., IEEE TCAD, 2023); ours come from a grid.

    >>> street = np.float32([[0, 0], [1, 0], [9, 0], [5, 0], [4, 0]])
    >>> farthest_point_sample(street, 4).tolist()
    [0, 2, 3, 1]
    """
    points = require_points(points)
    n = len(points)
    num_samples = require_count("num_samples", num_samples, least=0, most=n)
    chosen = np.empty(num_samples, np.int64)
    if num_samples == 0:
        return chosen
    start = require_count("start", start, least=0, most=n - 1)

    xyz, index, starts, box, group_box = build_buckets(points)
    distance = np.full(n, np.inf, points.dtype)
    bits = distance.view(np.int32 if points.dtype == np.float32 else np.int64)
    position = int(np.flatnonzero(index == start)[0])
    _choose(xyz, index, starts, box, group_box, distance, bits, position, chosen)
    return chosen


@kernel
def _choose(xyz, index, starts, box, group_box, distance, bits, position, chosen):
    """Write the indices of the chosen points, that at `position` first.

    `distance` is that of each point to the chosen ones, squared, and -1 for themselves. `bits` is
    the same memory as integers: the bits of floats that are not negative sort like their values,
    and a maximum of integers vectorises.
    """
    xs, ys, zs = xyz[0], xyz[1], xyz[2]
    num_groups = len(box)
    bound, group_bound = np.empty(GROUP_SIZE, xyz.dtype), np.empty(num_groups, xyz.dtype)
    bound_bits, group_bound_bits = bound.view(bits.dtype), group_bound.view(bits.dtype)
    # Bits of the largest distance in each bucket and group, those of infinity where not known.
    unknown = bits[0]
    far = np.full((num_groups, GROUP_SIZE), unknown)
    group_far = np.full(num_groups, unknown)
    # Position of the farthest point of each bucket, or -1 where it has not been looked for.
    farthest = np.full(far.shape, -1, np.int64)
    for b in range(len(starts) - 1, far.size):
        far[-1, b % GROUP_SIZE] = -1
    for s in range(len(chosen)):
        if s > 0:
            group, j = _find_farthest(index, starts, bits, far, group_far, farthest)
            position = farthest[group, j]
            far[group, j] = group_far[group] = unknown
        chosen[s] = index[position]
        distance[position] = -1
        x, y, z = xs[position], ys[position], zs[position]
        _bound(group_box, x, y, z, group_bound)
        for group in range(num_groups):
            if group_bound_bits[group] >= group_far[group]:
                continue
            _bound(box[group], x, y, z, bound)
            for j in range(GROUP_SIZE):
                if bound_bits[j] < far[group, j]:
                    b = group * GROUP_SIZE + j
                    far[group, j] = _update(
                        xs, ys, zs, distance, bits, starts[b], starts[b + 1], x, y, z
                    )
                    farthest[group, j] = -1
            group_far[group] = _highest(far[group])


@kernel
def _bound(box, x, y, z, bound):
    """Write a squared distance for each box that no point in it is nearer than.

    Each operation is monotonic and in the order of the point distance, so this holds after
    rounding too: skipping needs no tolerance.
    """
    zero = x - x
    for j in range(len(bound)):
        dx, ex = box[0, j] - x, x - box[3, j]
        dy, ey = box[1, j] - y, y - box[4, j]
        dz, ez = box[2, j] - z, z - box[5, j]
        dx = dx if dx > ex else ex
        dy = dy if dy > ey else ey
        dz = dz if dz > ez else ez
        dx = dx if dx > zero else zero
        dy = dy if dy > zero else zero
        dz = dz if dz > zero else zero
        bound[j] = dx * dx + dy * dy + dz * dz


@kernel
def _update(xs, ys, zs, distance, bits, begin, end, x, y, z):
    """Take a new sample into account in one bucket; return the bits of its maximal distance.

    Two loops over slices, because the compiler vectorises just these.
    """
    xs, ys, zs = xs[begin:end], ys[begin:end], zs[begin:end]
    distance, bits = distance[begin:end], bits[begin:end]
    for i in range(len(distance)):
        dx, dy, dz = xs[i] - x, ys[i] - y, zs[i] - z
        squared = dx * dx + dy * dy + dz * dz
        distance[i] = squared if squared < distance[i] else distance[i]
    return _highest(bits)


@kernel
def _highest(values):
    """Return the maximum of integers."""
    highest = values[0]
    for i in range(len(values)):
        highest = max(highest, values[i])
    return highest


@kernel
def _find_farthest(index, starts, bits, far, group_far, farthest):
    """Return the group, and the bucket in it, of the farthest point: the lowest among equals.

    Buckets hold their points in ascending order, so the first of the farthest is the lowest.
    """
    top = _highest(group_far)
    best = best_group = best_j = -1
    for group in range(len(far)):
        if group_far[group] < top:
            continue
        for j in range(GROUP_SIZE):
            if far[group, j] < top:
                continue
            if farthest[group, j] < 0:
                position = starts[group * GROUP_SIZE + j]
                while bits[position] != top:
                    position += 1
                farthest[group, j] = position
            candidate = index[farthest[group, j]]
            if best < 0 or candidate < best:
                best, best_group, best_j = candidate, group, j
    return best_group, best_j
