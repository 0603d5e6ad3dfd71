"""What watches a run: seeds per step, a line of progress, the curve, a guard against NaN."""

import csv
import math
from pathlib import Path
from typing import TextIO

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_data.progress import progress_line


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
        *_: object,
    ) -> None:
        """Seed the step to come."""
        step = trainer.global_step
        torch.manual_seed(((self.seed << 40) + (step << 12) + trainer.global_rank) & (2**63 - 1))


class FiniteLoss(Callback):
    """Stops at the first loss that is not finite, before it reaches a checkpoint."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,
        batch: object,
        *_: object,
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
        outputs: object,
        *_: object,
    ) -> None:
        """Append one row."""
        if self._stream is None:
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        if trainer.logger is not None and trainer.global_step % trainer.log_every_n_steps == 0:
            trainer.logger.log_metrics({"loss": float(loss), "lr": rate}, step=trainer.global_step)  # type: ignore[arg-type]
        self._stream.write(f"{trainer.global_step:d},{float(loss)!r},{rate!r}\n")  # type: ignore[arg-type]
        self._stream.flush()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def read_curve(file: Path) -> list[tuple[int, float, float]]:
    """Read (step, loss, lr) rows; an absent file has none, a torn last row is left out."""
    if not file.is_file():
        return []
    rows = []
    with file.open(newline="") as stream:
        for row in csv.reader(stream):
            if len(row) == 3 and row[0].isdigit():
                rows.append((int(row[0]), float(row[1]), float(row[2])))
    return rows


class ProgressLine(Callback):
    """One line on standard error with the step, the time left and a smoothed loss."""

    def __init__(self, title: str) -> None:
        self.report = progress_line(title)
        self._mean = math.nan

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: object,
        *_: object,
    ) -> None:
        """Show the step and a smoothed loss."""
        if not trainer.is_global_zero:
            return
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)  # type: ignore[arg-type]
        self._mean = loss if math.isnan(self._mean) else 0.95 * self._mean + 0.05 * loss
        self.report(trainer.global_step, trainer.max_steps, f"loss {self._mean:.4f}")
