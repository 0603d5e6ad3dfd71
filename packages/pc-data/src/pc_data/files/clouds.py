"""Any single point cloud as a `Scan`: which column is what, in which unit, and from where.

| part of a scan | columns it is read from, the first that is there |
|---|---|
| xyz | x, y, z |
| intensity | intensity, i, reflectance, reflectivity, remission, amplitude, strength |
| color | red, green, blue; r, g, b; diffuse_red, diffuse_green, diffuse_blue |
| normal | nx, ny, nz; normal_x, normal_y, normal_z |
| labels | label, labels, class, classification, semantic, semantic_label, segment |
| instance | instance, instances, instance_id, instance_label |

Neither case nor CloudCompare's prefix `scalar_` matter.
"""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from pc_data.errors import DataError
from pc_data.files.cloud_files import read_columns
from pc_data.scan import Scan

FIELDS: dict[str, tuple[str, ...]] = {
    "x": ("x",),
    "y": ("y",),
    "z": ("z",),
    "intensity": (
        "intensity",
        "i",
        "reflectance",
        "reflectivity",
        "remission",
        "amplitude",
        "strength",
    ),
    "red": ("red", "r", "diffuse_red"),
    "green": ("green", "g", "diffuse_green"),
    "blue": ("blue", "b", "diffuse_blue"),
    "nx": ("nx", "normal_x"),
    "ny": ("ny", "normal_y"),
    "nz": ("nz", "normal_z"),
    "label": (
        "label",
        "labels",
        "class",
        "classification",
        "semantic",
        "semantic_label",
        "segment",
    ),
    "instance": ("instance", "instances", "instance_id", "instance_label"),
}
"""What is known of a point, and the names that its column may have, the likeliest first."""

FAR = 10_000.0
"""Metres from the origin beyond which float32 steps are a millimetre: an axis that reaches further
is moved to the middle of its range."""

_ROUNDING = 1.01
"""Largest floating point colour that counts as 1: conversions overshoot a little."""

_LONG, _HIGH, _SPARSE = 20_000.0, 1000.0, 1.0  # metres: see `warn_of_unit`


def read_cloud(
    file: str | Path,
    *,
    columns: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    metres: float = 1.0,
    up: Literal["y", "z"] = "z",
    color_max: float | None = None,
) -> Scan:
    """Read one file as a scan: .ply, .pcd, .las, .laz, .npy, .npz or .bin.

    See `pc_data.files.cloud_files` for the files and `to_scan` for what becomes of their columns.

    Args:
        file: The file.
        columns: Names of the columns of a .bin file or of an .npy file without names.
        names: Column to take for one of `FIELDS`, where the usual names do not find it; empty if
            it is not to be read.
        metres: Metres in one unit of the file, e.g. 0.001.
        up: Axis that points up in the file; in the scan it is z.
        color_max: Value of full brightness, where the type of the colours does not say it.

    Raises:
        DataError: If the file is missing or damaged, or its columns are not those of a cloud.
        ImportError: If it is a .las or .laz file and laspy is not installed.
    """
    file = Path(file)
    found = read_columns(file, columns=columns)
    return to_scan(found, file, names=names, metres=metres, up=up, color_max=color_max)


