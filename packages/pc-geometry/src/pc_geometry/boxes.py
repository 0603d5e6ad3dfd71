"""Boxes that stand upright: which points they hold, how they overlap, which ones to keep.

A box is x, y, z of its centre, length, width and height in metres, and its yaw in radians, counter-
clockwise around +z. At yaw 0 the length is along +x.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.overlaps import fill_iou, list_boxes, list_points, suppress
from pc_geometry.threads import share_parts

_MAX_CELLS = 256
"""Cells on an axis of the grid that sorts boxes by place."""

_LARGEST = 1e100
"""Largest number in a box: products of three of them stay finite."""

_SLACK = 1e-9
"""Widening of the rectangle that a box is looked for in, relative and absolute (metres)."""


def box_corners(boxes: Float[np.ndarray, "b 7"]) -> Float64[np.ndarray, "b 8 3"]:
    """Compute the corners of each box: the four below counter-clockwise, then those above.

    The first one is ahead on the left: at (+length, +width) / 2 in the box's own frame.

    Raises:
        ValueError: If the shape is not [b 7], a number is not finite or beyond 1e100, or a side is
            negative.

    >>> box_corners(np.array([[0, 0, 0, 4.0, 2, 2, 0]]))[0, [0, 1, 6]].tolist()
    [[2.0, 1.0, -1.0], [-2.0, 1.0, -1.0], [-2.0, -1.0, 1.0]]
    """
    boxes = _require_boxes("boxes", boxes)
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    along, across = np.moveaxis(signs * boxes[:, None, 3:5] / 2, 2, 0)  # each [b 4]
    cos, sin = np.cos(boxes[:, 6:]), np.sin(boxes[:, 6:])
    corners = np.empty((len(boxes), 2, 4, 3))
    corners[..., 0] = (boxes[:, :1] + cos * along - sin * across)[:, None]
    corners[..., 1] = (boxes[:, 1:2] + sin * along + cos * across)[:, None]
    corners[..., 2] = (boxes[:, 2:3] + boxes[:, 5:6] / 2 * np.array([-1, 1]))[:, :, None]
    return corners.reshape(-1, 8, 3)


def points_in_boxes(
    points: Float[np.ndarray, "n 3"], boxes: Float[np.ndarray, "b 7"], *, num_threads: int = 1
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " b+1"]]:
    """List the points in each box, its surface included.

    Computed in float64. A point may be in several boxes.

    Args:
        points: Positions in the frame of the boxes.
        boxes: Upright boxes.
        num_threads: Threads that share the points; 1 is right inside a data-loader worker.

    Returns:
        Indices of points and where those of each box start: box i holds the points
        `indices[splits[i]:splits[i + 1]]`, in ascending order.

    Raises:
        ValueError: If a shape is wrong, a number is not finite or beyond 1e100, a side is negative
            or `num_threads` is not positive.

    >>> points = np.array([[0.0, 0, 0], [5, 0, 0], [0, 1, 0]])
    >>> boxes = np.array([[0, 0, 0, 2.0, 2, 2, 0], [9, 9, 0, 1, 1, 1, 0], [5, 0, 0, 2, 1, 1, 1.5]])
    >>> indices, splits = points_in_boxes(points, boxes)
    >>> indices.tolist(), splits.tolist()
    ([0, 2, 1], [0, 2, 2, 3])
    """
    points = require_points(points, dims=(3,))
    return list_members(points, _require_boxes("boxes", boxes), num_threads)


def iou_bev(a: Float[np.ndarray, "m 7"], b: Float[np.ndarray, "n 7"]) -> Float64[np.ndarray, "m n"]:
    """Compute the intersection over union of all pairs of boxes seen from above.

    The rectangles are clipped exactly, in float64; z and height do not count. Pairs whose union
    has no area get 0.

    Raises:
        ValueError: If a shape is not [n 7], a number is not finite or beyond 1e100, or a side is
            negative.

    >>> car = np.array([[0, 0, 0, 4.0, 2, 1.5, 0]])
    >>> iou_bev(car, car + np.array([2.0, 0, 9, 0, 0, 0, np.pi])).round(6).tolist()
    [[0.333333]]
    """
    return iou_3d(_flatten(_require_boxes("a", a)), _flatten(_require_boxes("b", b)))


def iou_3d(a: Float[np.ndarray, "m 7"], b: Float[np.ndarray, "n 7"]) -> Float64[np.ndarray, "m n"]:
    """Compute the intersection over union of the volumes of all pairs of boxes.

    As `iou_bev`, with heights.

    Raises:
        ValueError: If a shape is not [n 7], a number is not finite or beyond 1e100, or a side is
            negative.

    >>> cube = np.array([[0, 0, 0, 2.0, 2, 2, 0]])
    >>> iou_3d(cube, cube + np.array([0, 0, 1.0, 0, 0, 0, 0])).round(6).tolist()
    [[0.333333]]
    """
    a, b = _require_boxes("a", a), _require_boxes("b", b)
    iou = np.zeros((len(a), len(b)))
    fill_iou(a, b, _radius(a), _radius(b), iou)
    return iou


def nms(
    boxes: Float[np.ndarray, "b 7"],
    scores: Float[np.ndarray, " b"],
    iou_threshold: float,
    *,
    bev: bool = True,
) -> Int64[np.ndarray, " k"]:
    """Keep the best of boxes that overlap (non-maximum suppression).

    Boxes are taken by descending score, equal ones by ascending index. Each one taken removes
    those left whose intersection over union with it is above the threshold.

    Args:
        boxes: Candidates, of one class.
        scores: Their confidence.
        iou_threshold: In [0, 1].
        bev: Compare the boxes seen from above (`iou_bev`), as detectors of vehicles do; otherwise
            their volumes (`iou_3d`).

    Returns:
        Indices of the kept boxes, by descending score.

    Raises:
        ValueError: If a shape is wrong, a number is not finite or beyond 1e100, a side is negative
            or the threshold is outside [0, 1].

    >>> boxes = np.array([[0, 0, 0, 4.0, 2, 2, 0], [1, 0, 0, 4, 2, 2, 0], [9, 0, 0, 4, 2, 2, 0]])
    >>> nms(boxes, np.array([0.3, 0.9, 0.5]), 0.5).tolist()
    [1, 2]
    """
    boxes = _require_boxes("boxes", boxes)
    scores = np.asarray(scores)
    if scores.shape != (len(boxes),) or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be {len(boxes)} finite numbers (one a box), got shape {scores.shape} "
            f"with {int((~np.isfinite(scores)).sum())} not finite"
        )
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in [0, 1], got {iou_threshold}")
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    ranked = (_flatten(boxes) if bev else boxes)[order]
    left = np.ones(len(ranked), np.bool_)
    if len(ranked):
        place = _sort_by_place(ranked)
        lists = place.spans, place.num_columns, place.splits, place.members
        suppress(ranked, _radius(ranked), float(iou_threshold), *lists, left)
    return order[left]


def list_members(
    points: np.ndarray, boxes: np.ndarray, num_threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Do the work of `points_in_boxes` on checked arrays; heights may be infinite."""
    num_threads = require_count("num_threads", num_threads)
    if not len(points) or not len(boxes):
        return np.empty(0, np.int64), np.zeros(len(boxes) + 1, np.int64)
    turn = _turn(boxes)
    place = _sort_by_place(boxes)
    grid = (*place.start, place.side, float(place.num_columns), float(place.num_rows))
    num_parts = 4 * num_threads if num_threads > 1 else 1
    cuts = np.linspace(0, len(points), num_parts + 1).astype(int)
    ends = np.zeros((num_parts, len(boxes)), np.int64)

    def visit(indices: np.ndarray) -> None:
        def visit_part(part: int) -> None:
            rows = slice(cuts[part], cuts[part + 1])
            lists = place.splits, place.members, ends[part], indices
            list_points(points[rows], cuts[part], boxes, turn, grid, *lists)

        share_parts(visit_part, num_parts, num_threads)

    visit(np.empty(0, np.int64))
    total = np.cumsum(ends.T)  # by box, then by part
    splits = np.append(0, total[num_parts - 1 :: num_parts])
    ends[:] = (total.reshape(len(boxes), num_parts) - ends.T).T
    indices = np.empty(splits[-1], np.int64)
    if len(indices):
        visit(indices)
    return indices, splits


