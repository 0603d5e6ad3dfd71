"""A page that shows a run while it goes on."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from pc_train.callbacks import read_columns, read_curve
from pc_train.reports.figures import plot_curves, plot_watched
from pc_train.reports.page import Report
from pc_train.runs import CONFIG
from pc_train.tables import PACE_TABLE, PROBE_TABLE, read_table

LIVE_PAGE = "progress.html"
_SHARE = 0.01  # of the run's time that drawing may take
_FIRST = 20.0  # seconds from the first step to the first page
_RELOAD = 30  # seconds after which a browser looks again


class LivePage(Callback):
    """Keeps `progress.html` in the run folder up to date: the loss, and what is watched.

    It is drawn after the first twenty seconds, and again when a hundred times the seconds that the
    last drawing took have passed, so that it costs a run at most 1%. A browser reloads it by
    itself. The report takes its place at the end. A page that cannot be written is left out.

    Args:
        out: Run folder.
        title: Of the page.
        clock: Seconds that only grow.
    """

    def __init__(
        self, out: Path, title: str, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.out, self.title, self.clock = out, title, clock
        self._next = float("inf")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Wait for something to show."""
        self._next = self.clock() + _FIRST

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Draw, if it is time."""
        begun = self.clock()
        if not trainer.is_global_zero or begun < self._next:
            return
        with suppress(OSError):  # a full disk stops no run here; saving will tell
            draw_progress(self.out, title=self.title, num_steps=trainer.max_steps)
        ended = self.clock()
        self._next = ended + (ended - begun) / _SHARE

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Make room for the report."""
        if trainer.is_global_zero:
            (self.out / LIVE_PAGE).unlink(missing_ok=True)


def add_curves(page: Report, out: Path, *, loss: str) -> None:
    """Add what a run has measured so far: its loss, what is watched, the linear probe.

    Args:
        page: Gets a section of each that there is.
        out: Run folder with `metrics.csv`.
        loss: What the loss measures, for the caption.
    """
    curve, columns = read_curve(out / "metrics.csv"), read_columns(out / "metrics.csv")
    if curve:
        page.heading("Loss")
        page.figure(plot_curves({"loss": curve}), loss)
    if any(name not in ("step", "loss", "lr") for name in columns):
        page.heading("Watched")
        page.figure(plot_watched(columns), "What is watched besides the loss.")
    probe = read_table(out / PROBE_TABLE)
    if len(probe.get("step", ())):
        page.heading("Linear probe while it learned")
        page.figure(plot_watched(probe), "On scans that the classifier was not fitted to.")


def draw_progress(out: Path, *, title: str, num_steps: int) -> None:
    """Write `progress.html` of a run as its files are now.

    Args:
        out: Run folder with `metrics.csv`.
        title: Of the page.
        num_steps: Length of the run.
    """
    curve = read_curve(out / "metrics.csv")
    done = curve[-1][0] if curve else 0
    page = Report(title, f"{out.name}: step {done:,} of {num_steps:,}", reload_s=_RELOAD)
    add_curves(page, out, loss="Loss at each step, and smoothed.")
    pace = read_table(out / PACE_TABLE)
    if len(pace.get("step", ())):
        page.heading("Pace")
        page.paragraph(
            f"{pace['seconds'][-1]:.3g} s a step, {pace['waiting'][-1]:.0%} of it waiting for data."
        )
    config = out / CONFIG
    if config.is_file():
        page.heading("Configuration")
        page.text(config.read_text(encoding="utf-8"))
    page.write(out / LIVE_PAGE)
