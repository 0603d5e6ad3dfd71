"""One training run: Lightning's loop with resumable data, atomic checkpoints and a curve."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from pc_data.loading import StepLoader

from pc_train.callbacks import FiniteLoss, LossCurve, ProgressLine, StepSeed
from pc_train.checkpoints import AtomicCheckpointIO, SaveSteps, newest_checkpoint
from pc_train.hardware import HardwareConfig

# (rank, number of processes) -> that process's batches
MakeLoader = Callable[[int, int], StepLoader]


def fit(
    method: LightningModule,
    make_loader: MakeLoader,
    *,
    out: Path,
    num_steps: int,
    seed: int,
    title: str,
    hardware: HardwareConfig,
    save_every: int = 500,
) -> Trainer:
    """Train until `num_steps`, from the newest checkpoint under `out` if there is one.

    A run that was killed and is started again ends with the weights of one that was not: data,
    random numbers, optimiser and schedule continue where the checkpoint left them.

    Args:
        method: Its `training_step` takes a batch and returns the loss.
        make_loader: Builds the batches of one process.
        out: Run folder; gets `checkpoints/`, `metrics.csv` and TensorBoard events.
        num_steps: Length of the run.
        seed: Of the random numbers drawn on the device.
        title: For the progress line.
        hardware: Devices and precision.
        save_every: Steps between checkpoints.

    Raises:
        ValueError: If the loss is not finite; names the scans.
    """
    folder = out / "checkpoints"
    trainer = make_trainer(
        hardware,
        max_steps=num_steps,
        max_epochs=1,
        default_root_dir=out,
        logger=TensorBoardLogger(out, name=None, version="tensorboard"),
        plugins=[AtomicCheckpointIO()],
        callbacks=[
            StepSeed(seed),
            FiniteLoss(),
            LossCurve(out / "metrics.csv"),
            SaveSteps(folder, every=save_every),
            ProgressLine(title),
        ],
    )
    resume = newest_checkpoint(folder)
    with warnings.catch_warnings():
        # Lightning's advice on workers and resuming does not apply: the loader is resumable.
        warnings.filterwarnings("ignore", module="lightning")
        trainer.fit(
            method, datamodule=_Batches(make_loader), ckpt_path=resume, weights_only=True
        )
    return trainer


def make_trainer(hardware: HardwareConfig, **options: object) -> Trainer:
    """Build a Lightning trainer that is silent and leaves sampling to our loaders."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    gpu = hardware.accelerator != "cpu" and torch.cuda.is_available()
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
            sync_batchnorm=many and gpu,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            **options,  # type: ignore[arg-type]
        )


class _Batches(LightningDataModule):
    """Builds the loader once the process knows its rank."""

    def __init__(self, make_loader: MakeLoader) -> None:
        super().__init__()
        self.make_loader = make_loader

    def train_dataloader(self) -> StepLoader:
        assert self.trainer is not None  # noqa: S101 - Lightning sets it before it asks
        return self.make_loader(self.trainer.global_rank, self.trainer.world_size)
