"""Points seen obliquely from above, nearer ones in front: rooms without ceiling and near walls."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from pc_geometry import knn

REACH = 40.0
"""Metres of a street that a picture shows around its middle."""

AZIMUTH, ELEVATION = np.deg2rad((-62.0, 52.0))
"""Of the eye, radians."""

WALLS = 0.8
"""Share of a room's height that is shown."""

_LARGEST_ROOM = 30.0  # metres along x or y; what reaches further is a street
_GROUND = (0.078, 0.09, 0.122)  # the class colours are made for a dark ground
_CEILING = 1.5  # metres; what is lower has none
_WALL = 0.6  # metres; what is lower has none
_STRIP = 0.25  # metres behind the near outline that are taken for wall
_BIN = 0.1  # metres of outline that share one distance
_SHADOWS = ((1, 0.10, 0.5), (4, 0.30, 0.35), (10, 0.60, 0.3))  # pixels, metres, strength


@dataclass(frozen=True, kw_only=True)
class ObliqueView:
    """Which point each pixel shows; the colours come later.

    Attributes:
        index: The point that a pixel shows, -1 = none.
        light: 0..1, darker where something nearer stands beside.
        pixel: (column, row) of each point, also of hidden ones.
    """

    index: Int64[np.ndarray, "h w"]
    light: Float32[np.ndarray, "h w"]
    pixel: Float32[np.ndarray, "n 2"]

    def paint(self, color: Float[np.ndarray, "n 3"]) -> Float32[np.ndarray, "h w 3"]:
        """Make the picture of points in given colours, RGB in 0..1."""
        image = np.full((*self.index.shape, 3), _GROUND, np.float32)
        seen = self.index >= 0
        image[seen] = np.clip(color[self.index[seen]], 0, 1) * self.light[seen, None]
        return image

    def is_visible(self) -> Bool[np.ndarray, " n"]:
        """Whether any pixel shows a point."""
        seen = np.zeros(len(self.pixel), bool)
        seen[self.index[self.index >= 0]] = True
        return seen


def is_room(xyz: Float[np.ndarray, "n 3"]) -> bool:
    """Whether nearly all points lie within 30 m."""
    if not len(xyz):
        return True
    low, high = np.percentile(xyz[:, :2], (1, 99), axis=0)
    return float((high - low).max()) < _LARGEST_ROOM


def view_middle(xyz: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " 2"]:
    """Middle of a picture in x and y: the sensor, if it stands among the points or 10 m aside."""
    if not len(xyz):
        return np.zeros(2)
    low, high = np.percentile(xyz[:, :2], (1, 99), axis=0)
    return np.zeros(2) if ((low < 10) & (high > -10)).all() else (low + high) / 2


def oblique_view(xyz: Float[np.ndarray, "n 3"], *, width: int = 800) -> ObliqueView:
    """Look at points from above and aside, without perspective.

    Of a room, the upper fifth (the ceiling) and the walls between it and the eye are left out; of
    a street, what lies further than 40 m from its middle.

    Args:
        xyz: Points in metres, z up.
        width: Of the picture, in pixels; its height follows from the points.
    """
    xyz = np.asarray(xyz, np.float32)
    kept = _room_inside(xyz) if is_room(xyz) else _near_middle(xyz)
    right, up, toward = _axes()
    place = np.stack((xyz @ right, -(xyz @ up)), axis=1)
    if not kept.any():
        empty = np.full((width, width), -1)
        return ObliqueView(index=empty, light=np.ones(empty.shape, np.float32), pixel=0 * place)
    low, high = np.percentile(place[kept], (0.1, 99.9), axis=0)
    size = np.maximum(high - low, 1e-3)
    margin = 0.03 * size.max()
    scale = width / max(size[0] + 2 * margin, 0.6 * size[1])
    height = int(np.ceil(scale * (size[1] + 2 * margin)))
    pixel = ((place - (low + high) / 2) * scale + (width / 2, height / 2)).astype(np.float32)
    dot = int(np.clip(np.ceil(1.6 * scale * point_spacing(xyz[kept])), 3, 12))
    index, depth = _splat(pixel, xyz @ toward, np.flatnonzero(kept), (height, width), dot)
    return ObliqueView(index=index, light=_light(depth), pixel=pixel)