def to_scan(
    columns: Mapping[str, np.ndarray],
    file: str | Path,
    *,
    names: Mapping[str, str] | None = None,
    metres: float = 1.0,
    up: Literal["y", "z"] = "z",
    color_max: float | None = None,
) -> Scan:
    """Make a scan of the columns of a file.

    Points whose x, y and z are all NaN, which is how ordered clouds mark a missing return, are
    left out. Colours become 0..1: bytes are divided by 255, 16 bits by 65535, wider integers by
    255; floating point numbers by 255 if one exceeds 1.01, else what rounding left above 1 is cut.
    Labels stay as they are in the file; where they are floating point, NaN is -1. Instances that
    are negative or NaN are no object: they become 0, and all others of that file, 0 being an object
    then, one more.

    Coordinates are computed in float64. An axis that reaches further than 10 km from the origin (a
    map grid such as UTM) is moved by the middle of its range, rounded to whole metres; `pose`,
    world-from-scan, has that offset, the world being the file's frame in metres with z up. Where
    nothing was moved, `pose` is None: whether files share a frame is not known.

    Args:
        columns: Column name -> values, one for each point.
        file: Where they came from, for messages and the scan's name.
        names: Column to take for one of `FIELDS`, where the usual names do not find it; empty if
            it is not to be read.
        metres: Metres in one unit of the file.
        up: Axis that points up in the file; y-up becomes (x, -z, y).
        color_max: Value of full brightness, where the type does not say it.

    Raises:
        DataError: If x, y or z is absent, a value that is used is no finite number, or labels are
            no whole numbers.
    """
    file = Path(file)
    picked = {field: _pick(columns, field, file, names or {}) for field in FIELDS}
    xyz = _stack(picked, ("x", "y", "z"), columns, file, "coordinates")
    if xyz is None:
        raise DataError(f"{file}: no columns x, y, z; it has: {_listed(columns)}")
    with np.errstate(invalid="ignore"):  # NaN of the kind that signals
        xyz = xyz.astype(np.float64)
    measured = ~np.isnan(xyz).all(axis=1)
    if not measured.any():
        raise DataError(f"{file}: holds no points with coordinates; drop it or fetch it again")
    if not measured.all():
        picked = {k: None if v is None else v[measured] for k, v in picked.items()}
        xyz = xyz[measured]
    _require_finite(xyz, file, "coordinates")
    xyz = _z_up(xyz * metres, up)
    offset = _offset(xyz)
    xyz = _single(xyz - offset, file, "coordinates")
    colors = _stack(picked, ("red", "green", "blue"), columns, file, "colours")
    normals = _stack(picked, ("nx", "ny", "nz"), columns, file, "normals")
    intensity, labels, instance = (picked[k] for k in ("intensity", "label", "instance"))
    if intensity is not None:
        intensity = _single(intensity, file, "intensities")
    return Scan(
        name=file.name,
        xyz=xyz,
        intensity=intensity,
        color=None if colors is None else _brightness(colors, color_max, file),
        normal=None if normals is None else _unit_normals(normals, up, file),
        labels=None if labels is None else _whole_numbers(labels, file, "labels"),
        instance=None if instance is None else _objects(instance, file),
        pose=_moved_by(offset) if offset.any() else None,
    )


def warn_of_unit(
    xyz: Float32[np.ndarray, "n 3"], file: str | Path, *, remedy: str = "unit: mm in dataset.yaml"
) -> bool:
    """Warn if coordinates said to be metres look like millimetres; whether it was done.

    That is: the cloud is more than 20 km long, or more than 1 km high while the points lie more
    than 1 m apart (the median distance of some to their nearest neighbour). Few real clouds in
    metres are that; rooms and streets in millimetres are.

    Args:
        xyz: Points in what is taken for metres.
        file: Where they came from.
        remedy: How the unit is stated.
    """
    extent = np.ptp(xyz.astype(np.float64), axis=0) if len(xyz) else np.zeros(3)
    length = float(np.linalg.norm(extent))
    if length <= _LONG and not (extent.min() > _HIGH and point_spacing(xyz) > _SPARSE):
        return False
    warnings.warn(
        f"{file}: is {length:,.0f} m long and {extent[2]:,.0f} m high; if its unit is not the "
        f"metre, say so ({remedy})",
        stacklevel=3,
    )
    return True


