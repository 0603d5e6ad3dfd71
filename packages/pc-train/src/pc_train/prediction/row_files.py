"""Features on disk: rows of numbers that are written in any order and never all in memory."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, Int64
from pc_geometry.atomic import atomic_file

_SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16"}


class RowFile:
    """Rows of numbers in a file, written in any order and never all in memory.

    Args:
        file: Empty, and open for reading and writing.
        header: What comes before the rows.
        shape: Rows and columns.
        dtype: Of the numbers; float32 or float16.
    """

    def __init__(self, file: BinaryIO, header: bytes, shape: tuple[int, int], dtype: str) -> None:
        self._file = file  # keeps the descriptor open
        self._start, self.shape, self.dtype = len(header), shape, np.dtype(dtype)
        self._row = shape[1] * self.dtype.itemsize
        self._put(header, 0)
        os.ftruncate(file.fileno(), self._start + shape[0] * self._row)

    def write(self, index: Int64[np.ndarray, " m"], rows: Float[np.ndarray, "m c"]) -> None:
        """Write rows to their places, neighbouring ones in one go.

        Args:
            index: Ascending.
            rows: One each.

        Raises:
            ValueError: If a number is too large for float16.
            OSError: If the disk is full.
        """
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(rows, self.dtype)
        if self.dtype == np.float16 and (np.isinf(stored) & np.isfinite(rows)).any():
            raise ValueError(
                f"features reach {np.abs(rows).max():.3g}, which float16 does not hold; pass "
                "--precision float32"
            )
        breaks = (np.flatnonzero(np.diff(index) != 1) + 1).tolist()
        for start, stop in pairwise([0, *breaks, len(index)]):
            place = self._start + int(index[start]) * self._row
            self._put(stored[start:stop].data.cast("B"), place)

    def read(self, start: int, stop: int) -> Float[np.ndarray, "m c"]:
        """Rows that were written."""
        size = (stop - start) * self._row
        data = os.pread(self._file.fileno(), size, self._start + start * self._row)
        return np.frombuffer(data, self.dtype).reshape(stop - start, self.shape[1])

    def _put(self, data: bytes | memoryview, place: int) -> None:
        while len(data):
            done = os.pwrite(self._file.fileno(), data, place)
            data, place = data[done:], place + done


@contextmanager
def feature_file(folder: Path, kind: str, shape: tuple[int, int], dtype: str) -> Iterator[RowFile]:
    """A file for the features of a cloud; it appears when the block ends well.

    Args:
        folder: Where it goes.
        kind: npy or safetensors; none for a file that is gone when the block ends.
        shape: Points and width of a feature.
        dtype: float32 or float16.

    Raises:
        ValueError: If they do not fit on the disk: says how large they are.
    """
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"the features of {shape[0]:,} points take {size / 1e9:.1f} GB, but {folder} has "
            f"{free / 1e9:.1f} GB left; pass --precision float16, --features none with --ply "
            "false, or another --out"
        )
    if kind == "none":
        with tempfile.TemporaryFile(dir=folder) as file:
            yield RowFile(file, b"", shape, dtype)
    else:
        header = _npy_header if kind == "npy" else _safetensors_header
        with atomic_file(folder / f"features.{kind}") as file:
            yield RowFile(file, header(shape, dtype), shape, dtype)


def _npy_header(shape: tuple[int, int], dtype: str) -> bytes:
    header = io.BytesIO()
    descr = np.dtype(dtype).newbyteorder("<").str
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return header.getvalue()


def _safetensors_header(shape: tuple[int, int], dtype: str) -> bytes:
    """Source: the file format of safetensors, as its README describes it."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    entry = {"dtype": _SAFETENSORS_TYPES[dtype], "shape": shape, "data_offsets": [0, size]}
    text = json.dumps({"features": entry}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
