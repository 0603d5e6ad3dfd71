"""PCD files: the named fields of a point cloud, as the Point Cloud Library stores them.

Source: The PCD (Point Cloud Data) file format, version 0.7 (Point Cloud Library); LibLZF 3.6 for
    the stream inside `binary_compressed`. The viewpoint is not read: no point is moved by it.
"""

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from pc_geometry.compiling import kernel

from pc_data.errors import DataError

_MAX_HEADER = 1 << 16
_KEYS = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS")
_CODES = {"I": ("1", "2", "4", "8"), "U": ("1", "2", "4", "8"), "F": ("4", "8")}
_PADDING = "_"
_LZF_RATIO = 88
"""Bytes that one byte of an LZF stream can become: 3 bytes give at most 264."""


class _Field(NamedTuple):
    name: str
    code: str  # NumPy's, e.g. f4
    count: int

    @property
    def num_bytes(self) -> int:
        return self.count * int(self.code[1])


class _Header(NamedTuple):
    fields: tuple[_Field, ...]
    num_points: int
    form: str  # ascii, binary or binary_compressed
    num_bytes: int  # of the header itself


def read_pcd(file: Path) -> dict[str, np.ndarray]:
    """Read the fields of a PCD file in any of its three forms.

    Nothing is allocated for what the header claims before the file is known to hold it.

    Args:
        file: The file.

    Returns:
        Field name -> values in the stored type: [n], or [n k] where COUNT is k > 1. A packed `rgb`
        or `rgba` becomes `r`, `g`, `b` (and `a`), 0..255. Padding is left out.

    Raises:
        DataError: If the file is missing, no PCD file, empty, damaged, or of another length than
            its header says.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file}: PCD file is missing; restore it or drop its scan")
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = _parse_header(file, stream.read(_MAX_HEADER))
    body = size - header.num_bytes
    read = {"ascii": _read_text, "binary": _read_rows, "binary_compressed": _read_blocks}
    return _unpack_colors(file, read[header.form](file, header, body))


# --- the header


def _parse_header(file: Path, start: bytes) -> _Header:
    lines: dict[str, list[str]] = {}
    place = 0
    while "DATA" not in lines:
        end = start.find(b"\n", place)
        if end < 0:
            raise DataError(
                f"{file}: no line DATA in its first {len(start)} bytes; it is no PCD file or was "
                "cut off, fetch it again"
            )
        words = start[place:end].decode("latin1").split()
        place = end + 1
        if not words or words[0].startswith("#"):
            continue
        key = "FIELDS" if words[0] == "COLUMNS" else words[0]  # as version 0.5 calls it
        if key in lines or key not in (*_KEYS, "DATA"):
            fault = "comes twice" if key in lines else "is not of the format"
            raise DataError(f"{file}: header line {words[0][:40]!r} {fault}; fetch the file again")
        lines[key] = words[1:]
    fields = _parse_fields(file, lines)
    num_points = _parse_num_points(file, lines)
    form = " ".join(lines["DATA"])
    if form not in ("ascii", "binary", "binary_compressed"):
        raise DataError(
            f"{file}: DATA must be ascii, binary or binary_compressed, got {form[:40]!r}; fetch "
            "the file again"
        )
    return _Header(fields, num_points, form, place)


def _parse_fields(file: Path, lines: dict[str, list[str]]) -> tuple[_Field, ...]:
    for key in ("FIELDS", "SIZE", "TYPE"):
        if key not in lines:
            raise DataError(f"{file}: header has no line {key}; fetch the file again")
    names = lines["FIELDS"]
    counts = lines.get("COUNT", ["1"] * len(names))
    columns = (names, lines["SIZE"], lines["TYPE"], counts)
    if not names or any(len(column) != len(names) for column in columns):
        raise DataError(
            f"{file}: FIELDS, SIZE, TYPE and COUNT must be of one length, got "
            f"{', '.join(str(len(column)) for column in columns)}; fetch the file again"
        )
    fields = []
    for name, size, kind, count in zip(*columns, strict=True):
        if size not in _CODES.get(kind, ()) or not _is_count(count) or int(count) == 0:
            raise DataError(
                f"{file}: field {name!r} is {count} values of SIZE {size} and TYPE {kind}, which "
                "is no type of the format; fetch the file again"
            )
        fields.append(_Field(name, kind.lower() + size, int(count)))
    kept = [field.name for field in fields if field.name != _PADDING]
    twice = [name for name in kept if kept.count(name) > 1]
    if twice or not kept:
        fault = f"two fields {twice[0]!r}" if twice else "no field but padding"
        raise DataError(f"{file}: header has {fault}; fetch the file again")
    return tuple(fields)


def _parse_num_points(file: Path, lines: dict[str, list[str]]) -> int:
    words = {key: lines[key] for key in ("WIDTH", "HEIGHT", "POINTS") if key in lines}
    for key, values in words.items():
        if len(values) != 1 or not _is_count(values[0]):
            raise DataError(
                f"{file}: {key} must be one count, got {' '.join(values)[:40]!r}; fetch it again"
            )
    counts = {key: int(values[0]) for key, values in words.items()}
    if "POINTS" not in counts and "WIDTH" not in counts:
        raise DataError(f"{file}: header has no line POINTS; fetch the file again")
    area = counts.get("WIDTH", counts.get("POINTS", 0)) * counts.get("HEIGHT", 1)
    num_points = counts.get("POINTS", area)
    if "WIDTH" in counts and area != num_points:
        raise DataError(
            f"{file}: WIDTH x HEIGHT is {area} but POINTS is {num_points}; fetch the file again"
        )
    if num_points == 0:
        raise DataError(f"{file}: holds no points; drop it or fetch it again")
    return num_points


def _is_count(word: str) -> bool:
    return re.fullmatch("[0-9]{1,18}", word) is not None


# --- the three forms


def _read_text(file: Path, header: _Header, body: int) -> dict[str, np.ndarray]:
    width = sum(field.count for field in header.fields)
    due = header.num_points * 2 * width - 1  # a digit and a blank each, the last may be missing
    if body < due:
        raise _too_short(file, header, f"{due} bytes of text or more", body)
    row = [(f"{k}", "<" + f.code, (f.count,)) for k, f in enumerate(header.fields)]
    with file.open("rb") as stream:
        stream.seek(header.num_bytes)
        try:
            text = io.TextIOWrapper(stream, encoding="latin1")
            rows = np.loadtxt(text, dtype=row, comments=None, ndmin=1)
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"{file}: its rows are not {width} values of the types that its header names "
                f"({error}); fetch it again"
            ) from error
    if len(rows) != header.num_points:
        raise DataError(
            f"{file}: holds {len(rows)} rows but its header promises {header.num_points}; fetch it "
            "again"
        )
    return _columns(header, rows)


def _read_rows(file: Path, header: _Header, body: int) -> dict[str, np.ndarray]:
    due = header.num_points * sum(field.num_bytes for field in header.fields)
    if body != due:
        raise _too_short(file, header, f"{due} bytes", body)
    row = [(f"{k}", "<" + f.code, (f.count,)) for k, f in enumerate(header.fields)]
    rows = np.fromfile(file, dtype=row, count=header.num_points, offset=header.num_bytes)
    return _columns(header, rows)


def _columns(header: _Header, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {
        field.name: np.ascontiguousarray(_squeeze(rows[f"{k}"]))
        for k, field in enumerate(header.fields)
        if field.name != _PADDING
    }


def _squeeze(values: np.ndarray) -> np.ndarray:
    return values[:, 0] if values.shape[1] == 1 else values


def _read_blocks(file: Path, header: _Header, body: int) -> dict[str, np.ndarray]:
    """All values of a field follow each other; padding is not stored."""
    fields = [field for field in header.fields if field.name != _PADDING]
    due = header.num_points * sum(field.num_bytes for field in fields)
    if body < 8:
        raise _too_short(file, header, "a compressed block", body)
    with file.open("rb") as stream:
        stream.seek(header.num_bytes)
        packed_size, size = (int(value) for value in np.frombuffer(stream.read(8), "<u4"))
        if size != due:
            raise DataError(
                f"{file}: says that it unpacks to {size} bytes, but {header.num_points} points "
                f"take {due}; fetch it again"
            )
        if packed_size > body - 8 or size > _LZF_RATIO * packed_size:
            raise DataError(
                f"{file}: says that {packed_size} bytes unpack to {size}, but {body - 8} follow; "
                "the file was cut off or is damaged, fetch it again"
            )
        packed = np.frombuffer(stream.read(packed_size), dtype=np.uint8)
    values = np.zeros(size, dtype=np.uint8)
    if _decompress(packed, values) != size:
        raise DataError(
            f"{file}: its compressed block is damaged: it does not unpack to {size} bytes; fetch "
            "it again"
        )
    columns, start = {}, 0
    for field in fields:
        end = start + header.num_points * field.num_bytes
        block = values[start:end].view("<" + field.code).reshape(-1, field.count)
        columns[field.name] = _squeeze(block)
        start = end
    return columns


def _too_short(file: Path, header: _Header, due: str, body: int) -> DataError:
    return DataError(
        f"{file}: {header.num_points} points take {due}, but {body} bytes follow the header; the "
        "file was cut off or is damaged, fetch it again"
    )


@kernel
def _decompress(packed: np.ndarray, values: np.ndarray) -> int | np.int64:
    """Unpack an LZF stream; the number of bytes written, or -1 if it is damaged."""
    at, end = 0, 0
    while at < len(packed):
        control = np.int64(packed[at])
        at += 1
        if control < 32:  # that many bytes plus one, as they are
            length = control + 1
            if at + length > len(packed) or end + length > len(values):
                return -1
            for k in range(length):
                values[end + k] = packed[at + k]
            at += length
        else:  # a piece of what was written before; the two may overlap
            length = control >> 5
            if length == 7 and at < len(packed):
                length += np.int64(packed[at])
                at += 1
            if at >= len(packed):
                return -1
            start = end - ((control & 31) << 8) - np.int64(packed[at]) - 1
            at += 1
            length += 2
            if start < 0 or end + length > len(values):
                return -1
            for k in range(length):
                values[end + k] = values[start + k]
        end += length
    return end


def _unpack_colors(file: Path, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Split 32 bits of 0xAARRGGBB, which are mostly stored as if they were a float."""
    found = {}
    for name, values in columns.items():
        if name not in ("rgb", "rgba") or values.dtype.itemsize != 4 or values.ndim != 1:
            found[name] = values
            continue
        packed: UInt8[np.ndarray, "n 4"] = values.view(np.uint8).reshape(-1, 4)
        for part, place in zip("rgba"[: len(name)], (2, 1, 0, 3), strict=False):
            if part in columns or part in found:
                raise DataError(f"{file}: has both {name!r} and {part!r}; remove one of them")
            found[part] = packed[:, place].copy()
    return found
