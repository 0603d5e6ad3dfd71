"""How fast a run goes, and how much of its time it waits for data."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from pc_train.callbacks import is_watched
from pc_train.tables import StepTable


class Pace(Callback):
    """Writes seconds per step and the share of waiting to `pace.csv` and to the logger.

    Means since the row before, at every tenth step. These numbers are those of the machine and no
    result: unlike the curve, they differ between two runs of one command.

    Args:
        file: The table.
        clock: Seconds that only grow.

    Attributes:
        waiting: Share of the time between the last two rows in which steps waited for a batch.
    """

    def __init__(self, file: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.table, self.clock = StepTable(file, ("seconds", "waiting")), clock
        self.waiting = math.nan
        self._since = self._ended = math.nan
        self._waited, self._steps = 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Begin to measure."""
        if trainer.is_global_zero:
            self.table.begin(trainer.global_step)
        self._begin(self.clock())

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """The batch is there."""
        self._waited += self.clock() - self._ended

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """The step is done; its loss has been looked at, so the device has finished too."""
        now, step = self.clock(), trainer.global_step
        self._ended = now
        self._steps += 1
        if not trainer.is_global_zero or not is_watched(step):
            return
        passed = max(now - self._since, 1e-9)
        self.waiting = self._waited / passed
        seconds = passed / self._steps
        self.table.append(step, (seconds, self.waiting))
        if trainer.logger is not None:
            row = {"seconds per step": seconds, "waiting for data": self.waiting}
            trainer.logger.log_metrics(row, step=step)
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._since = self._ended = now
        self._waited, self._steps = 0.0, 0