def point_spacing(xyz: Float32[np.ndarray, "n 3"]) -> float:
    """Median distance from some of the points to their nearest neighbour; 0 for a single point."""
    from pc_geometry import knn

    if len(xyz) < 2:
        return 0.0
    some = xyz[:: max(1, len(xyz) // 256)]
    return float(np.median(knn(some, xyz, 2)[0][:, 1]))


# --- which column is what


def find_column(columns: Mapping[str, np.ndarray], field: str) -> str:
    """The column that one of `FIELDS` is read from, by its usual names; empty if there is none."""
    plain = {name.lower().removeprefix("scalar_"): name for name in reversed(list(columns))}
    return next((plain[alias] for alias in FIELDS[field] if alias in plain), "")


def _pick(
    columns: Mapping[str, np.ndarray], field: str, file: Path, names: Mapping[str, str]
) -> np.ndarray | None:
    """The column of a field, or None."""
    wanted = names[field] if field in names else find_column(columns, field)
    if not wanted:
        return None
    if wanted not in columns:
        near = difflib.get_close_matches(wanted, columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{file}: no column {wanted!r}; it has: {_listed(columns)}{hint}")
    values = columns[wanted]
    if values.ndim != 1 or values.dtype.kind not in "biuf":
        raise DataError(
            f"{file}: column {wanted!r} is {list(values.shape)} of {values.dtype}, not one number "
            "for each point; rename it or write it anew"
        )
    return values


def _listed(columns: Mapping[str, np.ndarray]) -> str:
    return ", ".join(list(columns)[:20]) + (", ..." if len(columns) > 20 else "")


def _stack(
    picked: Mapping[str, np.ndarray | None],
    fields: tuple[str, str, str],
    columns: Mapping[str, np.ndarray],
    file: Path,
    what: str,
) -> np.ndarray | None:
    """Three columns side by side [n 3], or None if none of them is there."""
    values = [value for field in fields if (value := picked[field]) is not None]
    if not values:
        return None
    if len(values) < 3:
        absent = next(field for field in fields if picked[field] is None)
        raise DataError(f"{file}: {what} without {absent!r}; it has: {_listed(columns)}")
    return np.stack(values).T  # each column in one piece: reductions are several times faster


# --- what becomes of it


def _require_finite(values: np.ndarray, file: Path, what: str) -> None:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        raise DataError(
            f"{file}: {np.count_nonzero(~finite)} of {len(values)} points have {what} that are NaN "
            f"or infinite, the first at index {np.argmin(finite)}; remove these points or fetch "
            "the file again"
        )


def _z_up(values: np.ndarray, up: str) -> np.ndarray:
    return values if up == "z" else np.stack([values[:, 0], -values[:, 2], values[:, 1]]).T


def _offset(xyz: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " 3"]:
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    return np.where(np.maximum(-low, high) > FAR, np.round(0.5 * low + 0.5 * high), 0.0)


def _single(values: np.ndarray, file: Path, what: str) -> Float32[np.ndarray, "..."]:
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(values, dtype=np.float32)
    _require_finite(single, file, what)
    return single


def _moved_by(offset: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "4 4"]:
    pose = np.eye(4)
    pose[:3, 3] = offset
    return pose


def _brightness(
    colors: np.ndarray, color_max: float | None, file: Path
) -> Float32[np.ndarray, "n 3"]:
    _require_finite(colors, file, "colours")
    top = color_max
    if top is None and colors.dtype.kind == "f":
        top = 255.0
        if colors.max() <= _ROUNDING:
            top, colors = 1.0, np.minimum(colors, 1.0)
    elif top is None:
        top = 65535.0 if colors.dtype == np.uint16 else 255.0
    low, high = colors.min(), colors.max()
    if low < 0 or high > top:
        raise DataError(
            f"{file}: colours are {low:g}..{high:g}, which is more than 0..{top:g}; state the "
            "value of full brightness (color_max in dataset.yaml)"
        )
    if color_max is None and colors.dtype == np.uint16 and 1 < high <= 255:
        warnings.warn(
            f"{file}: colours have 16 bits but none exceeds 255, so they are nearly black; if 255 "
            "is full brightness, say so (color_max: 255 in dataset.yaml)",
            stacklevel=4,
        )
    return np.ascontiguousarray(colors / np.float32(top), dtype=np.float32)


def _unit_normals(normals: np.ndarray, up: str, file: Path) -> Float32[np.ndarray, "n 3"]:
    """Normals of unit length; those of no length stay zero."""
    _require_finite(normals, file, "normals")
    normals = _z_up(normals.astype(np.float64), up)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.ascontiguousarray(normals / np.where(length > 0, length, 1.0), dtype=np.float32)


def _objects(values: np.ndarray, file: Path) -> Int64[np.ndarray, " n"]:
    """Instances with 0 for none."""
    numbers = _whole_numbers(values, file, "instances")
    return numbers if numbers.min() >= 0 else np.maximum(numbers + 1, 0)


def _whole_numbers(values: np.ndarray, file: Path, what: str) -> Int64[np.ndarray, " n"]:
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    filled = np.where(np.isnan(values), -1.0, values)
    if not (filled == np.round(filled)).all() or np.abs(filled).max() > 2**53:
        odd = int(np.argmax((filled != np.round(filled)) | (np.abs(filled) > 2**53)))
        raise DataError(
            f"{file}: {what} must be whole numbers, but the one at index {odd} is {values[odd]:g}; "
            "name another column or write them anew"
        )
    return filled.astype(np.int64)
