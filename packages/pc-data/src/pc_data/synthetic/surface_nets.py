"""A triangle mesh from a grid of signed distances.

Source: Constrained elastic surface nets (Gibson, MICCAI 1998), without the relaxation: one vertex
    a cell, in the middle of where the surface cuts its edges.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64


def surface_net(
    distance: Float32[np.ndarray, "a b c"],
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "n 3"], Int64[np.ndarray, "f 3"]]:
    """Mesh the zero level; faces turn counter-clockwise seen from where the distance is positive.

    Args:
        distance: At the grid's points, negative inside.

    Returns:
        Vertices in units of the grid, the cell that each lies in, and faces.
    """
    inside = distance < 0
    shape = np.array(distance.shape)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    cells, points, quads = [], [], []
    for axis in range(3):
        b, c = (axis + 1) % 3, (axis + 2) % 3
        ahead, here = (np.take(inside, np.arange(k, shape[axis] - 1 + k), axis) for k in (1, 0))
        edge = np.argwhere(ahead != here)
        # The four cells around an edge must exist.
        edge = edge[(edge[:, b] > 0) & (edge[:, c] > 0)]
        edge = edge[(edge[:, b] < shape[b] - 1) & (edge[:, c] < shape[c] - 1)]
        start = edge @ strides
        low, high = distance.ravel()[start], distance.ravel()[start + strides[axis]]
        point = edge.astype(np.float64)
        point[:, axis] += low / (low - high)
        # Counter-clockwise around the axis.
        around = [start - strides[b] - strides[c], start - strides[c], start, start - strides[b]]
        quad = np.stack(around, axis=1)
        quads.append(np.where((low < 0)[:, None], quad, quad[:, ::-1]))
        cells.extend(around)
        points.extend([point] * 4)
    quad, cell = np.concatenate(quads), np.concatenate(cells)
    used = np.zeros(distance.size, dtype=bool)
    used[cell] = True
    number = np.cumsum(used) - 1
    vertex = number[cell]
    total = np.concatenate(points)
    count = np.bincount(vertex)
    xyz = np.stack([np.bincount(vertex, total[:, k]) / count for k in range(3)], axis=1)
    quad = number[quad]
    faces = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    place = np.stack(np.unravel_index(np.flatnonzero(used), distance.shape), axis=1)
    return xyz, place, faces