def _axes() -> np.ndarray:
    """Right, up and toward the eye, as rows."""
    (sin_a, sin_e), (cos_a, cos_e) = (f((AZIMUTH, ELEVATION)) for f in (np.sin, np.cos))
    return np.array(
        [
            [-sin_a, cos_a, 0],
            [-sin_e * cos_a, -sin_e * sin_a, cos_e],
            [cos_e * cos_a, cos_e * sin_a, sin_e],
        ],
        np.float32,
    )


def _near_middle(xyz: np.ndarray) -> np.ndarray:
    return np.abs(xyz[:, :2] - view_middle(xyz)).max(axis=1) < REACH


def _room_inside(xyz: np.ndarray) -> np.ndarray:
    """All but the ceiling and what stands at the outline that is nearest to the eye."""
    if not len(xyz):
        return np.zeros(0, bool)
    floor, top = np.percentile(xyz[:, 2], (1, 99.5))
    tall = float(top - floor)
    if tall < _WALL:
        return np.ones(len(xyz), bool)
    height = (xyz[:, 2] - floor) / tall
    kept = (height < WALLS) | (tall < _CEILING)
    right, _, toward = _axes()
    ahead = xyz[:, :2] @ (toward[:2] / np.linalg.norm(toward[:2]))
    side = xyz @ right
    column = ((side - side.min()) / _BIN).astype(np.int64)
    order = np.argsort(column, kind="stable")
    starts = np.flatnonzero(np.diff(column[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        strip = members[ahead[members] > np.percentile(ahead[members], 98) - _STRIP]
        if (height[strip] > WALLS / 2).any():
            kept[strip] &= height[strip] < 0.05
    return kept


def point_spacing(xyz: np.ndarray) -> float:
    """Distance from a point to its fourth neighbour on a well-scanned surface, metres."""
    if len(xyz) < 5:
        return 0.0
    some = xyz[:: max(len(xyz) // 2000, 1)]
    distance, _ = knn(some, xyz, 5)
    return float(np.percentile(distance[:, 4], 60))


def _splat(
    pixel: np.ndarray, depth: np.ndarray, points: np.ndarray, size: tuple[int, int], dot: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points as dots; each pixel keeps the one nearest to the eye, and its depth."""
    height, width = size
    nearest = np.full(height * width, -np.inf, np.float32)
    index = np.full(height * width, -1)
    steps = np.arange(dot) - (dot - 1) / 2
    dots = [(x, y) for x in steps for y in steps if x * x + y * y <= max(dot * dot / 4, 0.5)]
    covered = []
    for step in dots:
        column, row = np.floor(pixel[points] + np.array(step, np.float32)).astype(np.int64).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        covered.append(((row * width + column)[inside], points[inside]))
        np.maximum.at(nearest, covered[-1][0], depth[covered[-1][1]])
    for target, which in covered:
        front = depth[which] == nearest[target]
        index[target[front]] = which[front]
    return index.reshape(size), nearest.reshape(size)


def _light(depth: np.ndarray) -> np.ndarray:
    """Darken pixels beside nearer ones, which draws outlines and soft shadows.

    Source: eye-dome lighting (Boucheny, PhD thesis, Grenoble 2009); differs in that
        steps in depth are cut off rather than damped, at three radii.
    """
    light = np.ones(depth.shape, np.float32)
    seen = np.isfinite(depth)
    own = np.where(seen, depth, 0)
    for radius, reach, strength in _SHADOWS:
        around = np.pad(np.where(seen, depth, -np.inf), radius, constant_values=-np.inf)
        total = np.zeros(depth.shape, np.float32)
        for angle in np.arange(8) * np.pi / 4:
            row, column = (radius + round(radius * f(angle)) for f in (np.sin, np.cos))
            beside = around[row : row + depth.shape[0], column : column + depth.shape[1]]
            total += np.clip((beside - own) / reach, 0, 1)
        light *= 1 - strength * total / 8
    return np.where(seen, light, 1).astype(np.float32)
