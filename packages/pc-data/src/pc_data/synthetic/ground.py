"""The ground: road frame, cross-section, materials and the height raster."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64
from pc_geometry.compiling import kernel

from pc_data.synthetic.noise import normal3, value_noise

HALF_EXTENT = 80.0  # metres from the scene's centre to the raster's border
RESOLUTION = 0.16  # metres per raster sample
RASTER_SIZE = int(2 * HALF_EXTENT / RESOLUTION) + 2

# Values equal pc_data.synthetic.categories.Category.
_ROAD, _PARKING, _SIDEWALK, _OTHER, _TERRAIN, _MARKING = 1, 2, 3, 4, 5, 28


class Side(NamedTuple):
    """Strips beside the carriageway, from the road outwards; widths in metres."""

    parking: float
    verge: float
    walk: float
    paved_beyond: bool
    walk_height: float
    terrain_height: float


class Road(NamedTuple):
    """A main road through the origin along +x (left is +y), maybe crossed by a second one.

    Attributes:
        curvature: 1 / metres, positive turns left.
        half_width: Of the carriageway, metres.
        lanes: Number of lanes over the whole width.
        median: Half width of an island in the middle, 0 for none.
        left: Strips on the left side.
        right: Strips on the right side.
        crossing: Arc length at which the other road crosses (beyond the world for none).
        crossing_half: Half width of the crossing carriageway.
        slope: Height gain per metre in x and y.
        waves: (amplitude, wave number, phase) in x, then in y.
        roughness: Standard deviation of the terrain's tufts in metres.
        salt: Seed of the ground's noise.
    """

    curvature: float
    half_width: float
    lanes: int
    median: float
    left: Side
    right: Side
    crossing: float
    crossing_half: float
    slope: tuple[float, float]
    waves: tuple[float, float, float, float, float, float]
    roughness: float
    salt: int

    def params(self) -> Float64[np.ndarray, " p"]:
        """Pack for the kernels; the order is the one `ground_at` reads."""
        head = (self.curvature, self.half_width, self.lanes, self.median, self.crossing)
        tail = (self.crossing_half, *self.slope, *self.waves, self.roughness, self.salt)
        sides = [value for side in (self.left, self.right) for value in side]
        return np.array([*head, *tail, *sides], dtype=np.float64)

    def to_xy(self, s: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Road coordinates (arc length, offset to the left) to x, y and heading."""
        s = np.asarray(s, dtype=np.float64)
        d = np.asarray(d, dtype=np.float64)
        if abs(self.curvature) < 1e-9:
            return s + 0 * d, d + 0 * s, 0 * s
        heading = self.curvature * s
        radius = 1.0 / self.curvature
        return (radius - d) * np.sin(heading), radius - (radius - d) * np.cos(heading), heading


@kernel
def road_coordinates(x: float, y: float, curvature: float) -> tuple[float, float]:
    """Arc length along the main road and offset to its left."""
    if abs(curvature) < 1e-9:
        return x, y
    sign = 1.0 if curvature > 0 else -1.0
    radius = 1.0 / abs(curvature)
    across = radius - sign * y
    s = math.atan2(x, across) * radius
    return s, sign * (radius - math.sqrt(x * x + across * across))


