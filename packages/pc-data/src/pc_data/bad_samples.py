"""Damaged scans of a run, counted once each over all its processes and restarts."""

import json
import os
from contextlib import suppress
from pathlib import Path

from pc_data.errors import DataError

_LONGEST = 2000  # characters of a reason; one short write is not mixed with another process's


class BadSamples:
    """Which scans were damaged, and how many may be.

    Loader processes, training processes and restarts of a run share the file: each scan counts
    once. Without a file this process counts alone. A file that cannot be written ends no run.

    Args:
        limit: How many distinct scans may be damaged.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._file: Path | None = None
        self._reasons: dict[int, str] = {}

    def keep_in(self, file: Path) -> None:
        """Count with all who keep their record in this file, from now on."""
        mine, self._reasons = self._reasons, {}
        self._file = file
        for number, reason in mine.items():
            self._add(number, reason)

    def note(self, number: int, error: DataError) -> bool:
        """Count a damaged scan.

        Returns:
            Whether it was not known yet.

        Raises:
            DataError: If more are damaged than may be.
        """
        is_new = number not in self._reasons and self._add(number, str(error))
        if len(self._reasons) > self.limit:
            listed = f"; {self._file} lists them" if self._file else ""
            raise DataError(
                f"{len(self._reasons)} scans are damaged, more than max_bad_samples "
                f"{self.limit}{listed}; mend them or raise max_bad_samples; the last: {error}"
            )
        return is_new

    def _add(self, number: int, reason: str) -> bool:
        self._reasons |= read_bad_samples(self._file) if self._file else {}
        if number in self._reasons:
            return False
        self._reasons[number] = reason
        if self._file is not None:
            with suppress(OSError):
                _append(self._file, {"scan": number, "reason": reason[:_LONGEST]})
        return True


def read_bad_samples(file: Path) -> dict[int, str]:
    """Read why which scans were left out, by their number; what a kill tore is left out."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    reasons: dict[int, str] = {}
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            reasons.setdefault(int(row["scan"]), str(row["reason"]))
    return reasons


def _append(file: Path, row: dict[str, object]) -> None:
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(handle).st_size
        is_torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, ("\n" * is_torn + json.dumps(row) + "\n").encode())
    finally:
        os.close(handle)
