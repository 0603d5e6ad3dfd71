"""Kernels on rotated boxes: how much two overlap, and which points are in which.

A box is a row (x, y, z, length, width, height, yaw) of float64; see `boxes`.
"""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import numpy as np

from pc_geometry.compiling import kernel

_MAX_CORNERS = 64
"""Room for the corners of a rectangle clipped by another: eight, and whatever rounding may add."""


@kernel
def _clip(polygon, n, axis, sign, limit, kept):
    """Write the part of a convex polygon where sign * coordinate <= limit; return its corners."""
    m = 0
    other = 1 - axis
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        start, end = sign * polygon[i, axis], sign * polygon[j, axis]
        if start <= limit:
            kept[m, 0], kept[m, 1] = polygon[i, 0], polygon[i, 1]
            m += 1
        if (start < limit < end) or (end < limit < start):
            t = (limit - start) / (end - start)
            kept[m, axis] = sign * limit
            kept[m, other] = polygon[i, other] + t * (polygon[j, other] - polygon[i, other])
            m += 1
    return m


@kernel
def _shared_area(a, b, polygon, kept):
    """Return the area that the rectangles of two boxes share, seen from above.

    The first is clipped in the frame of the second, where the second has sides along the axes:
    nothing but comparisons with half its length and width, and no parallel lines to intersect.
    """
    dx, dy = a[0] - b[0], a[1] - b[1]
    cos, sin = np.cos(b[6]), np.sin(b[6])
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    cos, sin = np.cos(a[6] - b[6]), np.sin(a[6] - b[6])
    lx, ly = 0.5 * a[3] * cos, 0.5 * a[3] * sin
    wx, wy = -0.5 * a[4] * sin, 0.5 * a[4] * cos
    polygon[0, 0], polygon[0, 1] = x + lx + wx, y + ly + wy
    polygon[1, 0], polygon[1, 1] = x - lx + wx, y - ly + wy
    polygon[2, 0], polygon[2, 1] = x - lx - wx, y - ly - wy
    polygon[3, 0], polygon[3, 1] = x + lx - wx, y + ly - wy
    n = np.int64(4)
    for side in range(4):
        axis = side >> 1
        n = _clip(polygon, n, axis, 1.0 - 2.0 * (side & 1), 0.5 * b[3 + axis], kept)
        polygon, kept = kept, polygon
    twice = 0.0
    for i in range(1, n - 1):  # a fan around the first corner
        px, py = polygon[i, 0] - polygon[0, 0], polygon[i, 1] - polygon[0, 1]
        qx, qy = polygon[i + 1, 0] - polygon[0, 0], polygon[i + 1, 1] - polygon[0, 1]
        twice += px * qy - py * qx
    return 0.5 * abs(twice)


@kernel
def _iou(a, b, polygon, kept):
    """Return the intersection over union of two boxes, 0 where the union is empty."""
    dz = a[2] - b[2]
    low, high = max(dz - 0.5 * a[5], -0.5 * b[5]), min(dz + 0.5 * a[5], 0.5 * b[5])
    if high <= low:
        return 0.0
    volume_a, volume_b = a[3] * a[4] * a[5], b[3] * b[4] * b[5]
    shared = _shared_area(a, b, polygon, kept) * (high - low)
    shared = min(shared, min(volume_a, volume_b))  # of a tuple takes longer to compile
    union = volume_a + volume_b - shared
    return shared / union if union > 0.0 else 0.0


@kernel
def _far(a, b, radius_a, radius_b):
    """Tell whether circles around two boxes are apart."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    reach = radius_a + radius_b
    return dx * dx + dy * dy > reach * reach


@kernel
def fill_iou(a, b, radius_a, radius_b, iou) -> None:
    """Write the intersection over union of all pairs; `iou` starts with zeros."""
    polygon, kept = np.empty((_MAX_CORNERS, 2)), np.empty((_MAX_CORNERS, 2))
    for i in range(len(a)):
        for j in range(len(b)):
            if not _far(a[i], b[j], radius_a[i], radius_b[j]):
                iou[i, j] = _iou(a[i], b[j], polygon, kept)


@kernel
def suppress(boxes, radius, threshold, spans, num_columns, splits, members, left) -> None:
    """Clear `left` of boxes that overlap an earlier one left by more than the threshold.

    The boxes must be listed by cell; see `list_boxes`. Two are compared in the first cell that both
    touch, nowhere else.
    """
    polygon, kept = np.empty((_MAX_CORNERS, 2)), np.empty((_MAX_CORNERS, 2))
    for i in range(len(boxes)):
        if not left[i]:
            continue
        for row in range(spans[i, 2], spans[i, 3] + 1):
            for column in range(spans[i, 0], spans[i, 1] + 1):
                cell = row * num_columns + column
                for k in range(splits[cell], splits[cell + 1]):
                    j = members[k]
                    if j <= i or not left[j] or _far(boxes[i], boxes[j], radius[i], radius[j]):
                        continue
                    x, y = max(spans[i, 0], spans[j, 0]), max(spans[i, 2], spans[j, 2])
                    if x == column and y == row:
                        left[j] = _iou(boxes[i], boxes[j], polygon, kept) <= threshold


@kernel
def list_boxes(spans, num_columns, ends, members) -> None:
    """Count the boxes that touch each cell of a dense grid, or list them in ascending order.

    `spans` holds the first and last column and row of each box. `ends` is counted up for each box
    found, which is written there unless `members` is empty.
    """
    for b in range(len(spans)):
        for row in range(spans[b, 2], spans[b, 3] + 1):
            for column in range(spans[b, 0], spans[b, 1] + 1):
                cell = row * num_columns + column
                if len(members) > 0:
                    members[ends[cell]] = b
                ends[cell] += 1


@kernel
def list_points(points, first, boxes, turn, grid, splits, members, ends, indices) -> None:
    """Count the points in each box, or list them in ascending order.

    `first` is the index of the first of the points, `turn` holds the cosine and sine of each yaw,
    `grid` the lower corner, the side of a cell and the numbers of columns and rows, `members` the
    boxes that touch cell c from `splits[c]` to `splits[c + 1]`. `ends` is as in `list_boxes`.
    """
    x0, y0, side, num_columns, num_rows = grid
    for i in range(len(points)):
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        column, row = np.floor((x - x0) / side), np.floor((y - y0) / side)
        if not (0.0 <= column < num_columns and 0.0 <= row < num_rows):
            continue
        cell = np.int64(row) * np.int64(num_columns) + np.int64(column)
        for k in range(splits[cell], splits[cell + 1]):
            b = members[k]
            dx, dy = x - boxes[b, 0], y - boxes[b, 1]
            along = abs(turn[b, 0] * dx + turn[b, 1] * dy)
            across = abs(turn[b, 0] * dy - turn[b, 1] * dx)
            inside = (along <= 0.5 * boxes[b, 3]) & (across <= 0.5 * boxes[b, 4])
            if inside & (abs(z - boxes[b, 2]) <= 0.5 * boxes[b, 5]):
                if len(indices) > 0:
                    indices[ends[b]] = first + i
                ends[b] += 1
