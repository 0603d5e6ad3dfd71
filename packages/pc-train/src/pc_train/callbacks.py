"""What watches a run: seeds per step, a line of progress, the curve."""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from jaxtyping import Float64
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_data.errors import one_line
from pc_data.progress import progress_line

from pc_train.notices import notice
from pc_train.runs import write_text
from pc_train.tables import read_table, table_cell, table_line

_LOG_EVERY = 10  # steps between rows of the logger, and between looks at what a method watches
_CURVE = ("step", "loss", "lr")
_MUCH_WAITING = 0.1


def is_watched(step: int) -> bool:
    """Whether a step, from 1, is one at which watched values are looked at."""
    return step == 1 or step % _LOG_EVERY == 0


def read_watched(outputs: Any, step: int) -> dict[str, float]:  # noqa: ANN401
    """Fetch what a method watches besides its loss, at the first and every tenth step.

    All values come in one copy from the device, which a look at the loss has already waited for.

    Args:
        outputs: Of the training step: the loss, or a dict in which `watch` holds scalars by name.
        step: The step's number, from 1.

    Returns:
        Values by name, in the method's order; nothing at the steps between.

    Raises:
        ValueError: If one is no scalar, or has the name of a column that every run has.
    """
    watch = outputs.get("watch", {}) if isinstance(outputs, dict) else {}
    if not watch or not is_watched(step):
        return {}
    for name, value in watch.items():
        if name in _CURVE:
            raise ValueError(
                f"a watched value must not be called {', '.join(_CURVE)}, got {name!r}; rename it"
            )
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise ValueError(
                f"a watched value must be one number, but {name!r} has shape "
                f"{tuple(value.shape)}; reduce it, e.g. to its mean"
            )
    device = next((v.device for v in watch.values() if isinstance(v, torch.Tensor)), None)
    numbers = [
        torch.as_tensor(v, device=device).detach().float().reshape(1) for v in watch.values()
    ]
    return dict(zip(watch, torch.cat(numbers).tolist(), strict=True))


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
        torch.manual_seed(step_seed(self.seed, trainer.global_step, trainer.global_rank))


def step_seed(seed: int, num_done: int, rank: int) -> int:
    """Seed of torch's generators in the step after `num_done` others."""
    # A hash, because torch's generator on the CPU takes the lowest 32 bits only.
    return int(np.random.SeedSequence([seed, num_done, rank]).generate_state(1)[0])


class LossCurve(Callback):
    """Writes step, loss, learning rate and what the method watches to a CSV file and to the logger.

    The loss is in every row; watched values are in the first and every tenth, their other cells
    are empty. The first row fixes the columns. A resumed run drops the rows that it will write
    again, and keeps the columns that it finds. Rows that the disk does not take are kept and tried
    again every tenth step; training goes on.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stream: TextIO | None = None
        self._names: tuple[str, ...] = ()
        self._unwritten: list[tuple[int, str]] = []

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Append one row."""
        if not trainer.is_global_zero:
            return
        step = trainer.global_step
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        watched = read_watched(outputs, step)
        if trainer.logger is not None and step % _LOG_EVERY == 0:
            trainer.logger.log_metrics({"loss": float(loss), "lr": rate, **watched}, step=step)
        if self._stream is None and not self._unwritten:
            names = outputs.get("watch", ()) if isinstance(outputs, dict) else ()
            self._find_names(names)
        cells = (table_cell(watched.get(name, math.nan)) for name in self._names)
        line = table_line([f"{step:d}", repr(float(loss)), repr(rate), *cells])
        self._unwritten.append((step, line))
        if len(self._unwritten) == 1 or step % _LOG_EVERY == 0:
            self._write()

    def _write(self) -> None:
        """Append what is not written; what the disk does not take stays for the next time."""
        try:
            if self._stream is None:
                self._stream = self._begin(self._unwritten[0][0])
            self._stream.write("".join(line for _, line in self._unwritten))
            self._stream.flush()
            self._unwritten.clear()
        except OSError as error:
            if len(self._unwritten) == 1:
                notice(f"{self.file.name} lacks rows for now ({one_line(error)})")
            self._close()

    def _find_names(self, names: Iterable[str]) -> None:
        """Name the columns besides the curve's: those that the file has, then those of the run."""
        watched = [name for name in read_columns(self.file) if name not in _CURVE]
        self._names = (*watched, *(name for name in names if name not in watched))

    def _begin(self, first_step: int) -> TextIO:
        """Open the file at its end, after what lies before the first step to come."""
        old = read_columns(self.file)
        text = table_line([*_CURVE, *self._names])
        for row, step in enumerate(old.get("step", ())):
            if step < first_step:
                cells = (table_cell(old[n][row]) if n in old else "" for n in self._names)
                curve = (repr(float(old[n][row])) for n in ("loss", "lr"))
                text += table_line([f"{step:.0f}", *curve, *cells])
        write_text(self.file, text)
        return self.file.open("a", encoding="utf-8", newline="")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Close the file."""
        if self._unwritten:
            self._write()
        self._close()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError):  # what is in its buffer is kept besides
                stream.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the file also when the run is stopped."""
        del exception
        self.teardown(trainer, pl_module, "fit")


def read_curve(file: Path) -> list[tuple[int, float, float]]:
    """Read (step, loss, lr) rows; an absent file has none, what a kill tore is left out."""
    columns = read_columns(file)
    rows = zip(*(columns[name].tolist() for name in _CURVE), strict=True) if columns else ()
    return [(int(step), loss, rate) for step, loss, rate in rows]


def read_columns(file: Path) -> dict[str, Float64[np.ndarray, " n"]]:
    """Read all columns of a curve by name: `step`, `loss`, `lr` and what the method watched.

    Values that were not looked at are NaN. An absent file has no columns, what a kill tore is
    left out.
    """
    columns = read_table(file)
    return columns if tuple(columns)[: len(_CURVE)] == _CURVE else {}


class ProgressLine(Callback):
    """One line on standard error: step, time left, smoothed loss, the first watched value.

    Args:
        title: Of the line.
        waiting: Tells the share of its time that the run waits for data; shown if it is large.
    """

    def __init__(self, title: str, *, waiting: Callable[[], float] = lambda: 0.0) -> None:
        self.report, self.waiting = progress_line(title), waiting
        self._mean = math.nan
        self._watched = ""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Show the step, a smoothed loss and the newest look at the first watched value."""
        if not trainer.is_global_zero:
            return
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)
        self._mean = loss if math.isnan(self._mean) else 0.95 * self._mean + 0.05 * loss
        for name, value in list(read_watched(outputs, trainer.global_step).items())[:1]:
            self._watched = f", {name} {value:.3g}"
        waiting = self.waiting()
        waits = f", {waiting:.0%} waiting for data" if waiting > _MUCH_WAITING else ""
        note = f"loss {self._mean:.4f}{self._watched}{waits}"
        self.report(trainer.global_step, trainer.max_steps, note)
