"""Any file of one point cloud, as named columns.

| suffix | what it is | names of its columns |
|---|---|---|
| .ply | Polygon File Format, element `vertex` | its own |
| .pcd | Point Cloud Data (PCL) | its own; packed colours become r, g, b |
| .las, .laz | ASPRS LAS, needs the extra `pc-data[las]` | its own; x, y, z with scale and offset |
| .npy | NumPy array, structured or [n c] | its own, or given; [n 3] and [n 4] need none |
| coord.npy | with color.npy, segment.npy and the like in its folder, as Pointcept has it | theirs |
| .npz | NumPy archive: arrays of n rows, or one array [n c] | its own, or given |
| .bin | little-endian float32 rows | given |

A column of three values is taken apart by its name: `xyz`, `coord` and the like become x, y, z;
`rgb` and `color` become red, green, blue; `normal` becomes nx, ny, nz. No file executes anything:
arrays of Python objects are refused.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pc_data.errors import DataError
from pc_data.files.las import read_las
from pc_data.files.npy import parse_npy, read_npy
from pc_data.files.pcd import read_pcd
from pc_data.files.ply import read_ply
from pc_data.files.points import count_points

SUFFIXES = (".ply", ".pcd", ".las", ".laz", ".npy", ".npz", ".bin")
"""Of the files that `read_columns` reads, in lower case."""

SKIPPED = "_"
"""Name of a column of a .bin or .npy file that is not read; it may come several times."""

COORD = "coord.npy"
"""Of a cloud whose parts are .npy files of one folder, the file that stands for it."""

_PARTS = {
    "x y z": ("xyz", "coord", "coords", "point", "points", "position", "positions", "pc"),
    "red green blue": ("rgb", "color", "colors", "colour", "colours"),
    "nx ny nz": ("normal", "normals"),
}
_PARTS_OF = {name: parts.split() for parts, names in _PARTS.items() for name in names}
_BESIDE_COORD = ("color", "normal", "strength", "segment", "instance")
_RATIO, _SPARE = 10, 1 << 24
"""Bytes that one byte of an .npz file may become, and bytes beside them."""


def read_columns(file: Path, *, columns: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read a file of points by its suffix.

    Args:
        file: A file of one of `SUFFIXES`.
        columns: Names of the columns of a .bin file, or of an array [n c] without names; `_` for
            one to skip. Files that name their columns keep their own.

    Returns:
        Column name -> values in the stored type, all of the same length; [n], seldom [n k].

    Raises:
        DataError: If the file is missing, empty, damaged, of another type, or needs `columns`.
        ImportError: If it is a .las or .laz file and laspy is not installed.
    """
    file = Path(file)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{file}: not a point cloud of a known type ({', '.join(SUFFIXES)}); convert it"
        )
    if not file.is_file():
        raise DataError(f"{file}: file is missing; restore it or drop its scan")
    if suffix == ".ply":
        found = _vertices(file)
    elif suffix == ".pcd":
        found = read_pcd(file)
    elif suffix in (".las", ".laz"):
        found = read_las(file)
    elif suffix == ".npz":
        found = _name_arrays(file, _read_npz(file), columns)
    elif file.name == COORD:
        found = _read_parts(file)
    elif suffix == ".npy":
        found = _name_columns(file, read_npy(file), columns)
    else:
        found = _name_columns(file, _read_bin(file, columns), columns)
    found = _take_apart(found)
    lengths = {len(values) for values in found.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise DataError(f"{file}: holds no points; drop it or fetch it again")
    return found


# --- files with names


def _vertices(file: Path) -> dict[str, np.ndarray]:
    elements = read_ply(file)
    if "vertex" not in elements:
        raise DataError(
            f"{file}: has no element 'vertex', only {', '.join(elements) or 'none'}; export its "
            "points as vertices"
        )
    return elements["vertex"]


# --- arrays


def _read_parts(file: Path) -> dict[str, np.ndarray]:
    """The .npy files of a folder that have a row for each point."""
    found = {"coord": read_npy(file)}
    for other in sorted(file.parent.glob("[!.]*.npy")):  # none that is hidden
        values = read_npy(other)
        if values.ndim in (1, 2) and len(values) == len(found["coord"]):
            found[other.stem] = values
        elif other.stem in _BESIDE_COORD:
            raise DataError(
                f"{other}: {list(values.shape)} for the points of {file.name}, which are "
                f"{list(found['coord'].shape)}; write one row for each point"
            )
    return found


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with zipfile.ZipFile(file) as archive:
            members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
            due, size = sum(member.file_size for member in members), file.stat().st_size
            if due > _RATIO * size + _SPARE:
                raise DataError(
                    f"{file}: says that its {size} bytes unpack to {due}; fetch the file again, or "
                    "write it with numpy.savez"
                )
            for member in members:
                name = member.filename.removesuffix(".npy")
                arrays[name] = parse_npy(archive.read(member), f"{file}: {member.filename}")
    except DataError:
        raise
    except Exception as error:  # a damaged archive can fail in any step
        raise DataError(f"{file}: not a NumPy archive ({error}); fetch it again") from error
    return arrays


def _name_arrays(
    file: Path, arrays: dict[str, np.ndarray], columns: Sequence[str]
) -> dict[str, np.ndarray]:
    """The arrays with a row for each point, which are as many as rows of the coordinates."""
    leading = [name for name in arrays if _PARTS_OF.get(name.lower()) == ["x", "y", "z"]]
    for name in leading or (list(arrays) if len(arrays) == 1 else []):
        if arrays[name].ndim == 2 and arrays[name].shape[1] != 3:
            return _name_columns(file, arrays[name], columns)
    by_rows = arrays[leading[0]] if leading else arrays.get("x")
    if by_rows is None or by_rows.ndim == 0:
        raise DataError(
            f"{file}: no array xyz [n 3], only {', '.join(arrays) or 'none'}; write the points "
            "with numpy.savez(file, xyz=...)"
        )
    return {
        name: values
        for name, values in arrays.items()
        if values.ndim in (1, 2) and len(values) == len(by_rows)
    }


def _name_columns(file: Path, array: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
    if array.dtype.names is not None and array.ndim == 1:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim != 2 or array.dtype.names is not None:
        raise DataError(
            f"{file}: array is {list(array.shape)} of {array.dtype}; write one row for each point"
        )
    width = array.shape[1]
    names = list(columns) or ["x", "y", "z", "intensity"][: width if width in (3, 4) else 0]
    if len(names) != width:
        fault = f"but {len(names)} names are given" if names else "of which no names are given"
        raise DataError(
            f"{file}: rows have {width} values, {fault}; name them in order, e.g. columns: [x, y, "
            "z, intensity, _] where _ is skipped"
        )
    return {name: array[:, k] for k, name in enumerate(names) if name != SKIPPED}


def _read_bin(file: Path, columns: Sequence[str]) -> np.ndarray:
    if not columns:
        raise DataError(
            f"{file}: a .bin file does not say what its columns are; name them in order, e.g. "
            "columns: [x, y, z, intensity]"
        )
    num_points = count_points(file, num_columns=len(columns))
    return np.fromfile(file, dtype="<f4").reshape(num_points, len(columns))


def _take_apart(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        parts = _PARTS_OF.get(name.lower(), [])
        if values.ndim == 2 and values.shape[1] == 3 and parts:
            found |= {part: values[:, k] for k, part in enumerate(parts) if part not in columns}
        else:
            found[name] = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return found
