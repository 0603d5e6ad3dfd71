"""Checkpoints that survive: whole or absent, verified before use, read without executing code."""

import hashlib
import io
import pickle
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_geometry.atomic import atomic_file

from pc_train.notices import notice

_NAME = re.compile(r"step-(\d+)\.([0-9a-f]{16})\.ckpt")
_KEPT = 2


class AtomicCheckpointIO(CheckpointIO):
    """Writes `FOLDER/step-N.ckpt` as `step-N.<sha256>.ckpt`, and `last.ckpt` pointing at it.

    The file takes its name only when it is whole and on disk, and the one before it stays, so
    neither a kill nor a full disk costs a good checkpoint. The name carries the digest, so damage
    is found without a second file that could get out of step.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401, ARG002 - Lightning's signature
    ) -> None:
        """Write one checkpoint, then remove those older than the one before it."""
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        target = path.with_suffix(f".{hashlib.sha256(content).hexdigest()[:16]}.ckpt")
        with atomic_file(target) as file:
            file.write(content)
        _point(path.parent / "last.ckpt", target.name)
        for old in _list(path.parent)[_KEPT:]:
            self.remove_checkpoint(old)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,  # noqa: ANN401
        weights_only: bool | None = None,  # noqa: ARG002 - always true here
    ) -> dict[str, Any]:
        """Read tensors and plain values only; a pickle that would run code is refused."""
        return read_checkpoint(Path(path), map_location=map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint if it is there."""
        with suppress(FileNotFoundError):
            Path(path).unlink()


class SaveSteps(Callback):
    """Saves every so many steps and at the end of the run."""

    def __init__(self, folder: Path, *, every: int) -> None:
        self.folder = folder
        self.every = every

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Save if it is time."""
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps:
            save_step(trainer, self.folder)


def save_step(trainer: Trainer, folder: Path) -> None:
    """Save a run as it is after its last step.

    Raises:
        ValueError: If a weight is not finite: such a checkpoint would cost the good ones.
    """
    module = trainer.lightning_module
    bad = [name for name, weight in module.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise ValueError(
            f"{len(bad)} weights are not finite at step {trainer.global_step}, the first is "
            f"{bad[0]}; lower lr, or train in 32-bit precision; the checkpoints before it are good"
        )
    trainer.save_checkpoint(folder / f"step-{trainer.global_step:08d}.ckpt")


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint whose content matches its digest; None if there is none.

    Says so if it is not the newest of all.

    Raises:
        ValueError: If there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for path in _list(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        step, expected = _NAME.fullmatch(path.name).groups()  # type: ignore[union-attr]
        if expected == digest[:16]:
            if damaged:
                notice(f"{', '.join(damaged)} is damaged; resuming from step {int(step):,}")
            return path
        damaged.append(str(path))
    if damaged:
        raise ValueError(
            f"all checkpoints are damaged ({', '.join(damaged)}); bring one of them back, or "
            f"remove {folder} to begin again from step 0"
        )
    return None


def read_checkpoint(path: Path, *, map_location: Any = "cpu") -> dict[str, Any]:  # noqa: ANN401
    """Read a checkpoint without executing anything in it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; pass a checkpoint")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is damaged or holds code ({reason}); use an older checkpoint"
        ) from error


def _list(folder: Path) -> list[Path]:
    """Checkpoints of a folder, newest first."""
    found = [path for path in folder.glob("step-*.ckpt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (path.name, path.stat().st_mtime_ns), reverse=True)


def _point(link: Path, target: str) -> None:
    """Let a symbolic link name another file, with no moment in which it is missing."""
    with tempfile.TemporaryDirectory(dir=link.parent, prefix=".last.") as folder:
        fresh = Path(folder) / "link"
        fresh.symlink_to(target)
        fresh.replace(link)
