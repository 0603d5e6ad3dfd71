"""One training run: Lightning's loop with resumable data, atomic checkpoints and a curve."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from pc_data.loading import Samples, StepLoader
from torch import nn

from pc_train.callbacks import FiniteLoss, LossCurve, ProgressLine, StepSeed
from pc_train.checkpoints import AtomicCheckpointIO, SaveSteps, newest_checkpoint
from pc_train.collapse import CollapseAlarm
from pc_train.hardware import HardwareConfig
from pc_train.interruption import Interruption, exit_codes
from pc_train.runs import lock_run


def fit(
    method: LightningModule,
    samples: Samples,
    *,
    batch_size: int,
    out: Path,
    num_steps: int,
    seed: int,
    title: str,
    hardware: HardwareConfig,
    save_every: int = 500,
) -> Trainer:
    """Train until `num_steps`, from the newest checkpoint under `out` if there is one.

    A run that was killed and is started again ends with the weights of one that was not: data,
    random numbers, optimiser and schedule continue where it was. SIGINT and SIGTERM save a step.

    Args:
        method: Its `training_step` takes a batch and returns the loss, or a dict of `loss` and
            `watch`: scalars by name, without gradient, for the curve and for the alarm that
            features collapse. Its attribute `collapse_limits`, if it has one, is the alarm's.
        samples: What to train on.
        batch_size: Scans per step, over all processes.
        out: Run folder; gets `checkpoints/`, `metrics.csv` and TensorBoard events.
        num_steps: Length of the run.
        seed: Of the random numbers drawn on the device.
        title: For the progress line.
        hardware: Devices and precision.
        save_every: Steps between checkpoints.

    Raises:
        ValueError: If the loss is not finite (names the scans), the processes cannot share the
            batch evenly, all checkpoints are damaged, or another process trains in `out`.
        SystemExit: With 130 after SIGINT, with 143 after SIGTERM.
    """
    folder = out / "checkpoints"
    trainer = make_trainer(
        hardware,
        max_steps=num_steps,
        max_epochs=1,
        default_root_dir=out,
        logger=TensorBoardLogger(out, name=None, version="tensorboard"),
        checkpoint_io=AtomicCheckpointIO(),
        callbacks=[
            StepSeed(seed),
            FiniteLoss(),
            LossCurve(out / "metrics.csv"),
            CollapseAlarm(getattr(method, "collapse_limits", {})),
            SaveSteps(folder, every=save_every),
            ProgressLine(title),
            Interruption(folder),
        ],
    )
    batches = _Batches(
        samples, batch_size=batch_size, num_steps=num_steps, num_workers=hardware.num_workers
    )
    with lock_run(out), exit_codes(), limited_threads(hardware), warnings.catch_warnings():
        resume = newest_checkpoint(folder)
        # Lightning's advice on workers and resuming does not apply: the loader is resumable.
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(method, datamodule=batches, ckpt_path=resume, weights_only=True)
    return trainer


@contextmanager
def limited_threads(hardware: HardwareConfig) -> Iterator[None]:
    """Let this process compute with as many threads as the settings say while the block lasts."""
    before = torch.get_num_threads()
    torch.set_num_threads(hardware.num_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def takes_gpu(accelerator: str) -> bool:
    """Whether that accelerator means a GPU on this machine."""
    return accelerator != "cpu" and torch.cuda.is_available()


def make_trainer(
    hardware: HardwareConfig, *, checkpoint_io: CheckpointIO, **options: object
) -> Trainer:
    """Build a Lightning trainer that is silent and leaves sampling to our loaders.

    Raises:
        ValueError: If a GPU is asked for where there is none.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    gpu = takes_gpu(hardware.accelerator)
    if hardware.accelerator == "gpu" and not gpu:
        raise ValueError("accelerator is gpu, but torch finds none here; pass auto or cpu")
    precision = hardware.precision
    if precision == "auto":
        precision = "16-mixed" if gpu else "32-true"
    num_devices = hardware.devices or (torch.cuda.device_count() if gpu else 1)
    many = num_devices * hardware.num_nodes > 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        return Trainer(
            accelerator=hardware.accelerator,
            devices=num_devices,
            num_nodes=hardware.num_nodes,
            precision=precision,
            strategy="ddp" if many else "auto",
            plugins=[checkpoint_io, *([SyncLearning()] if many and gpu else [])],
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            **options,  # type: ignore[arg-type]
        )


class SyncLearning(TorchSyncBatchNorm):
    """Synchronises the batch norms of what learns.

    A frozen teacher keeps its own: its statistics are fixed, and torch's conversion would drop
    the activation that timm's norms contain.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert the children that have a weight to learn."""
        for name, child in model.named_children():
            if any(weight.requires_grad for weight in child.parameters()):
                setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        return model


class _Batches(LightningDataModule):
    """Builds the loader once the process knows its rank."""

    def __init__(
        self, samples: Samples, *, batch_size: int, num_steps: int, num_workers: int
    ) -> None:
        super().__init__()
        self.samples, self.batch_size = samples, batch_size
        self.num_steps, self.num_workers = num_steps, num_workers

    def train_dataloader(self) -> StepLoader:
        """Lightning asks when the processes have found each other."""
        trainer: Any = self.trainer
        share, rest = divmod(self.batch_size, trainer.world_size)
        if rest:
            raise ValueError(
                f"batch_size must be a multiple of the {trainer.world_size} processes that share "
                f"it, got {self.batch_size}"
            )
        return StepLoader(
            self.samples,
            batch_size=share,
            num_steps=self.num_steps,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            num_workers=self.num_workers,
        )
