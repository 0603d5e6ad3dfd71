"""Write tables as gzipped pickles of pandas DataFrames, without pandas.

The opcodes are put together by hand in the form that pandas 0.25 wrote PandaSet in, which every
later pandas reads and in which `pc_data.files.frames.read_frame` reads the original files.
"""

import gzip
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_PROTOCOL = b"\x80\x03"
_KINDS = {"f8": "<", "i8": "<", "b1": "|", "O": "|"}  # dtype -> byte order as NumPy names it
_OBJECT_FLAGS = 63  # of NumPy's object type: counted, listed, needs the interpreter


class _Global(NamedTuple):
    """A name that the reader looks up."""

    module: str
    name: str


class _Call(NamedTuple):
    """What a callable returns for some arguments; a class is then only made, not called."""

    function: _Global
    arguments: tuple[Any, ...]


class _Made(NamedTuple):
    """An object of a class, made without arguments."""

    cls: _Global


class _Filled(NamedTuple):
    """An object whose state is set."""

    target: Any
    state: Any


def write_frame(file: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write a table in which rows are numbered from 0; the same columns give the same bytes.

    Args:
        file: Ends in `.pkl.gz` in PandaSet.
        columns: By name, each [rows] of float64, int64, bool or object; objects are texts,
            numbers and None.

    Raises:
        ValueError: If a column has another type or another length than the first.
    """
    file.write_bytes(gzip.compress(dump_frame(columns), compresslevel=6, mtime=0))


def dump_frame(columns: Mapping[str, np.ndarray]) -> bytes:
    """The pickle of a table before it is compressed; see `write_frame`.

    Raises:
        ValueError: If a column has another type or another length than the first.
    """
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    num_rows = len(next(iter(arrays.values()))) if arrays else 0
    places: dict[str, list[int]] = {}
    for place, (name, values) in enumerate(arrays.items()):
        kind = values.dtype.str.lstrip("<|=")
        if kind not in _KINDS:
            raise ValueError(
                f"column {name!r} must be float64, int64, bool or object, got {values.dtype}"
            )
        if values.shape != (num_rows,):
            raise ValueError(f"column {name!r} must be [{num_rows}], got {list(values.shape)}")
        places.setdefault(kind, []).append(place)
    listed = list(arrays.values())
    blocks = [
        {
            "values": _array(np.stack([listed[place] for place in where])),
            "mgr_locs": _array(np.array(where, dtype=np.int64)),
        }
        for where in places.values()
    ]
    axes = [_column_index(tuple(arrays)), _row_index(num_rows)]
    manager = _Filled(
        _Made(_Global("pandas.core.internals.managers", "BlockManager")),
        (axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}}),
    )
    table = _Filled(
        _Made(_Global("pandas.core.frame", "DataFrame")),
        {"_data": manager, "_typ": "dataframe", "_metadata": []},
    )
    return b"".join((_PROTOCOL, *_opcodes(table), b"."))


def _column_index(names: tuple[str, ...]) -> _Call:
    data = _array(np.array(names, dtype=object))
    return _new_index(_Global("pandas.core.indexes.base", "Index"), {"data": data, "name": None})


def _row_index(count: int) -> _Call:
    fields = {"name": None, "start": 0, "stop": count, "step": 1}
    return _new_index(_Global("pandas.core.indexes.range", "RangeIndex"), fields)


def _new_index(cls: _Global, fields: dict[str, Any]) -> _Call:
    return _Call(_Global("pandas.core.indexes.base", "_new_Index"), (cls, fields))


def _array(values: np.ndarray) -> _Filled:
    """A NumPy array, by the names that both NumPy 1 and 2 answer to."""
    kind = values.dtype.str.lstrip("<|=")
    is_object = kind == "O"
    dtype = _Filled(
        _Call(_Global("numpy", "dtype"), (f"{kind}8" if is_object else kind, False, True)),
        (3, _KINDS[kind], None, None, None, -1, -1, _OBJECT_FLAGS if is_object else 0),
    )
    content = values.ravel().tolist() if is_object else np.ascontiguousarray(values).tobytes()
    empty = _Call(
        _Global("numpy.core.multiarray", "_reconstruct"),
        (_Global("numpy", "ndarray"), (0,), b"b"),
    )
    return _Filled(empty, (1, values.shape, dtype, False, content))


def _opcodes(value: object) -> Iterable[bytes]:
    """The opcodes that leave a value on the reader's stack."""
    match value:
        case _Global(module, name):
            yield f"c{module}\n{name}\n".encode()
        case _Call(function, arguments):
            yield from (*_opcodes(function), *_opcodes(arguments), b"R")
        case _Made(cls):
            yield from (*_opcodes(cls), b")\x81")
        case _Filled(target, state):
            yield from (*_opcodes(target), *_opcodes(state), b"b")
        case tuple() | list() | dict():
            yield from _collection(value)
        case _:
            yield _scalar(value)


def _collection(value: tuple | list | dict) -> Iterable[bytes]:
    items = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value
    start, end = {tuple: (b"(", b"t"), list: (b"](", b"e"), dict: (b"}(", b"u")}[type(value)]
    yield start
    for item in items:
        yield from _opcodes(item)
    yield end


def _scalar(value: object) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        number = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + struct.pack("<B", len(number)) + number
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(text)) + text
    raise ValueError(f"objects of a table must be texts, numbers or None, got {value!r}")
