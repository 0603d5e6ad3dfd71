"""A static k-d tree over 3D points, as flat arrays that numba kernels walk.

The points are split in halves along the longer side of their box until at most `LEAF_SIZE` are
left. Nodes are stored in preorder: the left child of node `i` is `i + 1`, `right[i]` is the other
one, and a leaf stores `-1 - leaf`. Leaves hold their points as contiguous, padded columns, so that
the distances to one leaf are a few vector instructions.
"""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

from typing import NamedTuple

import numpy as np

from pc_geometry.compiling import kernel

LEAF_SIZE = 16
"""Points in a leaf; all leaves but one are full."""

MAX_DEPTH = 40
"""Entries of the traversal stack; a tree over 2^31 points is 27 levels deep."""

MOST_SORTED = 28
"""Neighbours up to which a sorted list of them pays; more are collected and cut back to k."""

NOTHING = (0x7F800000 << 32) | 0x7FFFFFFF
"""The rank of infinity at the highest index: what a list of the best starts with."""


class KDTree(NamedTuple):
    """The arrays of a tree with `L` leaves over `n` points.

    Attributes:
        leaf_xyz: Coordinates [L 3 LEAF_SIZE], infinite where the last leaf is not full.
        leaf_index: Index of each of those points in the input, 2^31 - 1 where there is none.
        box: Tight bounding box of every node: [2L-1 6], lower then upper corner.
        right: Right child of a node, or -1 - leaf.
        lowest: Lowest point index below a node, by which ties are cut short.
    """

    leaf_xyz: np.ndarray
    leaf_index: np.ndarray
    box: np.ndarray
    right: np.ndarray
    lowest: np.ndarray


