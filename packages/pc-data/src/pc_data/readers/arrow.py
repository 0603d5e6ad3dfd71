"""Parquet and Feather tables: some rows or columns of large files, and the damage they can have.

pyarrow is an extra of the package, so it is imported only when a table is opened.
"""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from pc_data.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 8
"""Rows decoded at a time: a row of range images is several megabytes."""
_OPEN_FILES = 16


def import_arrow(module: str) -> Any:  # noqa: ANN401
    """Import `pyarrow` or a part of it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            "this dataset is stored in tables that pyarrow reads; install the extra "
            "pc-data[parquet]"
        ) from error


def _table_errors(arrow: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401
    """What a damaged table raises, a name of a column that is no UTF-8 when first asked for."""
    return arrow.ArrowException, OSError, UnicodeDecodeError


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _check_names(names: Sequence[str], wanted: Sequence[str], file: Path) -> None:
    """Refuse a table that lacks a column or has two of its name."""
    for name in wanted:
        if name not in names:
            raise DataError(f"{file}: no column {name!r}; fetch the original table")
        if names.count(name) > 1:
            raise DataError(f"{file}: several columns {name!r}; fetch the original table")


class Table:
    """A Parquet file of which few rows are read at a time.

    Attributes:
        file: The file.
        num_rows: Its number of rows.
        schema: Its columns.
    """

    def __init__(self, file: Path) -> None:
        """Read the file's footer.

        Raises:
            DataError: If the file is missing or no Parquet file.
            MissingExtraError: If pyarrow is not installed.
        """
        parquet, arrow = import_arrow("pyarrow.parquet"), import_arrow("pyarrow")
        if not file.is_file():
            raise DataError(f"{file}: table is missing; restore it or drop its scans")
        self.file = file
        self._errors = _table_errors(arrow)
        try:
            self._table = parquet.ParquetFile(file, memory_map=False, pre_buffer=False)
            metadata = self._table.metadata
            self.schema: pa.Schema = self._table.schema_arrow
            self._names = list(self.schema.names)
        except self._errors as error:
            raise DataError(
                f"{file}: not a Parquet file ({_one_line(error)}); fetch it again"
            ) from error
        self.num_rows: int = metadata.num_rows
        sizes = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def read(
        self, columns: Sequence[str], rows: Int64[np.ndarray, " k"] | None = None
    ) -> "pa.Table":
        """Read columns of all rows, or of some.

        Row groups without a wanted row are skipped, the others are decoded a few rows at a time
        and only as far as the last wanted one, so memory stays small however large a group is.

        Args:
            columns: Their names.
            rows: Row numbers, ascending; None for all.

        Raises:
            DataError: If a column is absent or the file is damaged.
        """
        arrow = import_arrow("pyarrow")
        _check_names(self._names, columns, self.file)
        if rows is not None and rows.size and rows[-1] >= self.num_rows:
            raise DataError(
                f"{self.file}: no row {rows[-1]}, the table has {self.num_rows}; open the dataset "
                "again"
            )
        try:
            if rows is None:
                return self._table.read(columns=list(columns), use_threads=False)
            batches = [
                batch
                for group in np.unique(np.searchsorted(self._starts, rows, side="right") - 1)
                for batch in self._read_group(int(group), list(columns), rows)
            ]
            if batches:
                return arrow.Table.from_batches(batches)
            return self.schema.empty_table().select(list(columns))
        except self._errors as error:
            raise DataError(
                f"{self.file}: table is damaged ({_one_line(error)}); fetch it again"
            ) from error

    def iter_rows(self, columns: Sequence[str] | None = None) -> Iterator["pa.RecordBatch"]:
        """Read the rows one after the other, a few in memory at a time.

        Raises:
            DataError: If the file is damaged.
        """
        batches = self._table.iter_batches(
            batch_size=_BATCH, columns=None if columns is None else list(columns), use_threads=False
        )
        while True:
            try:
                batch = next(batches, None)
            except self._errors as error:
                raise DataError(
                    f"{self.file}: table is damaged ({_one_line(error)}); fetch it again"
                ) from error
            if batch is None:
                return
            yield from (batch.slice(row, 1) for row in range(batch.num_rows))

    def _read_group(
        self, group: int, columns: list[str], rows: Int64[np.ndarray, " k"]
    ) -> list["pa.RecordBatch"]:
        """The wanted rows of a row group."""
        at, end = int(self._starts[group]), int(self._starts[group + 1])
        last = int(rows[rows < end][-1])
        found = []
        batches = self._table.iter_batches(
            batch_size=_BATCH, row_groups=[group], columns=columns, use_threads=False
        )
        for batch in batches:
            wanted = rows[(rows >= at) & (rows < at + batch.num_rows)] - at
            found.extend(batch.slice(row, 1) for row in wanted.tolist())
            at += batch.num_rows
            if at > last:
                break
        return found


def open_table(file: Path) -> Table:
    """Open a Parquet file; the footers of the last few files are kept.

    Raises:
        DataError: If the file is missing or no Parquet file.
        MissingExtraError: If pyarrow is not installed.
    """
    if not file.is_file():
        raise DataError(f"{file}: table is missing; restore it or drop its scans")
    status = file.stat()
    return _open_version(file, status.st_mtime_ns, status.st_size, os.getpid())


@lru_cache(maxsize=_OPEN_FILES)
def _open_version(file: Path, modified: int, size: int, process: int) -> Table:  # noqa: ARG001
    return Table(file)


def read_feather(file: Path, columns: Sequence[str]) -> "pa.Table":
    """Read columns of a Feather file.

    Raises:
        DataError: If the file is missing or damaged, or a column is absent.
        MissingExtraError: If pyarrow is not installed.
    """
    feather, arrow = import_arrow("pyarrow.feather"), import_arrow("pyarrow")
    if not file.is_file():
        raise DataError(f"{file}: table is missing; restore it or drop its scan")
    try:
        table = feather.read_table(file, memory_map=False, use_threads=False)
        table.validate(full=True)  # lengths and places that lead out of it are read unseen
        names = table.column_names
    except _table_errors(arrow) as error:
        raise DataError(
            f"{file}: not a Feather file ({_one_line(error)}); fetch it again"
        ) from error
    _check_names(names, columns, file)
    return table.select(list(columns))


def column_array(
    table: "pa.Table", name: str, file: Path, *, dtype: str, width: int = 0
) -> np.ndarray:
    """A column of numbers as an array.

    Args:
        table: Read from `file`.
        name: The column.
        file: For messages.
        dtype: NumPy's name of the type wanted; integers must fit it.
        width: Numbers in each row, 0 for a plain column.

    Raises:
        DataError: If an entry is absent, not finite, or not of that type or width.
    """
    arrow = import_arrow("pyarrow")
    column = table[name].combine_chunks()
    try:
        if column.null_count:
            raise ValueError(f"{column.null_count} entries are absent")
        if width:
            if (column.value_lengths().to_numpy(zero_copy_only=False) != width).any():
                raise ValueError(f"not {width} numbers in each row")
            column = column.flatten()
            if column.null_count:
                raise ValueError(f"{column.null_count} numbers are absent")
        values = column.cast(dtype).to_numpy(zero_copy_only=False)
    except (AttributeError, ValueError, TypeError, arrow.ArrowException) as error:
        raise DataError(
            f"{file}: column {name!r} is not what it should be ({_one_line(error)}); fetch the "
            "original table"
        ) from error
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(f"{file}: column {name!r} has NaN or infinite values; fetch it again")
    return values.reshape(-1, width) if width else values


def column_text(table: "pa.Table", name: str, file: Path) -> list[str]:
    """A column of texts.

    Raises:
        DataError: If an entry is no text.
    """
    try:
        values = table[name].to_pylist()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: column {name!r} is no UTF-8 text; fetch it again") from error
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{file}: column {name!r} holds other things than texts; fetch it again")
    return values
