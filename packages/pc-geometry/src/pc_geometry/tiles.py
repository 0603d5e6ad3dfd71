"""A cloud cut into tiles in the plane, each with what surrounds it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from pc_geometry.arrays import require_count, require_points


class Tile(NamedTuple):
    """A part of a cloud: its core, and the ring around it that is there for context alone.

    Attributes:
        points: Indices of the points of core and ring, ascending.
        core: Which of them are of the core.
    """

    points: Int64[np.ndarray, " m"]
    core: Bool[np.ndarray, " m"]


def cut_tiles(
    xy: Float[np.ndarray, "n 2"],
    *,
    overlap: float,
    max_points: int,
    max_size: float = np.inf,
    counted: Bool[np.ndarray, " n"] | None = None,
) -> list[Tile]:
    """Cut a cloud into tiles whose cores share out its points, each in exactly one.

    A core is halved across the middle of its longer side until its tile is small enough, so tiles
    are small where points are dense, and none is empty. A tile holds every point that is no further
    than `overlap` from the rectangle around its core along both axes.

    Args:
        xy: Positions.
        overlap: Width of the ring, in the unit of `xy`.
        max_points: Points that a tile holds at most, ring included.
        max_size: Longest side of a core, in the unit of `xy`.
        counted: Points that count for `max_points`; all by default.

    Returns:
        The tiles, those with lower coordinates first.

    Raises:
        ValueError: If `max_points` or `max_size` is not positive, `overlap` is negative or not
            finite, a coordinate is not finite, or a tile holds too many points when its core is no
            longer than the ring is wide.

    >>> row = np.float32([[0, 0], [1, 0], [2, 0], [9, 0]])
    >>> [(t.points.tolist(), t.core.tolist()) for t in cut_tiles(row, overlap=1, max_points=3)]
    [([0, 1, 2], [True, True, True]), ([3], [True])]
    """
    xy = require_points(xy, name="xy", dims=(2,))
    max_points = require_count("max_points", max_points)
    if not (0 <= overlap < np.inf and max_size > 0):
        raise ValueError(
            f"overlap must be finite and 0 or more, and max_size positive, got {overlap} and "
            f"{max_size}"
        )
    counted = np.ones(len(xy), bool) if counted is None else counted
    if counted.shape != (len(xy),):
        raise ValueError(f"counted must be one flag for each of {len(xy)} points")

    places = np.ascontiguousarray(xy.T)  # whole columns are searched several times faster

    def cut(points: np.ndarray, core: np.ndarray) -> list[Tile]:
        place = places[:, points]
        low, high = place[:, core].min(axis=1), place[:, core].max(axis=1)
        (x, y), (left, lower), (right, upper) = place, low - overlap, high + overlap
        near = (x >= left) & (x <= right) & (y >= lower) & (y <= upper)
        points, core, place = points[near], core[near], place[:, near]
        side = high - low
        axis = int(side.argmax())
        count = int(counted[points].sum())
        if side[axis] <= max_size and count <= max_points:
            return [Tile(points, core)]
        if side[axis] <= min(overlap, max_size):
            raise ValueError(
                f"a tile of {side[axis]:g} and a ring of {overlap:g} around it hold {count} "
                f"points, more than max_points {max_points}; pass a larger max_points or a "
                "smaller overlap"
            )
        middle = low[axis] + side[axis] / 2
        below = place[axis] < (middle if middle > low[axis] else high[axis])
        del place, x, y, near  # the halves look for themselves
        return cut(points, core & below) + cut(points, core & ~below)

    return cut(np.arange(len(xy)), np.ones(len(xy), bool)) if len(xy) else []
