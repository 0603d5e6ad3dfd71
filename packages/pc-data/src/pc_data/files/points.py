"""Scans as files of float32 rows, and the damage they can have."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from pc_data.errors import DataError


def read_points(file: Path, *, num_columns: int) -> Float32[np.ndarray, "n num_columns"]:
    """Read a file of little-endian float32 rows whose first four columns are x, y, z, intensity.

    Args:
        file: The scan.
        num_columns: Values in a row: 5 in nuScenes, 4 in KITTI.

    Returns:
        The rows as they are in the file.

    Raises:
        DataError: If the file is missing, empty, cut off, or holds NaN or infinite values.
    """
    size = count_points(file, num_columns=num_columns)
    rows = np.fromfile(file, dtype="<f4").reshape(size, num_columns)
    finite = np.isfinite(rows[:, :4]).all(1)
    if not finite.all():
        raise DataError(
            f"{file}: {np.count_nonzero(~finite)} of {size} points have NaN or infinite values, "
            f"the first at index {np.argmin(finite)}; fetch the file again or remove its points "
            "and their labels"
        )
    return rows


def count_points(file: Path, *, num_columns: int) -> int:
    """Number of points that a scan's file holds, from its size alone.

    Raises:
        DataError: If the file is missing, empty, or not a whole number of rows long.
    """
    if not file.is_file():
        raise DataError(f"{file}: scan file is missing; restore it or drop the scan")
    row = 4 * num_columns
    size = file.stat().st_size
    if size == 0 or size % row:
        raise DataError(
            f"{file}: scan has {size} bytes, not a positive multiple of {row}; it was cut off, "
            "fetch it again"
        )
    return size // row


def read_labels(file: Path, *, dtype: str, num_points: int | None) -> np.ndarray:
    """Read one label per point.

    Args:
        file: The labels.
        dtype: NumPy's name of the stored type.
        num_points: Points of the scan; None skips the comparison.

    Returns:
        The raw labels in their stored type.

    Raises:
        DataError: If the file is missing, cut off, or of another length than the scan.
    """
    if not file.is_file():
        raise DataError(f"{file}: label file is missing; restore it or drop the scan")
    size, row = file.stat().st_size, np.dtype(dtype).itemsize
    if size % row or (num_points is not None and size != row * num_points):
        came = f"{size / row:g} labels"
        due = f" for {num_points} points" if num_points is not None else f" in {size} bytes"
        raise DataError(f"{file}: {came}{due}; fetch the labels that belong to this scan")
    return np.fromfile(file, dtype=dtype)


def map_labels(raw: np.ndarray, table: np.ndarray, file: Path) -> np.ndarray:
    """Turn raw class ids into training classes, -1 where ignored.

    Args:
        raw: Raw ids.
        table: Training class by raw id; -2 marks ids that do not exist.
        file: Where they came from, for messages.

    Returns:
        int64 training classes.

    Raises:
        DataError: If an id does not exist.
    """
    labels = table[np.minimum(raw, len(table) - 1)].astype(np.int64)
    unknown = (labels == -2) | (raw >= len(table))
    if unknown.any():
        first = int(np.argmax(unknown))
        raise DataError(
            f"{file}: {np.count_nonzero(unknown)} labels are no class of this dataset, the first "
            f"at index {first} is {raw[first]}; fetch the original labels"
        )
    return labels


def raise_defect(defect: str) -> None:
    """Raise a defect as `DataError`: what readers do unless told to go on.

    Raises:
        DataError: Always.
    """
    raise DataError(defect)
