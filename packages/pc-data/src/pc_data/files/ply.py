"""PLY files: named elements, each a table of named properties.

Source: The PLY Polygon File Format (Turk, 1994), version 1.0.
"""

import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from pc_data.errors import DataError

_TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
}
_SIZED = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
_CODE_OF_TYPE = {**_TYPES, **dict(zip(_SIZED, _TYPES.values(), strict=True))}
_TYPE_OF_CODE = {code: name for name, code in _TYPES.items()}
_BYTE_ORDER = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 16
_MAX_ROW = 1 << 30
_BLOCK = 1 << 22  # bytes of text that are parsed at a time


class _Property(NamedTuple):
    """A column; `count` is the type of the length of its lists, empty if it holds scalars."""

    name: str
    code: str
    count: str


class _Element(NamedTuple):
    name: str
    num_rows: int
    properties: list[_Property]


class _Header(NamedTuple):
    order: str
    elements: list[_Element]
    num_bytes: int


def read_ply(file: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read all elements of a PLY file, text or binary.

    Nothing is allocated for what the header claims before the file is known to hold it.

    Args:
        file: The file.

    Returns:
        Element name -> property name -> values in the stored type and the machine's byte order:
        [n] for a scalar, [n k] for lists, which must all have the same length k. Comments are
        left out.

    Raises:
        DataError: If the file is missing, no PLY file, damaged, of another length than its header
            says, or has lists of several lengths in one property.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file}: PLY file is missing; restore it or drop its scan")
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = _parse_header(file, stream.read(_MAX_HEADER))
        _check_size(file, header, size)
        stream.seek(header.num_bytes)
        if header.order == "=":
            return _read_text(file, header, stream)
        return _read_binary(file, header, stream, size)