@kernel
def ground_at(x: float, y: float, road: np.ndarray) -> tuple[int, float, float, float]:
    """Material of the ground, arc length, offset, and height above the smooth base."""
    s, d = road_coordinates(x, y, road[0])
    half = road[1]
    salt = int(road[15])
    beside = 16 if d >= 0 else 22
    away = abs(d) - half
    across = abs(s - road[4]) - road[5]
    walk_height = road[beside + 4]
    terrain_height = road[beside + 5]
    if across < 0.0 and away >= 0.0:
        return _ROAD, s, d, 0.0
    if away < 0.0:
        if abs(d) < road[3] and across > 6.0:
            return _OTHER, s, d, 0.12
        return _ROAD, s, d, 0.0
    if across < 2.2:
        return _SIDEWALK, s, d, walk_height
    parking = road[beside]
    if away < parking:
        return (_PARKING, s, d, 0.0) if across > 7.0 else (_SIDEWALK, s, d, walk_height)
    away -= parking
    if away < road[beside + 1] and across > 4.0:
        edge = 0.35 * value_noise(0.7 * x, 0.7 * y, salt) if terrain_height < 0.04 else 0.0
        if away > edge:
            return _TERRAIN, s, d, terrain_height
        return _SIDEWALK, s, d, walk_height
    away -= road[beside + 1]
    if away < road[beside + 2] or road[beside + 3] > 0.5:
        return _SIDEWALK, s, d, walk_height
    if away < road[beside + 2] + 0.3 * value_noise(0.9 * x, 0.9 * y, salt + 1):
        return _SIDEWALK, s, d, walk_height
    return _TERRAIN, s, d, terrain_height


@kernel
def base_height(x: float, y: float, road: np.ndarray) -> float:
    """Height of the smooth land under the kerbs and tufts, metres."""
    slope = road[6] * x + road[7] * y
    waves = road[8] * math.sin(road[9] * x + road[10]) + road[11] * math.sin(
        road[12] * y + road[13]
    )
    return slope + waves


@kernel
def ground_height(x: float, y: float, road: np.ndarray) -> float:
    """Full height of the ground: land, kerb step and roughness, metres."""
    material, _, d, step = ground_at(x, y, road)
    salt = int(road[15])
    if material == _TERRAIN:
        rough = road[14] * (2.4 * value_noise(2.7 * x, 2.7 * y, salt + 2) - 1.2)
        rough += 0.5 * road[14] * normal3(int(x * 6.25), int(y * 6.25), salt + 3)
        rough += 0.10 * (value_noise(0.45 * x, 0.45 * y, salt + 4) - 0.5)
    elif material == _ROAD:
        crown = 0.02 * min(abs(d), road[1])
        rough = 0.012 * (value_noise(0.8 * x, 0.8 * y, salt + 5) - 0.5) - crown
    else:
        crown = 0.02 * road[1]
        rough = 0.016 * (value_noise(1.3 * x, 1.3 * y, salt + 6) - 0.5) - crown
    return base_height(x, y, road) + step + rough


@kernel
def _fill_heights(road: np.ndarray, heights: np.ndarray) -> None:
    for row in range(heights.shape[0]):
        for column in range(heights.shape[1]):
            x = column * RESOLUTION - HALF_EXTENT
            y = row * RESOLUTION - HALF_EXTENT
            heights[row, column] = ground_height(x, y, road)


def height_raster(road: Road) -> Float32[np.ndarray, "rows columns"]:
    """Sample the ground's height every `RESOLUTION` metres, row = y, column = x."""
    heights = np.empty((RASTER_SIZE, RASTER_SIZE), dtype=np.float32)
    _fill_heights(road.params(), heights)
    return heights


@kernel
def lane_marking(s: float, d: float, road: np.ndarray) -> bool:
    """Whether that spot of the carriageway is painted."""
    half = road[1]
    to_crossing = abs(s - road[4]) - road[5]
    if to_crossing < 2.6:
        return 0.4 < to_crossing < 2.2 and abs(d) < half - 0.3 and (d + 50.0) % 1.1 < 0.55
    if 3.0 < to_crossing < 3.4:
        return abs(d) < half - 0.2 and d * (s - road[4]) > 0.0
    if abs(abs(d) - (half - 0.25)) < 0.07:
        return True
    lanes = int(road[2])
    for lane in range(1, lanes):
        offset = d - (2.0 * half * lane / lanes - half)
        if 2 * lane == lanes:
            if abs(abs(offset) - 0.12) < 0.06:
                return True
        elif abs(offset) < 0.07 and (s + 1000.0) % 6.0 < 3.0:
            return True
    return False
