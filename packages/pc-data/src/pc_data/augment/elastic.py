"""Elastic distortion: smooth noise bends a scene."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import dataclasses

import numpy as np
from jaxtyping import Float32
from pc_geometry.compiling import kernel
from pc_geometry.keys import axis_bounds

from pc_data.augment.draws import happens, require_least
from pc_data.errors import DataError
from pc_data.scan import Scan

_MAX_NODES = 2**24
"""Nodes of the noise's grid: 200 MB."""

_BLURS = 2


def elastic_distortion(
    scan: Scan,
    rng: np.random.Generator,
    *,
    scales: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6)),
    probability: float = 0.95,
) -> Scan:
    """Bend a scene by smooth noise of one or more scales, one after the other.

    Noise is drawn at the nodes of a grid, smoothed, and read between them at each point. Normals,
    boxes and cameras stay as they are.

    Args:
        scan: A room; a grid as fine as the defaults over a street is refused.
        rng: Draws the noise.
        scales: Of each distortion the distance of the nodes and the factor of the unit noise, both
            in metres.
        probability: Of distorting at all.

    Raises:
        ValueError: If a distance is not positive or a factor is negative.
        DataError: If the grid would have more than 2^24 nodes.

    Source: MinkowskiNet (Choy et al., CVPR 2019), with the parameters of MSC's fine-tuning (Wu et
        al., CVPR 2023, released code).
    """
    for distance, factor in scales:
        require_least("a distance of scales", distance, above=True)
        require_least("a factor of scales", factor)
    if not happens(rng, probability) or not len(scan):
        return scan
    xyz = scan.xyz
    for distance, factor in scales:
        xyz = xyz + np.float32(factor) * _smooth_noise(xyz, rng, distance, scan.name)
    return dataclasses.replace(scan, xyz=xyz)


def _smooth_noise(
    xyz: Float32[np.ndarray, "n 3"], rng: np.random.Generator, distance: float, name: str
) -> Float32[np.ndarray, "n 3"]:
    """Draw noise with a border of one node around the scene, and read it at the points."""
    low, high = axis_bounds(np.ascontiguousarray(xyz))
    place = (xyz - low.astype(np.float32)) / np.float32(distance) + np.float32(1)
    shape = np.floor((high - low) / distance).astype(np.int64) + 3
    if np.prod(shape.astype(float)) > _MAX_NODES:
        raise DataError(
            f"scan {name}: noise every {distance} m needs {' x '.join(map(str, shape))} nodes, "
            f"more than {_MAX_NODES}; use larger distances in scales, or crop the scan first"
        )
    noise = rng.standard_normal((*shape, 3), np.float32)
    for _ in range(_BLURS):
        for axis in range(3):
            noise = _blur(noise, axis)
    moved = np.empty_like(place)
    _read(np.ascontiguousarray(noise), np.ascontiguousarray(place), moved)
    return moved


def _blur(noise: np.ndarray, axis: int) -> np.ndarray:
    """Average each node with its two neighbours on an axis; beyond the border there is none."""
    source = np.moveaxis(noise, axis, 0)
    blurred = source.copy()
    blurred[1:] += source[:-1]
    blurred[:-1] += source[1:]
    blurred /= 3
    return np.moveaxis(blurred, 0, axis)


@kernel
def _read(noise, place, moved):
    """Interpolate trilinearly at places that are counted in nodes."""
    for i in range(len(place)):
        x, y, z = place[i]
        a = min(int(x), noise.shape[0] - 2)
        b = min(int(y), noise.shape[1] - 2)
        c = min(int(z), noise.shape[2] - 2)
        x, y, z = x - a, y - b, z - c
        for j in range(3):
            low = (noise[a, b, c, j] * (1 - z) + noise[a, b, c + 1, j] * z) * (1 - y)
            low += (noise[a, b + 1, c, j] * (1 - z) + noise[a, b + 1, c + 1, j] * z) * y
            high = (noise[a + 1, b, c, j] * (1 - z) + noise[a + 1, b, c + 1, j] * z) * (1 - y)
            high += (noise[a + 1, b + 1, c, j] * (1 - z) + noise[a + 1, b + 1, c + 1, j] * z) * y
            moved[i, j] = low * (1 - x) + high * x