class _Places(NamedTuple):
    """A dense grid seen from above, and the boxes that touch each of its cells.

    Attributes:
        start: Lower corner (x, y).
        side: Side of a cell.
        num_columns: Cells along x.
        num_rows: Cells along y.
        spans: First and last column, first and last row of each box: int64 [b 4].
        splits: Where the boxes of each cell, row by row, start in `members`.
        members: Boxes, ascending in each cell.
    """

    start: tuple[float, float]
    side: float
    num_columns: int
    num_rows: int
    spans: np.ndarray
    splits: np.ndarray
    members: np.ndarray


def _sort_by_place(boxes: np.ndarray) -> _Places:
    """Lay a grid over at least one box, with cells about half the size of a box."""
    cos, sin = np.abs(_turn(boxes).T)
    length, width = boxes[:, 3] / 2, boxes[:, 4] / 2
    half = np.stack([cos * length + sin * width, sin * length + cos * width], axis=1)
    half += _SLACK * (1 + half + np.abs(boxes[:, :2]))
    lower, upper = boxes[:, :2] - half, boxes[:, :2] + half
    start = lower.min(axis=0)
    side = float(max(half.mean(), (upper.max(axis=0) - start).max() / _MAX_CELLS))
    first, last = ((end - start) / side for end in (lower, upper))
    spans = np.stack([first, last], axis=2).astype(np.int64).reshape(-1, 4)
    num_columns, num_rows = int(spans[:, 1].max()) + 1, int(spans[:, 3].max()) + 1
    ends = np.zeros(num_columns * num_rows, np.int64)
    list_boxes(spans, num_columns, ends, np.empty(0, np.int64))
    splits = np.append(0, np.cumsum(ends))
    members = np.empty(splits[-1], np.int64)
    list_boxes(spans, num_columns, splits[:-1].copy(), members)
    corner = float(start[0]), float(start[1])
    return _Places(corner, side, num_columns, num_rows, spans, splits, members)


