"""Colours of classes by their names, the same in every picture, and of numbers."""

import colorsys
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int64

IGNORED = (0.25, 0.28, 0.34)
"""Colour of points whose class is ignored."""

_GOLDEN = 0.6180339887  # numbers that follow one another get hues far apart

# For a dark ground. Related classes share a hue and differ in lightness, so that a person who
# sees fewer hues still tells ground, vehicles, people and plants apart.
_HEX = {
    "car": "3fa7ff",
    "truck": "1f6fe0",
    "bus": "4fe0e8",
    "trailer": "a5d8ff",
    "construction_vehicle": "1fb5a8",
    "other_vehicle": "1fb5a8",
    "bicycle": "c77dff",
    "motorcycle": "9d4edd",
    "pedestrian": "ff4b3e",
    "person": "ff4b3e",
    "bicyclist": "ff9ad5",
    "motorcyclist": "ff4fc3",
    "traffic_cone": "ff8c1a",
    "barrier": "f4d35e",
    "traffic_sign": "ffd400",
    "pole": "fff3b0",
    "fence": "c98f4e",
    "manmade": "d9c7a0",
    "building": "d9c7a0",
    "driveable_surface": "7a7f8c",
    "road": "7a7f8c",
    "parking": "a6a9b6",
    "other_flat": "8c6d8a",
    "other_ground": "8c6d8a",
    "sidewalk": "c9b8d8",
    "terrain": "a8b75a",
    "vegetation": "2fa56b",
    "trunk": "9c6b3f",
    "road_marking": "e8ecf5",
    "driveway": "a6a9b6",
    "ground": "8f8a80",
    "floor": "7a7f8c",
    "wall": "d9c7a0",
    "cabinet": "c98f4e",
    "bed": "ff9ad5",
    "chair": "3fa7ff",
    "sofa": "9d4edd",
    "table": "f4d35e",
    "door": "ff8c1a",
    "window": "a5d8ff",
    "bookshelf": "9c6b3f",
    "picture": "ff4fc3",
    "counter": "1fb5a8",
    "desk": "ffd400",
    "curtain": "c77dff",
    "refrigerator": "4fe0e8",
    "shower_curtain": "a8b75a",
    "toilet": "fff3b0",
    "sink": "1f6fe0",
    "bathtub": "2fa56b",
    "otherfurniture": "ff4b3e",
}


def class_colors(class_names: Sequence[str]) -> Float32[np.ndarray, "k 3"]:
    """Look up the colours of classes.

    A name that is not in the table gets a hue of its own from its letters, so a class keeps its
    colour whatever the other classes are. Case, dashes and spaces do not matter.

    Args:
        class_names: The classes, in the order of their labels.

    Returns:
        RGB in 0..1.
    """
    colors = [_color(name) for name in class_names]
    return np.array(colors, dtype=np.float32).reshape(-1, 3)


def number_colors(
    numbers: Int64[np.ndarray, " n"], *, saturation: float = 0.85
) -> Float64[np.ndarray, "n 3"]:
    """Give each number a hue of its own, far from those of the numbers next to it.

    Args:
        numbers: Of instances, clusters or volumes; from 0.
        saturation: In 0..1.

    Returns:
        RGB in 0..1.
    """
    top = int(numbers.max(initial=0)) + 1
    table = [colorsys.hsv_to_rgb(k * _GOLDEN % 1, saturation, 1.0) for k in range(top)]
    return np.array(table)[numbers]


def _color(name: str) -> tuple[float, float, float]:
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    if code := _HEX.get(key):
        red, green, blue = bytes.fromhex(code)
        return red / 255, green / 255, blue / 255
    hue = zlib.crc32(key.encode()) * _GOLDEN % 1
    return colorsys.hls_to_rgb(hue, 0.6, 0.65)