@kernel
def select(key, order, lo, hi, kth) -> None:
    """Reorder [lo, hi) so that the keys before `kth` are <= those from `kth` on."""
    hi -= 1
    draw = 1
    while lo < hi:
        # The median of three at scattered places: scan patterns turn fixed ones into bad pivots.
        b = key[(lo + hi) >> 1]
        draw = (draw * 1103515245 + 12345) & 0x7FFFFFFF
        a = key[lo + ((draw * (hi - lo)) >> 31)]
        draw = (draw * 1103515245 + 12345) & 0x7FFFFFFF
        c = key[lo + ((draw * (hi - lo)) >> 31)]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = lo, hi
        while i <= j:
            while key[i] < pivot:
                i += 1
            while key[j] > pivot:
                j -= 1
            if i <= j:
                key[i], key[j] = key[j], key[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if kth <= j:
            hi = j
        elif kth >= i:
            lo = i
        else:
            return


@kernel
def _measure(xyz, order, lo, hi, box, lowest, node):
    """Write the bounding box and lowest index of points `order[lo:hi]`; return the longest axis."""
    p = order[lo]
    x0, y0, z0 = xyz[p, 0], xyz[p, 1], xyz[p, 2]
    x1, y1, z1, low = x0, y0, z0, p
    for i in range(lo, hi):
        p = order[i]
        x, y, z = xyz[p, 0], xyz[p, 1], xyz[p, 2]
        x0, x1 = min(x0, x), max(x1, x)
        y0, y1 = min(y0, y), max(y1, y)
        z0, z1 = min(z0, z), max(z1, z)
        low = min(low, p)
    box[node, 0], box[node, 1], box[node, 2] = x0, y0, z0
    box[node, 3], box[node, 4], box[node, 5] = x1, y1, z1
    lowest[node] = low
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    if dx >= dy and dx >= dz:
        return 0
    return 1 if dy >= dz else 2


@kernel
def _grow(xyz, order, leaf_xyz, leaf_index, box, right, lowest):
    """Fill the arrays of a tree, see `KDTree`, and reorder the indices `order` by leaf."""
    n = len(xyz)
    key = np.empty(n, xyz.dtype)
    stack = np.empty((MAX_DEPTH, 3), np.int64)  # (node, first leaf, last leaf + 1)
    stack[0, 0], stack[0, 1], stack[0, 2] = 0, 0, len(leaf_xyz)
    top = 1
    while top > 0:
        top -= 1
        node, first, last = stack[top, 0], stack[top, 1], stack[top, 2]
        lo, hi = first * LEAF_SIZE, min(last * LEAF_SIZE, n)
        axis = _measure(xyz, order, lo, hi, box, lowest, node)
        if last - first == 1:
            right[node] = -1 - first
            for i in range(lo, hi):
                p = order[i]
                leaf_index[first, i - lo] = p
                for j in range(3):
                    leaf_xyz[first, j, i - lo] = xyz[p, j]
            continue
        for i in range(lo, hi):
            key[i] = xyz[order[i], axis]
        middle = (first + last) >> 1
        select(key, order, lo, hi, middle * LEAF_SIZE)
        far = node + 2 * (middle - first)
        right[node] = far
        stack[top, 0], stack[top, 1], stack[top, 2] = far, middle, last
        stack[top + 1, 0], stack[top + 1, 1], stack[top + 1, 2] = node + 1, first, middle
        top += 2


def build_tree(xyz: np.ndarray) -> KDTree:
    """Build the tree of contiguous, finite float32 or float64 points [n 3], n >= 1."""
    n = len(xyz)
    num_leaves = -(-n // LEAF_SIZE)
    num_nodes = 2 * num_leaves - 1
    tree = KDTree(
        leaf_xyz=np.full((num_leaves, 3, LEAF_SIZE), np.inf, xyz.dtype),
        leaf_index=np.full((num_leaves, LEAF_SIZE), 2147483647, np.int32),
        box=np.empty((num_nodes, 6), xyz.dtype),
        right=np.empty(num_nodes, np.int32),
        lowest=np.empty(num_nodes, np.int32),
    )
    _grow(xyz, np.arange(n, dtype=np.int32), *tree)
    return tree


@kernel
def _rank(squared, index):
    """One integer that sorts like (squared distance, index).

    The bits of a float32 >= 0 sort like its value; they go above the index.
    """
    return (np.int64(np.float32(squared).view(np.int32)) << 32) | index


@kernel
def _bound(box, lowest, node, x, y, z):
    """The rank that no point below `node` can beat.

    Each operation is monotonic and in the order of the point distance, so this holds after
    rounding too: pruning needs no tolerance.
    """
    zero = x - x
    dx, ex = box[node, 0] - x, x - box[node, 3]
    dy, ey = box[node, 1] - y, y - box[node, 4]
    dz, ez = box[node, 2] - z, z - box[node, 5]
    dx = dx if dx > ex else ex
    dy = dy if dy > ey else ey
    dz = dz if dz > ez else ez
    dx = dx if dx > zero else zero
    dy = dy if dy > zero else zero
    dz = dz if dz > zero else zero
    return _rank(dx * dx + dy * dy + dz * dz, lowest[node])


@kernel
def _rank_leaf(leaf_xyz, leaf_index, leaf, x, y, z, ranks):
    """Write the ranks of the points of a leaf."""
    for j in range(LEAF_SIZE):
        dx = leaf_xyz[leaf, 0, j] - x
        dy = leaf_xyz[leaf, 1, j] - y
        dz = leaf_xyz[leaf, 2, j] - z
        ranks[j] = _rank(dx * dx + dy * dy + dz * dz, leaf_index[leaf, j])


@kernel
def _insert(ranks, best):
    """Insert the ranks of a leaf into the sorted ones `best[1:]`; return the last of these."""
    k = len(best) - 1
    worst = best[k]
    for rank in ranks:
        if rank < worst:
            at = k
            while best[at - 1] > rank:
                best[at] = best[at - 1]
                at -= 1
            best[at] = rank
            worst = best[k]
    return worst


@kernel
def _collect(ranks, worst, pool, count):
    """Append the ranks of a leaf that are below `worst`; return how many there are now."""
    for rank in ranks:
        pool[0, count] = rank  # kept by advancing
        count += rank < worst
    return count


@kernel
def _cut(pool, count, k):
    """Put the k lowest of the ranks collected first; return the highest of these."""
    if pool is None:
        return NOTHING
    select(pool[0], pool[1], np.int64(0), count, k - 1)
    return pool[0, k - 1]


@kernel
def _search(query, leaf_xyz, leaf_index, box, right, lowest, distance, index, pool) -> None:
    """Do the work of `search_nearest`, or leave unsorted ranks in `index` if there is a pool.

    `pool` holds ranks in any order and a row of scratch: [2 2k+2*LEAF_SIZE]. Where it is None,
    numba leaves out the branches that use it, so that few neighbours wait for less to compile.
    """
    m, k = index.shape
    nodes = np.empty(MAX_DEPTH, np.int64)
    bounds = np.empty(MAX_DEPTH, np.int64)
    ranks = np.empty(LEAF_SIZE, np.int64)
    best = np.empty(k + 1, np.int64)  # ranks in ascending order, after a guard
    for q in range(m):
        x, y, z = query[q, 0], query[q, 1], query[q, 2]
        best[:] = NOTHING
        best[0] = -1
        worst = NOTHING
        count = np.int64(0)
        nodes[0], bounds[0] = 0, -1
        top = 1
        while top > 0 or count > k:
            if top == 0 or count > 2 * k:
                count, worst = k, _cut(pool, count, k)
                continue
            top -= 1
            node, bound = nodes[top], bounds[top]
            while bound < worst:
                far = np.int64(right[node])
                if far >= 0:
                    near = node + 1
                    bound = _bound(box, lowest, near, x, y, z)
                    far_bound = _bound(box, lowest, far, x, y, z)
                    if far_bound < bound:
                        near, far = far, near
                        bound, far_bound = far_bound, bound
                    nodes[top], bounds[top] = far, far_bound
                    top += 1
                    node = near
                    continue
                _rank_leaf(leaf_xyz, leaf_index, -1 - far, x, y, z, ranks)
                if pool is None:
                    worst = _insert(ranks, best)
                else:
                    count = _collect(ranks, worst, pool, count)
                break
        for j in range(k):
            if pool is None:
                distance[q, j] = np.sqrt(np.int32(best[j + 1] >> 32).view(np.float32))
                index[q, j] = best[j + 1] & 0xFFFFFFFF
            else:
                index[q, j] = pool[0, j]


def search_nearest(
    query: np.ndarray, tree: KDTree, distance: np.ndarray, index: np.ndarray
) -> None:
    """Write the k nearest points of each query, nearest first, ties by index."""
    k = index.shape[1]
    if k <= MOST_SORTED:
        _search(query, *tree, distance, index, None)
        return
    _search(query, *tree, distance, index, np.empty((2, 2 * k + 2 * LEAF_SIZE), np.int64))
    index.sort(axis=1)
    np.right_shift(index, 32, out=distance.view(np.int32), casting="unsafe")
    np.sqrt(distance, out=distance)
    index &= 0xFFFFFFFF
