"""What watches a run: seeds per step, a line of progress, the curve, a guard against NaN."""

import csv
import math
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_data.progress import progress_line

_LOG_EVERY = 10  # steps between rows of the logger


class StepSeed(Callback):
    """Seeds torch before each step from (seed, step, rank).

    The state of a generator is in no checkpoint, so without this a resumed run would draw other
    dropout masks than the run that was never interrupted.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Seed the step to come."""
        # A hash, because torch's generator on the CPU takes the lowest 32 bits only.
        words = np.random.SeedSequence([self.seed, trainer.global_step, trainer.global_rank])
        torch.manual_seed(int(words.generate_state(1)[0]))


class FiniteLoss(Callback):
    """Stops at the first loss that is not finite, before it reaches a checkpoint."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Look at the step's loss.

        Raises:
            ValueError: If it is NaN or infinite; names the scans.
        """
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and not bool(torch.isfinite(loss)):
            names = ", ".join(getattr(batch, "names", ()))
            raise ValueError(
                f"the loss of step {trainer.global_step} is {float(loss)} on scans {names}; lower "
                "lr, or train in 32-bit precision"
            )


class LossCurve(Callback):
    """Writes `step,loss,lr` to a CSV file and to the logger.

    A resumed run drops the rows that it will write again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stream: TextIO | None = None

    def on_train_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
    ) -> None:
        """Open the file, keeping what lies before the first step to come."""
        if not trainer.is_global_zero:
            return
        rows = [row for row in read_curve(self.file) if row[0] <= trainer.global_step]
        self._stream = self.file.open("w", newline="")
        self._stream.write("step,loss,lr\n")
        self._stream.writelines(f"{step:d},{loss!r},{lr!r}\n" for step, loss, lr in rows)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Append one row."""
        if self._stream is None:
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        if trainer.logger is not None and trainer.global_step % _LOG_EVERY == 0:
            trainer.logger.log_metrics({"loss": float(loss), "lr": rate}, step=trainer.global_step)
        self._stream.write(f"{trainer.global_step:d},{float(loss)!r},{rate!r}\n")
        self._stream.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file also when the run is stopped."""
        del exception
        self.teardown(trainer, pl_module, "fit")


def read_curve(file: Path) -> list[tuple[int, float, float]]:
    """Read (step, loss, lr) rows; an absent file has none, what a kill tore is left out."""
    if not file.is_file():
        return []
    with file.open(newline="") as stream:
        rows = [row for row in csv.reader(stream) if len(row) == 3 and row[0].isdigit()]
    return [(int(step), float(loss), float(lr)) for step, loss, lr in rows]


class ProgressLine(Callback):
    """One line on standard error with the step, the time left and a smoothed loss."""

    def __init__(self, title: str) -> None:
        self.report = progress_line(title)
        self._mean = math.nan

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Show the step and a smoothed loss."""
        if not trainer.is_global_zero:
            return
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)
        self._mean = loss if math.isnan(self._mean) else 0.95 * self._mean + 0.05 * loss
        self.report(trainer.global_step, trainer.max_steps, f"loss {self._mean:.4f}")
