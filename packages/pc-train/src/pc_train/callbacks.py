"""What watches a run: seeds per step, a line of progress, the curve, a guard against NaN."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from jaxtyping import Float64
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_data.progress import progress_line

from pc_train.runs import write_text

_LOG_EVERY = 10  # steps between rows of the logger, and between looks at what a method watches
_CURVE = ("step", "loss", "lr")


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
    if not watch or (step != 1 and step % _LOG_EVERY):
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
    """Writes step, loss, learning rate and what the method watches to a CSV file and to the logger.

    The loss is in every row; watched values are in the first and every tenth, their other cells
    are empty. The first row fixes the columns. A resumed run drops the rows that it will write
    again, and keeps the columns that it finds.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stream: TextIO | None = None
        self._names: tuple[str, ...] = ()

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
        if self._stream is None:
            names = outputs.get("watch", ()) if isinstance(outputs, dict) else ()
            self._stream = self._begin(step, names)
        cells = (_cell(watched.get(name, math.nan)) for name in self._names)
        self._stream.write(_line([f"{step:d}", repr(float(loss)), repr(rate), *cells]))
        self._stream.flush()

    def _begin(self, first_step: int, names: Iterable[str]) -> TextIO:
        """Open the file at its end, after what lies before the first step to come."""
        old = read_columns(self.file)
        watched = [name for name in old if name not in _CURVE]
        self._names = (*watched, *(name for name in names if name not in watched))
        text = _line([*_CURVE, *self._names])
        for row, step in enumerate(old.get("step", ())):
            if step < first_step:
                cells = (
                    _cell(old[n][row]) if n in old else "" for n in ("loss", "lr", *self._names)
                )
                text += _line([f"{step:.0f}", *cells])
        write_text(self.file, text)
        return self.file.open("a", encoding="utf-8", newline="")

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
    columns = read_columns(file)
    rows = zip(*(columns[name].tolist() for name in _CURVE), strict=True) if columns else ()
    return [(int(step), loss, rate) for step, loss, rate in rows]


def read_columns(file: Path) -> dict[str, Float64[np.ndarray, " n"]]:
    """Read all columns of a curve by name: `step`, `loss`, `lr` and what the method watched.

    Values that were not looked at are NaN. An absent file has no columns, what a kill tore is
    left out.
    """
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    header, *rows = csv.reader(io.StringIO(whole)) if whole else [[]]
    if tuple(header[: len(_CURVE)]) != _CURVE:
        return {}
    kept = [row for row in rows if len(row) == len(header) and row[0].isdigit()]
    values = np.array([[float(cell or "nan") for cell in row] for row in kept])
    return dict(zip(header, values.reshape(-1, len(header)).T.copy(), strict=True))


def _cell(value: float) -> str:
    """A number that reads back as the same number; nothing for NaN."""
    return "" if math.isnan(value) else repr(float(value))


def _line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


class ProgressLine(Callback):
    """One line on standard error: step, time left, smoothed loss, the first watched value."""

    def __init__(self, title: str) -> None:
        self.report = progress_line(title)
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
        note = f"loss {self._mean:.4f}{self._watched}"
        self.report(trainer.global_step, trainer.max_steps, note)
