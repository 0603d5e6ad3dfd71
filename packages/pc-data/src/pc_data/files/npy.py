"""NumPy's .npy files, executing nothing."""

import io
import math
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pc_data.errors import DataError


def read_npy(file: Path) -> np.ndarray:
    """Read an .npy file, never executing anything.

    Raises:
        DataError: If the file is missing, damaged, of another length than its header says, or
            holds Python objects.
    """
    if not file.is_file():
        raise DataError(f"{file}: file is missing; restore it or drop its scan")
    return parse_npy(file.read_bytes(), str(file))


def parse_npy(data: bytes, place: str) -> np.ndarray:
    """Take the content of an .npy file for the array that it holds, without a copy.

    Args:
        data: All of it.
        place: Where it is from, for messages.

    Raises:
        DataError: If it is damaged, of another length than its header says, or holds Python
            objects.
    """
    stream = io.BytesIO(data)
    try:
        shape, in_columns, dtype = _parse_npy_header(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read")
        due, left = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
        if due != left or min(shape, default=0) < 0:
            raise ValueError(f"shape {shape} of {dtype} takes {due} bytes, but {left} follow")
        array = np.frombuffer(data, dtype=dtype, offset=stream.tell())
        return array.reshape(shape, order="F" if in_columns else "C")
    except Exception as error:  # NumPy takes the header apart with Python's tokenizer
        raise DataError(
            f"{place}: not an array that can be read: {error}; write it again with numpy.save"
        ) from error


def _parse_npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser, over what is no header
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version[0]}.{version[1]} of the format is not read")