def _turn(boxes: np.ndarray) -> np.ndarray:
    """Return the cosine and the sine of each yaw."""
    return np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1)


def _require_boxes(name: str, boxes: np.ndarray) -> np.ndarray:
    """Return finite boxes, no number beyond `_LARGEST`, as a contiguous float64 array [b 7]."""
    if boxes.ndim != 2 or boxes.shape[1] != 7:
        raise ValueError(
            f"{name} must have shape [b 7] (x, y, z, length, width, height, yaw), got {boxes.shape}"
        )
    boxes = np.ascontiguousarray(boxes, np.float64)
    if not np.isfinite(boxes).all():
        bad = np.flatnonzero(~np.isfinite(boxes).all(axis=1))
        raise ValueError(
            f"{name} must be finite, got {len(bad)} of {len(boxes)} boxes with NaN or infinite "
            f"numbers, the first at index {bad[0]}; drop them first"
        )
    if np.abs(boxes).max(initial=0.0) > _LARGEST:
        bad = np.flatnonzero((np.abs(boxes) > _LARGEST).any(axis=1))
        raise ValueError(
            f"{name} must hold numbers of at most {_LARGEST:g}, got {len(bad)} of {len(boxes)} "
            f"boxes with larger ones, the first at index {bad[0]}; drop them first"
        )
    if (boxes[:, 3:6] < 0).any():
        bad = np.flatnonzero((boxes[:, 3:6] < 0).any(axis=1))
        raise ValueError(
            f"{name} must have length, width and height of at least 0, got "
            f"{boxes[bad[0], 3:6].tolist()} at index {bad[0]}"
        )
    return boxes


def _flatten(boxes: np.ndarray) -> np.ndarray:
    """Return the boxes at z = 0 with height 1, whose volumes are their areas."""
    flat = boxes.copy()
    flat[:, 2], flat[:, 5] = 0.0, 1.0
    return flat


def _radius(boxes: np.ndarray) -> np.ndarray:
    """Return half the diagonal of each rectangle."""
    return np.hypot(boxes[:, 3], boxes[:, 4]) / 2
