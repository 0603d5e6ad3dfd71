"""One training run: Lightning's loop with resumable data, atomic checkpoints and a curve."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from pc_data.errors import MachineError
from pc_data.loading import Samples, StepLoader
from pc_geometry.atomic import remove_unfinished
from torch import nn

from pc_train.callbacks import LossCurve, ProgressLine, StepSeed
from pc_train.checkpoints import AtomicCheckpointIO, SaveSteps, newest_checkpoint
from pc_train.collapse import CollapseAlarm
from pc_train.events import EventFiles
from pc_train.faults import Faults
from pc_train.finite import FiniteSteps
from pc_train.hardware import HardwareConfig, launched_processes
from pc_train.health import Health
from pc_train.interruption import Interruption, exit_codes
from pc_train.notices import is_first_process
from pc_train.pace import Pace
from pc_train.pretrain_config import OnNonfinite
from pc_train.reports.live import LivePage
from pc_train.runs import lock_run
from pc_train.tables import PACE_TABLE


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
    on_nonfinite: OnNonfinite = "raise",
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Train until `num_steps`, from the newest checkpoint under `out` if there is one.

    A run that was killed and is started again ends with the weights of one that was not: data,
    random numbers, optimiser and schedule continue where it was. SIGINT, SIGTERM and SIGUSR1 save
    a step. Damaged scans are listed in `bad_samples.jsonl`, steps that are not finite in
    `nonfinite.jsonl`.

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
        on_nonfinite: What a step whose loss or gradient is not finite does.
        callbacks: Are told of each step before it is saved, so that checkpoints hold their state.

    Raises:
        ValueError: If the processes cannot share the batch evenly, all checkpoints are damaged, or
            another process trains in `out`.
        DataError: If a scan is damaged, or more than may be skipped.
        DivergedError: If a step is not finite (names the scans), or too many in a row.
        ResourceError: If memory or disk runs out, or a loader process or another process dies.
        SystemExit: With 130 after SIGINT, with 143 after SIGTERM, with 138 after SIGUSR1.
    """
    folder = out / "checkpoints"
    interruption = Interruption(folder)
    faults = Faults(out, hardware, interruption)
    finite = FiniteSteps(out / "nonfinite.jsonl", on_nonfinite=on_nonfinite, seed=seed)
    pace = Pace(out / PACE_TABLE)
    trainer = make_trainer(
        hardware,
        max_steps=num_steps,
        max_epochs=1,
        default_root_dir=out,
        logger=EventFiles(out, name=None, version="tensorboard"),
        checkpoint_io=AtomicCheckpointIO(),
        callbacks=[
            faults,
            StepSeed(seed),
            finite,
            Health(lambda: finite.gradient_norm),
            LossCurve(out / "metrics.csv"),
            CollapseAlarm(getattr(method, "collapse_limits", {})),
            *callbacks,
            SaveSteps(folder, every=save_every),
            ProgressLine(title, waiting=lambda: pace.waiting),
            LivePage(out, title),
            pace,  # counts what comes after it as waiting
            interruption,
        ],
    )
    batches = _Batches(
        samples, batch_size=batch_size, num_steps=num_steps, num_workers=hardware.num_workers
    )
    with lock_run(out), exit_codes(), limited_threads(hardware), warnings.catch_warnings():
        samples.bad.keep_in(out / "bad_samples.jsonl")
        if is_first_process():
            remove_unfinished(folder, "step-*.ckpt")
        resume = newest_checkpoint(folder, method)
        # Lightning's advice on workers and resuming does not apply: the loader is resumable.
        warnings.filterwarnings("ignore", module="lightning")
        # A gradient scaler may leave out the first step.
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        faults.run(
            lambda: trainer.fit(method, datamodule=batches, ckpt_path=resume, weights_only=True),
            trainer,
        )
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


def pick_device(accelerator: str) -> torch.device:
    """Where one process computes with that accelerator on this machine.

    Raises:
        MachineError: If a GPU is asked for where there is none.
    """
    has_gpu = torch.cuda.is_available()
    if accelerator == "gpu" and not has_gpu:
        raise MachineError("accelerator is gpu, but torch finds none here; pass auto or cpu")
    return torch.device("cuda" if has_gpu and accelerator != "cpu" else "cpu")


def make_trainer(
    hardware: HardwareConfig, *, checkpoint_io: CheckpointIO, **options: object
) -> Trainer:
    """Build a Lightning trainer that is silent and leaves sampling to our loaders.

    Raises:
        MachineError: If a GPU is asked for where there is none.
        ValueError: If torchrun or Slurm started other numbers of processes than asked for.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    gpu = pick_device(hardware.accelerator).type == "cuda"
    precision = hardware.precision
    if precision == "auto":
        precision = "16-mixed" if gpu else "32-true"
    num_devices, num_nodes = _count_processes(hardware, gpu=gpu)
    many = num_devices * num_nodes > 1
    plugins: list[Any] = [checkpoint_io, *([SyncLearning()] if many and gpu else [])]
    if "SLURM_PROCID" in os.environ and SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # that would save in mid-step
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        return Trainer(
            accelerator=hardware.accelerator,
            devices=num_devices,
            num_nodes=num_nodes,
            precision=precision,
            strategy="ddp" if many else "auto",
            plugins=plugins,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            **options,  # type: ignore[arg-type]
        )


def _count_processes(hardware: HardwareConfig, *, gpu: bool) -> tuple[int, int]:
    """Processes on this machine, and machines."""
    launched = launched_processes()
    if launched is None:
        return hardware.devices or (torch.cuda.device_count() if gpu else 1), hardware.num_nodes
    if hardware.devices not in (0, launched[0]) or hardware.num_nodes not in (1, launched[1]):
        raise ValueError(
            f"torchrun or Slurm started {launched[0]} processes on each of {launched[1]} machines, "
            f"but hardware.devices is {hardware.devices} and hardware.num_nodes is "
            f"{hardware.num_nodes}; leave both out"
        )
    return launched


class SyncLearning(TorchSyncBatchNorm):
    """Synchronises the batch norms of what learns.

    A frozen teacher keeps its own: its statistics are fixed, and torch's conversion would drop
    the activation that timm's norms contain. So does a child named in the method's attribute
    `alike`: one whose input is the same in all processes.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert the children that have a weight to learn and see a share of the batch."""
        alike = getattr(model, "alike", ())
        for name, child in model.named_children():
            if name not in alike and any(weight.requires_grad for weight in child.parameters()):
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
