"""What speaks against the unit and the axis that are stated for a cloud, as sentences."""

import numpy as np
from jaxtyping import Float32

from pc_data.files.clouds import point_spacing

_SAMPLE = 100_000  # points that are looked at
_LAYER = 0.05  # metres; two layers together are taken for one level surface
_LEVEL, _CLEARER = 0.08, 2.0  # share of the points on a level surface, and how much it must differ
_VOXELS_APART = 32  # voxels; points further apart than that do not meet in a network
_FEW_VOXELS, _MANY_POINTS = 10, 1000
_MOST_SEARCHED = 2_000_000  # points of which the spacing is looked up


def doubt_axis(xyz: Float32[np.ndarray, "n 3"]) -> str:
    """Say so if another axis than z looks as if it pointed up; empty otherwise.

    Floors, roads and roofs put many points at one height: at the level where most lie there are
    twice as many along y as along z only where y points up.
    """
    some = xyz[:: max(1, len(xyz) // _SAMPLE)].astype(np.float64)
    if len(some) < _MANY_POINTS:
        return ""
    y, z = (_share_on_level(some[:, axis]) for axis in (1, 2))
    if y < max(_LEVEL, _CLEARER * z):
        return ""
    return (
        f"{100 * y:.0f}% of its points lie on one level of y but only {100 * z:.0f}% on one of z: "
        "the up axis may be another than was stated"
    )


def doubt_unit(
    xyz: Float32[np.ndarray, "n 3"], seen: Float32[np.ndarray, "m 3"], voxel_size: float
) -> str:
    """Say so if the points are too dense or too sparse for the voxels of a network.

    Args:
        xyz: All points in metres.
        seen: One of each voxel.
        voxel_size: Metres.

    Returns:
        A sentence, or nothing.
    """
    if len(seen) <= _FEW_VOXELS and len(xyz) >= _MANY_POINTS:
        return (
            f"its {len(xyz):,} points fall into {len(seen)} voxels of {voxel_size:g} m: "
            "its unit may be larger than was stated"
        )
    if not 2 <= len(seen) <= _MOST_SEARCHED:
        return ""
    spacing = point_spacing(seen)
    if spacing <= _VOXELS_APART * voxel_size:
        return ""
    return (
        f"its points lie {spacing:.2g} m apart, {spacing / voxel_size:.0f} voxels of "
        f"{voxel_size:g} m: its unit may be smaller than was stated"
    )


def _share_on_level(values: np.ndarray) -> float:
    """Largest share of the values in a band of two layers."""
    layer = np.floor(values / _LAYER).astype(np.int64)
    _, place, count = np.unique(layer, return_index=True, return_counts=True)
    follows = np.diff(layer[place]) == 1
    count[:-1] += np.where(follows, count[1:], 0)
    return count.max() / len(values)
