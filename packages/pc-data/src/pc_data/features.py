"""What a network is told of each point, by name; a backbone's card lists the names in order."""

import difflib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from pc_data.errors import DataError
from pc_data.scan import Scan

LIDAR_FEATURES = ("intensity", "x", "y", "z", "radius")
"""Source: ScaLR (Puy et al., CVPR 2024); order of its released code."""

ROOM_FEATURES = ("red", "green", "blue", "normal_x", "normal_y", "normal_z")
"""Source: Masked Scene Contrast (Wu et al., CVPR 2023); order of its released code."""

_SINGLE = ("intensity", "raw_intensity", "radius", "height")  # no columns of an array

# What the columns of each array are called, and what it is called in messages.
_COLUMNS = {
    "xyz": ("x", "y", "z"),
    "color": ("red", "green", "blue"),
    "normal": ("normal_x", "normal_y", "normal_z"),
}
_PLACE = {
    name: (field, column) for field, names in _COLUMNS.items() for column, name in enumerate(names)
}
_FLOOR = 0.99  # percent of the points

_REMEDY = {
    "color": "open data with colour",
    "normal": "estimate them (pc_geometry.normals.estimate_normals)",
}


def point_features(
    scan: Scan,
    names: Sequence[str] = LIDAR_FEATURES,
    *,
    intensity_mean: float = 0.0,
    intensity_std: float = 1.0,
) -> Float32[np.ndarray, "n c"]:
    """Collect the input features of a scan's points.

    Args:
        scan: Any scan. Without intensity all its points count as of mean intensity.
        names: `intensity` (standardised), `raw_intensity` (as the dataset has it), `x`, `y`, `z`
            and `radius` (metres from the origin of the scan's frame), `height` (metres above the
            floor: above the z that 0.99% of the given points are below), `red`, `green`, `blue`
            (-1 to 1), `normal_x`, `normal_y`, `normal_z`; none for a network that takes
            coordinates alone.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.

    Returns:
        One column a name, in their order.

    Raises:
        ValueError: If a name is unknown, or there is none.
        DataError: If the scan has no colour or no normals and a name needs them.

    Source: ScaLR (Puy et al., CVPR 2024) for intensity, SLidR (Sautier et al., CVPR 2022) for the
        raw one; Masked Scene Contrast (Wu et al., CVPR 2023) for colour, whose published weights
        took -1 to 1; VoteNet (Qi et al., ICCV 2019) for height, whose floor is the 0.99th
        percentile of z: not the 1st, which may look meant.
    """
    if names:
        require_features(names)
    feat = np.empty((len(scan), len(names)), np.float32)
    for index, name in enumerate(names):
        if name in _PLACE:
            field, column = _PLACE[name]
            values = _array_of(scan, field, names)[:, column]
            feat[:, index] = 2 * values - 1 if field == "color" else values
        elif name == "radius":
            feat[:, index] = np.linalg.norm(scan.xyz, axis=1)
        elif name == "height":
            feat[:, index] = _heights(scan)
        else:
            values = intensity_mean if scan.intensity is None else scan.intensity
            is_raw = name == "raw_intensity"
            feat[:, index] = values if is_raw else (values - intensity_mean) / intensity_std
    return feat


def require_features(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of features that are all known.

    Raises:
        ValueError: If there is none, or one is unknown: lists the nearest.
    """
    known = (*_SINGLE, *_PLACE)
    if not names:
        raise ValueError(f"features must name at least one of {', '.join(known)}, got none")
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
            raise ValueError(
                f"no feature is called {name!r}; the nearest are: {', '.join(nearest)}"
            )
    return tuple(names)


def _heights(scan: Scan) -> Float32[np.ndarray, " n"]:
    z = scan.xyz[:, 2]
    return z - np.percentile(z, _FLOOR).astype(np.float32) if len(scan) else z


def _array_of(scan: Scan, field: str, names: Sequence[str]) -> np.ndarray:
    array = getattr(scan, field)
    if array is None:
        asked = ", ".join(name for name in names if name in _COLUMNS[field])
        missing = {other for other in _COLUMNS if getattr(scan, other) is None}
        has = [name for name, (other, _) in _PLACE.items() if other not in missing]
        raise DataError(
            f"scan {scan.name} has no {field}, which the features {asked} are; {_REMEDY[field]}, "
            f"or use a backbone with features among {', '.join([*_SINGLE, *has])}"
        )
    return array
