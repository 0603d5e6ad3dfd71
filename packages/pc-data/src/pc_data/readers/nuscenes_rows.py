"""The rows of the nuScenes v1.0 tables, decoded one at a time and checked."""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from pc_data.errors import DataError

_CHUNK = 1 << 22
_LONGEST = 255  # bytes of a file's name
_GAP = re.compile(r"[\s,]*")
_KINDS: dict[str, type] = {  # by the last word of a field's name
    **dict.fromkeys(("token", "name", "channel", "filename", "prev"), str),
    **dict.fromkeys(("timestamp", "width", "height"), int),
}


def iter_rows(table: Path, fields: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Decode a table one row at a time.

    Args:
        table: A JSON file that holds a list of objects.
        fields: Fields that every row must have.

    Yields:
        The rows.

    Raises:
        DataError: If the file is missing, is not such a list, or a row lacks a field or has
            something of another type there.
    """
    if not table.is_file():
        raise DataError(f"{table}: table is missing; extract the metadata archive again")
    kinds = [(field, _KINDS.get(field.rpartition("_")[2], object)) for field in fields]
    try:
        for number, row in enumerate(_decode(table)):
            for field, kind in kinds:
                if not isinstance(row, dict) or field not in row:
                    raise DataError(f"{table}: row {number} has no field {field!r}")
                if not isinstance(row[field], kind):
                    raise DataError(
                        f"{table}: row {number} has {row[field]!r:.40} as {field!r}, expected "
                        f"{kind.__name__}; fetch the table again"
                    )
            yield row
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits among them
        raise DataError(f"{table}: not a JSON list ({error}); fetch the table again") from error


def _decode(table: Path) -> Iterator[Any]:
    decode = json.JSONDecoder().raw_decode
    with table.open(encoding="utf-8") as stream:
        text = stream.read(_CHUNK)
        at = _skip(text, 0)
        if text[at : at + 1] != "[":
            raise json.JSONDecodeError("no opening bracket", text, at)
        at += 1
        while True:
            at = _skip(text, at)
            if text[at : at + 1] == "]":
                if (text[at + 1 :] + stream.read(_CHUNK)).strip():
                    raise json.JSONDecodeError("something follows the list", text, at + 1)
                return
            try:
                row, at = decode(text, at)
            except json.JSONDecodeError:
                more = stream.read(_CHUNK)
                if not more or len(text) - at > _CHUNK:  # no row is that long: it is damage
                    raise
                text, at = text[at:] + more, 0
                continue
            yield row


def _skip(text: str, at: int) -> int:
    match = _GAP.match(text, at)
    return match.end() if match else at


def is_inside(name: str) -> bool:
    """Whether a relative name that a file can have stays in its folder (links are the user's).

    A backslash separates folders as a slash does; names with a root or a drive are not relative.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.root:  # "/", or "//" at the start
        return False
    if "\0" in name or max(len(part.encode(errors="replace")) for part in path.parts) > _LONGEST:
        return False
    return ".." not in path.parts and ":" not in path.parts[0]


def rigid_motion(row: dict[str, Any]) -> Float64[np.ndarray, "7"] | None:
    """Translation and unit quaternion of a row, or None if it holds none."""
    try:
        vector = np.array([*row["translation"], *row["rotation"]], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    valid = vector.shape == (7,) and np.isfinite(vector).all()
    return vector if valid and abs(np.linalg.norm(vector[3:]) - 1) < 1e-2 else None
