"""LAS and LAZ files of airborne and other surveys, read by laspy and lazrs (extra `pc-data[las]`).

Source: LAS Specification 1.4 (ASPRS, 2013). What a header claims is compared with the file before
    laspy allocates for it: a false count there costs minutes, or the process.
"""

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pc_data.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import laspy

_RECORD = 54  # bytes of a variable length record without its content
_BATCH = 1 << 18  # points read at a time


def _import_laspy(file: Path) -> Any:  # noqa: ANN401
    try:
        import laspy

        if file.suffix.lower() == ".laz" and not laspy.LazBackend.Lazrs.is_available():
            raise ImportError("lazrs is not installed")
    except ImportError as error:
        raise MissingExtraError(
            f"{file}: .las and .laz files are read by laspy and lazrs; install the extra "
            "pc-data[las]"
        ) from error
    return laspy


def read_las(file: Path) -> dict[str, np.ndarray]:
    """Read the dimensions of the points of a .las or .laz file.

    Returns:
        Name -> values [n]: x, y, z with scale and offset applied, in float64; the others as they
        are stored.

    Raises:
        DataError: If the file is missing, empty, damaged, or of another length than its header
            says.
        MissingExtraError: If laspy is not installed.
    """
    if not file.is_file():
        raise DataError(f"{file}: file is missing; restore it or drop its scan")
    laspy = _import_laspy(file)
    _check_start(file)
    try:
        # One thread: data loaders have a process for each core already.
        backend = laspy.LazBackend.Lazrs
        with laspy.open(file, read_evlrs=False, laz_backend=backend) as reader:
            _check_header(file, reader.header)
            batches = [_columns(points) for points in reader.chunk_iterator(_BATCH)]
            due = reader.header.point_count
    except DataError:
        raise
    except BaseException as error:  # a damaged file can fail in any step of laspy
        if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise  # lazrs panics with what is no Exception
        raise DataError(
            f"{file}: not a LAS file that can be read ({error}); fetch it again"
        ) from error
    count = sum(len(batch["x"]) for batch in batches)
    if count != due:
        raise DataError(f"{file}: header promises {due} points but {count} are there; fetch it")
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _check_start(file: Path) -> None:
    """Refuse a file whose header claims records that it cannot hold, before laspy looks for them.

    Source: LAS Specification 1.4 (ASPRS, 2013), table 3.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(104)
    if len(start) < 104 or start[:4] != b"LASF":
        raise DataError(f"{file}: does not start as a LAS file; fetch it again or remove it")
    header_size, first_point, num_records = struct.unpack_from("<HII", start, 94)
    if header_size + _RECORD * num_records > first_point or first_point > size:
        raise DataError(
            f"{file}: header says that {num_records} records end and points begin at byte "
            f"{first_point} of {size}; the file was cut off or is damaged, fetch it again"
        )


def _check_header(file: Path, header: "laspy.LasHeader") -> None:
    """Refuse a header whose points the file cannot hold, or that puts them nowhere."""
    if header.point_count == 0:
        raise DataError(f"{file}: holds no points; drop it or fetch it again")
    size = file.stat().st_size
    left = size - header.offset_to_point_data
    packed = header.are_points_compressed
    # Each chunk begins with a point that is not compressed.
    num_rows = _num_chunks(file, header, size) if packed else header.point_count
    if left <= 0 or num_rows * header.point_format.size > left:
        raise DataError(
            f"{file}: {num_rows} {'chunks of points' if packed else 'points'} do not fit into the "
            f"{max(left, 0)} bytes after the header; the file was cut off or is damaged, fetch it "
            "again"
        )
    if not (np.isfinite(header.scales).all() and np.isfinite(header.offsets).all()):
        raise DataError(f"{file}: scale or offset is not finite; fetch the file again")


def _num_chunks(file: Path, header: "laspy.LasHeader", size: int) -> int:
    """How many chunks the table of a .laz file claims; the decompressor would allocate for them."""
    with file.open("rb") as stream:
        stream.seek(header.offset_to_point_data)
        (table,) = struct.unpack("<q", stream.read(8).ljust(8, b"\0"))
        if table == -1:  # written to a stream: the place comes last
            stream.seek(size - 8)
            (table,) = struct.unpack("<q", stream.read(8))
        if not header.offset_to_point_data <= table <= size - 8:
            raise DataError(
                f"{file}: its table of chunks would be at byte {table} of {size}; the file was cut "
                "off or is damaged, fetch it again"
            )
        stream.seek(table + 4)
        return struct.unpack("<I", stream.read(4))[0]


def _columns(points: "laspy.ScaleAwarePointRecord") -> dict[str, np.ndarray]:
    names = [name for name in points.point_format.dimension_names if name not in ("X", "Y", "Z")]
    with np.errstate(over="ignore", invalid="ignore"):  # a huge scale: who uses x sees infinity
        return {name: np.array(points[name]) for name in ("x", "y", "z", *names)}
