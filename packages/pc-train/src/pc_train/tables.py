"""Tables of numbers by step, which a killed run may have torn and a resumed one goes on with."""

import csv
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from pc_train.runs import write_text

PACE_TABLE, PROBE_TABLE = "pace.csv", "probe.csv"
"""Of a run's folder, besides the curve."""


class StepTable:
    """A CSV file beside a run's curve; what the disk does not take is left out of it.

    Args:
        file: The table; its first column is `step`.
        columns: The others.
    """

    def __init__(self, file: Path, columns: Sequence[str]) -> None:
        self.file, self.columns = file, ("step", *columns)

    def begin(self, num_done: int) -> None:
        """Write the header, and the rows of the first `num_done` steps if there are any."""
        old = read_table(self.file)
        text = table_line(self.columns)
        for row, step in enumerate(old.get("step", ())):
            if step <= num_done:
                cells = (old[name][row] if name in old else math.nan for name in self.columns[1:])
                text += table_line([f"{step:.0f}", *map(table_cell, cells)])
        with suppress(OSError):
            write_text(self.file, text)

    def append(self, step: int, values: Sequence[float]) -> None:
        """Write one row."""
        line = table_line([str(step), *map(table_cell, values)])
        with suppress(OSError), self.file.open("a", encoding="utf-8", newline="") as stream:
            stream.write(line)


def read_table(file: Path) -> dict[str, Float64[np.ndarray, " n"]]:
    """Read all columns of a table by name.

    Empty cells are NaN. An absent file has no columns, what a kill tore is left out.

    Raises:
        ValueError: If a whole line is damaged.
    """
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    try:
        header, *rows = csv.reader(io.StringIO(whole)) if whole else [[]]
        if header[:1] != ["step"]:
            return {}
        kept = [row for row in rows if len(row) == len(header) and row[0].isdigit()]
        values = np.array([[float(cell or "nan") for cell in row] for row in kept])
    except (ValueError, csv.Error) as error:
        reason = str(error)[:200]
        raise ValueError(f"{file} is damaged ({reason}); remove the line, or the file") from error
    return dict(zip(header, values.reshape(-1, len(header)).T.copy(), strict=True))


def table_cell(value: float) -> str:
    """A number that reads back as the same number; nothing for NaN."""
    return "" if math.isnan(value) else repr(float(value))


def table_line(cells: Sequence[str]) -> str:
    """One row with its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
