"""The panoptic labels of nuScenes: one compressed array a keyframe.

Source: Panoptic nuScenes (Fong et al., RA-L 2022, arXiv:2109.03805): 1000 * raw class + object,
    0 for points in several boxes and for points of things in none.
"""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from pc_data.errors import DataError
from pc_data.files.npy import parse_npy

OBJECTS = 1000
"""Numbers of objects that each class has room for."""

_HEADER = 1 << 16  # bytes that no header of an array needs


def read_panoptic(file: Path, *, num_points: int) -> UInt16[np.ndarray, " n"]:
    """Read the label of each point of a scan.

    Args:
        file: A `.npz` that holds one uint16 array called `data`.
        num_points: Points of the scan.

    Raises:
        DataError: If the file is missing, damaged, or of another type or length than is due.
    """
    if not file.is_file():
        raise DataError(f"{file}: panoptic label file is missing; restore it or drop the scan")
    try:
        content = _extract(file, most=2 * num_points + _HEADER)
    except Exception as error:  # of several ways to pack, each with errors of its own
        raise DataError(
            f"{file}: not an archive with an array 'data' ({error}); fetch it again"
        ) from error
    labels = parse_npy(content, f"{file}: data.npy")
    if labels.shape != (num_points,) or labels.dtype != np.uint16:
        raise DataError(
            f"{file}: {labels.dtype} labels of shape {labels.shape}, expected {num_points} of "
            "uint16; fetch the labels that belong to this scan"
        )
    return labels


def _extract(file: Path, *, most: int) -> bytes:
    """Unpack the array, unless it claims more bytes than its scan has labels for."""
    with zipfile.ZipFile(file) as archive:
        size = archive.getinfo("data.npy").file_size
        if size > most:
            raise ValueError(f"it claims {size} bytes, at most {most} are due")
        return archive.read("data.npy")