def write_ply(file: Path, elements: dict[str, dict[str, np.ndarray]]) -> None:
    """Write a binary little-endian PLY file; it appears only when it is complete.

    Args:
        file: Where to; an existing file is replaced.
        elements: As `read_ply` returns them, of types that the format has.

    Raises:
        ValueError: If a name, a type, a shape or a number of rows does not fit the format.
    """
    lines = ["ply", "format binary_little_endian 1.0"]
    tables = []
    for name, properties in elements.items():
        table = _pack(name, properties)
        lines.append(f"element {_checked_name(name)} {len(table)}")
        lines.extend(_declare(column, np.asarray(values)) for column, values in properties.items())
        tables.append(table)
    file = Path(file)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(("\n".join([*lines, "end_header"]) + "\n").encode("ascii"))
            for table in tables:
                table.tofile(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


# --- the header


def _parse_header(file: Path, start: bytes) -> _Header:
    ends = [end for end in (b"\r\n", b"\n", b"\r") if start.startswith(b"ply" + end)]
    if not ends:
        raise DataError(f"{file}: does not start as a PLY file; fetch it again or remove it")
    end = ends[0]
    text, found, _ = start.partition(end + b"end_header" + end)
    if not found:
        raise DataError(
            f"{file}: no end_header in its first {min(len(start), _MAX_HEADER)} bytes; the file "
            "was cut off or is damaged, fetch it again"
        )
    order, elements = "", []
    for line in text.decode("latin1").split(end.decode())[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and not order and words[2:] == ["1.0"]:
            order = _BYTE_ORDER.get(words[1], "")
        elif words[0] == "element" and order:
            elements.append(_parse_element(file, words, elements))
        elif words[0] == "property" and elements:
            elements[-1].properties.append(_parse_property(file, words, elements[-1]))
        else:
            order = ""
        if not order:
            raise DataError(f"{file}: header line {line[:80]!r} is not PLY 1.0; fetch it again")
    if not order:
        raise DataError(f"{file}: header names no format; fetch the file again")
    return _Header(order, elements, len(text) + len(found))


def _parse_element(file: Path, words: list[str], known: list[_Element]) -> _Element:
    count = words[2] if len(words) == 3 else ""
    if not (count.isascii() and count.isdigit() and len(count) < 20):
        raise DataError(
            f"{file}: header line {' '.join(words)[:80]!r} gives no number of rows; fetch it again"
        )
    if any(element.name == words[1] for element in known):
        raise DataError(f"{file}: header has two elements {words[1]!r}; fetch the file again")
    return _Element(words[1], int(count), [])


def _parse_property(file: Path, words: list[str], element: _Element) -> _Property:
    """Read `property TYPE NAME` or `property list COUNT_TYPE TYPE NAME`."""
    is_list = words[1:2] == ["list"]
    types = [_CODE_OF_TYPE.get(word) for word in words[1 + is_list : -1]]
    if len(types) != 1 + is_list or (is_list and types[0] in ("f4", "f8")) or None in types:
        raise DataError(
            f"{file}: header line {' '.join(words)[:80]!r} is no property of a known type "
            f"({', '.join(_CODE_OF_TYPE)}); fetch the file again"
        )
    if any(other.name == words[-1] for other in element.properties):
        raise DataError(
            f"{file}: header has two properties {words[-1]!r} of {element.name}; fetch it again"
        )
    return _Property(words[-1], str(types[-1]), str(types[0]) if is_list else "")


def _check_size(file: Path, header: _Header, size: int) -> None:
    """Refuse a file that is shorter than its header says, lists counted as empty."""
    due = 0
    for element in header.elements:
        if header.order == "=":
            row = 2 * len(element.properties)  # a digit and a blank
        else:
            row = sum(np.dtype(p.count or p.code).itemsize for p in element.properties)
        due += element.num_rows * row
    due -= header.order == "="  # the last blank may be missing
    if size - header.num_bytes < due:
        claims = ", ".join(f"{element.num_rows} x {element.name}" for element in header.elements)
        raise DataError(
            f"{file}: header promises {claims}, which take {due} bytes or more, but "
            f"{size - header.num_bytes} follow it; the file was cut off or is damaged, fetch it "
            "again"
        )


# --- binary bodies


def _read_binary(
    file: Path, header: _Header, stream: BinaryIO, size: int
) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for element in header.elements:
        row = _row_type(file, element, header.order, stream, size)
        left = size - stream.tell()
        if element.num_rows * row.itemsize > left:
            raise DataError(
                f"{file}: {element.num_rows} x {element.name} take "
                f"{element.num_rows * row.itemsize} bytes, but {left} are left; the file was cut "
                "off or its lists differ in length, fetch it again or triangulate it"
            )
        num_rows = element.num_rows if row.itemsize else 0
        rows = np.fromfile(stream, dtype=row, count=num_rows)
        found[element.name] = _columns(file, element, rows)
    if stream.tell() != size:
        raise DataError(
            f"{file}: {size - stream.tell()} bytes follow what its header promises; its lists "
            "differ in length or it is damaged, fetch it again or triangulate it"
        )
    return found


def _row_type(file: Path, element: _Element, order: str, stream: BinaryIO, size: int) -> np.dtype:
    """Type of an element's rows; the lengths of the lists are those of its first row."""
    fields: list[tuple] = []
    start = place = stream.tell()
    for number, (name, code, count) in enumerate(element.properties):
        if not count:
            fields.append((f"{number}", order + code))
            place += np.dtype(code).itemsize
            continue
        length = 0
        if element.num_rows:
            stream.seek(place)
            head = stream.read(np.dtype(count).itemsize)
            length = int.from_bytes(
                head, "little" if order == "<" else "big", signed=count[0] == "i"
            )
        place += np.dtype(count).itemsize + length * np.dtype(code).itemsize
        if length < 0 or (element.num_rows and place > min(size, start + _MAX_ROW)):
            raise DataError(
                f"{file}: the first {element.name} has a list {name!r} of {length} values, which "
                "the file does not hold; fetch it again"
            )
        fields += [(f"{number}n", order + count), (f"{number}", order + code, (length,))]
    stream.seek(start)
    return np.dtype(fields)


def _columns(file: Path, element: _Element, rows: np.ndarray) -> dict[str, np.ndarray]:
    columns = {}
    for number, (name, code, count) in enumerate(element.properties):
        values = rows[f"{number}"]
        if count and (rows[f"{number}n"] != values.shape[1]).any():
            raise _ragged(file, element, name)
        columns[name] = np.array(values, dtype=code)
    return columns


def _ragged(file: Path, element: _Element, name: str) -> DataError:
    return DataError(
        f"{file}: lists {name!r} of {element.name} differ in length or are damaged; fetch the "
        "file again or triangulate it"
    )


# --- text bodies


def _read_text(file: Path, header: _Header, stream: BinaryIO) -> dict[str, dict[str, np.ndarray]]:
    numbers = _read_numbers(file, stream)
    found: dict[str, dict[str, np.ndarray]] = {}
    start = 0
    for element in header.elements:
        widths = _first_widths(file, element, numbers[start:])
        end = start + element.num_rows * sum(widths)
        if end > len(numbers):
            raise DataError(
                f"{file}: {element.num_rows} x {element.name} take {end - start} numbers, but "
                f"{len(numbers) - start} are left; the file was cut off or its lists differ in "
                "length, fetch it again or triangulate it"
            )
        num_rows = element.num_rows if element.properties else 0
        rows = numbers[start:end].reshape(num_rows, sum(widths))
        found[element.name] = _text_columns(file, element, rows, widths)
        start = end
    if start != len(numbers):
        raise DataError(
            f"{file}: {len(numbers) - start} numbers follow what its header promises; its lists "
            "differ in length or it is damaged, fetch it again or triangulate it"
        )
    return found


def _read_numbers(file: Path, stream: BinaryIO) -> np.ndarray:
    blocks = [np.empty(0)]
    try:
        while lines := stream.readlines(_BLOCK):
            blocks.append(np.array(b" ".join(lines).split(), dtype=np.float64))
    except ValueError as error:
        raise DataError(
            f"{file}: its rows are not all numbers ({error}); fetch it again"
        ) from error
    return np.concatenate(blocks)


def _first_widths(file: Path, element: _Element, numbers: np.ndarray) -> list[int]:
    """How many numbers each property takes in the first row."""
    widths: list[int] = []
    for name, _, count in element.properties:
        place, length = sum(widths), 0.0
        if count and element.num_rows:
            length = float(numbers[place]) if place < len(numbers) else np.nan
            if not (0 <= length <= len(numbers) and length.is_integer()):
                raise DataError(
                    f"{file}: the first {element.name} has a list {name!r} of {length:g} values, "
                    "which the file does not hold; fetch it again"
                )
        widths.append(1 + int(length))
    return widths


def _text_columns(
    file: Path, element: _Element, rows: np.ndarray, widths: list[int]
) -> dict[str, np.ndarray]:
    columns = {}
    place = 0
    for (name, code, count), width in zip(element.properties, widths, strict=True):
        values = rows[:, place : place + width]
        if count and (values[:, 0] != width - 1).any():
            raise _ragged(file, element, name)
        columns[name] = _cast(file, name, values[:, 1:] if count else values[:, 0], code)
        place += width
    return columns


def _cast(file: Path, name: str, values: np.ndarray, code: str) -> np.ndarray:
    if code[0] in "iu":
        limits = np.iinfo(code)
        fits = (values >= limits.min) & (values <= limits.max) & (values == np.floor(values))
        if not fits.all():
            raise DataError(
                f"{file}: property {name!r} holds {values[~fits][0]:g}, which is no "
                f"{_TYPE_OF_CODE[code]}; fetch it again"
            )
    with np.errstate(over="ignore"):
        return values.astype(code)


# --- writing


def _checked_name(name: str) -> str:
    if not (name.isascii() and name.isprintable() and name.split() == [name]):
        raise ValueError(f"names in a PLY file are one ASCII word, got {name!r}; rename it")
    return name


def _code(name: str, values: np.ndarray) -> str:
    code = values.dtype.str[1:]
    if code not in _TYPE_OF_CODE or values.ndim not in (1, 2):
        raise ValueError(
            f"{name!r} must be [n] or [n k] of {', '.join(_SIZED)}, got {values.dtype} "
            f"{list(values.shape)}; convert it"
        )
    return code


def _declare(name: str, values: np.ndarray) -> str:
    kind = _TYPE_OF_CODE[_code(name, values)]
    length = f"list {_count_type(values)} " if values.ndim == 2 else ""
    return f"property {length}{kind} {_checked_name(name)}"


def _count_type(values: np.ndarray) -> str:
    return "uchar" if values.shape[1] <= 255 else "uint"


def _pack(element: str, properties: dict[str, np.ndarray]) -> np.ndarray:
    """One row after the other, as they go into the file."""
    columns = {name: np.asarray(values) for name, values in properties.items()}
    fields: list[tuple] = []
    for number, (name, values) in enumerate(columns.items()):
        code = _code(name, values)
        if values.ndim == 2:
            fields.append((f"{number}n", "<" + _TYPES[_count_type(values)]))
        fields.append((f"{number}", "<" + code, values.shape[1:]))
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"properties of {element!r} must be of one length, got {sorted(lengths)}; pad or cut"
        )
    rows = np.zeros(lengths.pop(), dtype=fields)
    for number, values in enumerate(columns.values()):
        rows[f"{number}"] = values
        if values.ndim == 2:
            rows[f"{number}n"] = values.shape[1]
    return rows
