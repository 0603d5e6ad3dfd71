"""Tables that pandas pickled, read without pandas and without executing what a pickle may hold.

A pickle can name any function to be called on loading. Here it may only name the parts that a
table of numbers and texts is made of, and those of pandas are replaced by inert records.
"""

import gzip
import io
import pickle
import pickletools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct
from numpy._core.numeric import _frombuffer  # pyrefly: ignore[missing-module-attribute]

from pc_data.errors import DataError

_RATIO, _SPARE = 4, 1 << 24
"""Bytes that one byte of a file may become, and bytes beside them; scans have 2 a byte."""


def read_frame(file: Path) -> dict[str, np.ndarray]:
    """Read the columns of a gzipped, pickled pandas DataFrame.

    Args:
        file: Written by pandas 0.25 to 2, with columns of numbers, truth values or objects.

    Returns:
        Columns by name, each [rows], in the order and of the type that they have in the file.

    Raises:
        DataError: If the file is missing, damaged, no table, or names anything but the parts of a
            table; nothing of it is executed then.
    """
    if not file.is_file():
        raise DataError(f"{file}: table is missing; restore it or drop its scan")
    try:
        content = _unpack(file)
        _check_places(content)
        table = _FrameUnpickler(io.BytesIO(content)).load()
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: {error}; the file was cut off, fetch it again") from error
    except Exception as error:  # a damaged pickle can fail in any step
        raise DataError(f"{file}: not a pickled table ({error}); fetch it again") from error
    if not (isinstance(table, _Record) and isinstance(table.state, dict)):
        raise DataError(f"{file}: holds no pandas DataFrame; fetch it again")
    try:
        return _columns(table.state["_mgr" if "_mgr" in table.state else "_data"])
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{file}: table of an unknown layout ({error}); fetch it again") from error


def _unpack(file: Path) -> bytes:
    """Read a gzipped file piece by piece: a single read takes as much memory as it may return."""
    content, most = bytearray(), _RATIO * file.stat().st_size + _SPARE
    with gzip.open(file) as stream:
        while piece := stream.read(1 << 20):
            content += piece
            if len(content) > most:
                raise DataError(f"unpacks to more than {most} bytes; fetch it again")
    return bytes(content)


def _check_places(content: bytes) -> None:
    """Refuse a pickle that numbers its parts beyond its length: memory is taken up to a number."""
    if not content:
        raise EOFError("holds nothing")
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(content):
            raise ValueError(f"part number {argument} in {len(content)} bytes")


class _Record:
    """Stands for an object of pandas and keeps what it was made from."""

    args: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *args: object) -> "_Record":
        record = super().__new__(cls)
        record.args = args
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


def _new_index(cls: type[_Record], fields: dict[str, Any]) -> _Record:
    return cls(fields)


def _encode(text: str, encoding: str) -> bytes:
    """What old protocols write bytes as; only this encoding occurs."""
    if encoding != "latin1":
        raise ValueError(f"bytes are encoded as {encoding}, not latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("pandas.core.frame", "DataFrame"): _Record,
    ("pandas.core.internals.managers", "BlockManager"): _Record,
    ("pandas.core.indexes.base", "Index"): _Record,
    ("pandas.core.indexes.base", "_new_Index"): _new_index,
    ("pandas.core.indexes.range", "RangeIndex"): _Record,
    ("pandas.core.indexes.numeric", "Int64Index"): _Record,
    ("pandas._libs.internals", "_unpickle_block"): _Record,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,  # as Python 2 calls it
}


class _FrameUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"pickle asks for {module}.{name}, which no table of numbers and texts needs; it "
                "was not executed: fetch the original file"
            ) from None


def _columns(manager: _Record) -> dict[str, np.ndarray]:
    """Return the columns of a manager: blocks of rows, each with the places of its columns."""
    if manager.state is not None:  # pandas 0.14 to 1.2
        content = manager.state[3]["0.14.1"]
        names = content["axes"][0]
        blocks = [(block["values"], block["mgr_locs"]) for block in content["blocks"]]
    else:
        blocks, (names, _) = [block.args[:2] for block in manager.args[0]], manager.args[1]
    names = names.args[0]["data"].tolist()
    columns: dict[str, np.ndarray] = {}
    for values, places in blocks:
        for row, place in enumerate(np.arange(len(names))[places]):
            columns[names[place]] = np.ascontiguousarray(values[row])
    return {name: columns[name] for name in names}
