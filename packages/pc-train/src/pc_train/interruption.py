"""A run that is asked to end: it finishes its step, saves, says so and leaves."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from pc_train.checkpoints import save_step
from pc_train.notices import notice

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interruption(Callback):
    """On SIGINT, SIGTERM and SIGUSR1 saves the step being made and exits with 130, 143 or 138.

    It takes the place of Lightning's own handlers: the first two save nothing and exit with 1 and
    0; that of SIGUSR1, which Slurm sends some time before a job's end, saves in mid-step. A second
    signal ends the process at once.

    Args:
        folder: For the checkpoint.

    Attributes:
        number: Of the signal that came; 0 for none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Listen, in place of Lightning, which has just begun to; it restores what was before."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._note)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Save and leave if one of the processes was asked to.

        Raises:
            SystemExit: With 128 and the number of the signal.
        """
        number = self.number
        if trainer.world_size > 1:  # all leave after the same step
            mine = torch.tensor(number, device=trainer.strategy.root_device)
            number = int(trainer.strategy.reduce(mine, reduce_op="max"))
        if number:
            _leave(trainer, number, save_step(trainer, self.folder))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Leave if the signal came when no step was left."""
        if self.number:
            _leave(trainer, self.number, "")

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.number:
            raise SystemExit(128 + number)
        self.number = number


@contextmanager
def exit_codes() -> Iterator[None]:
    """Correct what Lightning makes of a signal that came before `Interruption` listened.

    Raises:
        KeyboardInterrupt: For SIGINT, of which Lightning makes exit code 1.
        SystemExit: With 143 for SIGTERM, of which it makes 0.
    """
    try:
        yield
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def _leave(trainer: Trainer, number: int, failure: str) -> None:
    from_where = f" from the last checkpoint, for this step was not saved ({failure})"
    notice(
        f"interrupted at step {trainer.global_step:,} of {trainer.max_steps:,}; the same command "
        f"continues{from_where if failure else ''}"
    )
    # A helper process that fails makes the one that the user started die of it.
    raise SystemExit(0 if trainer.local_rank else 128 + number)
