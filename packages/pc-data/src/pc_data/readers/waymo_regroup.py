"""Waymo's tables with a row group for every frame, so that any frame is read at once.

The official files hold 256 rows, some fifty frames, in a row group, and a frame's row can only be
reached by decoding the rows before it. Same layout, same rows, same reader; a scan drawn at random
is read several times faster.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pc_data.errors import DataError
from pc_data.layouts import check_root
from pc_data.readers.arrow import Table, import_arrow
from pc_data.readers.waymo_tables import TIME


def regroup_waymo(
    root: str | Path, out: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Copy a Waymo v2 folder so that each row group holds the rows of one frame.

    A file is put in its place when it is complete, and one that is there is not made again, so a
    run that was cut off is continued by the same call. Few rows are in memory at a time.

    Args:
        root: The folder that holds `training/`, `validation/` or `testing/`.
        out: Where the copy goes.
        progress: Called with (done, total) after each file.

    Returns:
        How many files were made.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If it is another dataset's, or a table is damaged.
        ValueError: If `out` is `root` or lies in it.
        ImportError: If pyarrow is not installed.
    """
    root, out = Path(root), Path(out)
    check_root(root, "Waymo v2")
    if root.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"out must lie outside {root}, got {out}; choose another folder")
    files = sorted(root.glob("*/*/*.parquet"))
    made = 0
    for done, file in enumerate(files, start=1):
        target = out / file.relative_to(root)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(f".partial-{os.getpid()}")
            try:
                _regroup(file, partial)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            made += 1
        if progress is not None:
            progress(done, len(files))
    return made


def _regroup(file: Path, out: Path) -> None:
    arrow, parquet = import_arrow("pyarrow"), import_arrow("pyarrow.parquet")
    table = Table(file)
    if TIME not in table.schema.names:  # calibrations, a few rows for the whole segment
        shutil.copyfile(file, out)
        return
    with parquet.ParquetWriter(out, table.schema, compression="zstd") as writer:
        frame: list = []
        time = None
        for row in table.iter_rows():
            now = row.column(row.schema.get_field_index(TIME))[0].as_py()
            if frame and now != time:
                writer.write_table(arrow.Table.from_batches(frame))
                frame = []
            time = now
            frame.append(row)
        if frame:
            writer.write_table(arrow.Table.from_batches(frame))
    if parquet.read_metadata(out).num_rows != table.num_rows:
        raise DataError(f"{out}: rows were lost while writing; free some space and try again")
