"""TensorBoard events that a full disk ends, and training outlives."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from pc_data.errors import one_line

from pc_train.notices import notice


class EventFiles(TensorBoardLogger):
    """TensorBoard's event files, written as long as the disk takes them.

    The curve in `metrics.csv` has the same values, so they can be done without.
    """

    _broken = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:  # noqa: ANN401
        """Write values by name."""
        self._try(lambda: super(EventFiles, self).log_metrics(metrics, step))

    def save(self) -> None:
        """Flush."""
        self._try(super().save)

    def finalize(self, status: str) -> None:
        """Flush and close."""
        self._try(lambda: super(EventFiles, self).finalize(status))

    def _try(self, write: Callable[[], object]) -> None:
        if self._broken:
            return
        try:
            write()
        except OSError as error:
            self._broken = True
            notice(f"no more TensorBoard events in this part of the run ({one_line(error)})")
