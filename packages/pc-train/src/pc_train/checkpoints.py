"""Checkpoints that survive: whole or absent, verified before use, read without executing code."""

import hashlib
import io
import re
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_backbones.published_files import UNREADABLE, load_plain, reason_of
from pc_data.errors import DivergedError, ResourceError, one_line
from pc_geometry.atomic import atomic_file
from torch import nn

from pc_train.notices import notice

MOST_FAILED = 3
"""Saves in a row that may fail before a run ends."""

_NAME = re.compile(r"step-(\d+)\.([0-9a-f]{16})\.ckpt")
_KEPT = 2


class AtomicCheckpointIO(CheckpointIO):
    """Writes `FOLDER/step-N.ckpt` as `step-N.<sha256>.ckpt`, and `last.ckpt` pointing at it.

    The file takes its name only when it is whole and on disk, and the one before it stays, so
    neither a kill nor a full disk costs a good checkpoint. The name carries the digest, so damage
    is found without a second file that could get out of step.

    Attributes:
        failure: Why the disk did not take the last one; empty if it did. Only one process writes,
            so raising would leave the others waiting for it: `save_step` tells all of them.
    """

    failure = ""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,  # noqa: ANN401, ARG002 - Lightning's signature
    ) -> None:
        """Write one checkpoint, then remove those older than the one before it."""
        self.failure = ""
        try:
            write_checkpoint(checkpoint, Path(path))
            for old in _list(Path(path).parent)[_KEPT:]:
                self.remove_checkpoint(old)
        except OSError as error:
            self.failure = one_line(error)

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


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write one checkpoint, its digest in its name, and let `last.ckpt` name it.

    Raises:
        OSError: If the disk does not take it; what was there before stays.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getbuffer()
    target = path.with_suffix(f".{hashlib.sha256(content).hexdigest()[:16]}.ckpt")
    with atomic_file(target) as file:
        file.write(content)
    _point(path.parent / "last.ckpt", target.name)


class SaveSteps(Callback):
    """Saves every so many steps and at the end of the run.

    If the disk does not take a checkpoint, the run says so and goes on, with the ones before it in
    place; it ends at the third such failure in a row.
    """

    def __init__(self, folder: Path, *, every: int) -> None:
        self.folder = folder
        self.every = every
        self._num_failed = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Save if it is time.

        Raises:
            ResourceError: If the disk takes none for too long.
        """
        step = trainer.global_step
        if step % self.every and step != trainer.max_steps:
            return
        failure = save_step(trainer, self.folder)
        self._num_failed = self._num_failed + 1 if failure else 0
        if not failure:
            return
        said = f"no checkpoint of step {step:,} ({failure}), {_newest(self.folder)}"
        if self._num_failed >= MOST_FAILED:
            raise ResourceError(
                f"{said}; that was the last of {MOST_FAILED} tries; free space, and the same "
                "command continues"
            )
        notice(f"{said}; training goes on: free space, or it ends at try {MOST_FAILED}")


def save_step(trainer: Trainer, folder: Path) -> str:
    """Save a run as it is after its last step.

    Returns:
        Why the disk did not take it, in all processes; empty if it did.

    Raises:
        DivergedError: If a weight is not finite: such a checkpoint would cost the good ones.
    """
    module = trainer.lightning_module
    bad = [name for name, weight in module.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise DivergedError(
            f"{len(bad)} weights are not finite at step {trainer.global_step}, the first is "
            f"{bad[0]}; lower lr, or train in 32-bit precision; the checkpoints before it are good"
        )
    trainer.save_checkpoint(folder / f"step-{trainer.global_step:08d}.ckpt")
    return trainer.strategy.broadcast(getattr(trainer.strategy.checkpoint_io, "failure", ""))


def newest_checkpoint(folder: Path, method: nn.Module | None = None) -> Path | None:
    """Find the newest checkpoint whose content matches its digest; None if there is none.

    Says so if it is not the newest of all.

    Args:
        folder: Of the checkpoints.
        method: What is trained; a checkpoint without all weights that it learns is not of its run.

    Raises:
        ValueError: If there are checkpoints, and all are damaged or of another run.
    """
    learned = dict(method.named_parameters()) if method is not None else {}
    shapes = {name: value.shape for name, value in learned.items() if value.requires_grad}
    damaged: list[str] = []
    for path in _list(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        step, expected = _NAME.fullmatch(path.name).groups()  # type: ignore[union-attr]
        if expected == digest[:16] and _holds(path, shapes.items()):
            if damaged:
                notice(
                    f"{', '.join(damaged)} is damaged or of another run; resuming from step "
                    f"{int(step):,}"
                )
            return path
        damaged.append(str(path))
    if damaged:
        raise ValueError(
            f"all checkpoints are damaged or of another run ({', '.join(damaged)}); bring one of "
            f"them back, or "
            f"remove {folder} to begin again from step 0"
        )
    return None


def read_checkpoint(
    path: Path,
    *,
    map_location: Any = "cpu",  # noqa: ANN401
    mmap: bool = False,
) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it; with `mmap` tensors as they are used.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; pass a checkpoint")
    try:
        return load_plain(path, map_location=map_location, mmap=mmap)
    except UNREADABLE as error:
        raise ValueError(
            f"{path} is damaged or holds code ({reason_of(error)}); use an older checkpoint"
        ) from error


def _holds(path: Path, shapes: Iterable[tuple[str, torch.Size]]) -> bool:
    """Whether a checkpoint has weights of these names and shapes; reads no weight."""
    shapes = list(shapes)
    if not shapes:
        return True
    with suppress(ValueError):
        content = read_checkpoint(path, mmap=True)
        weights = content.get("state_dict", {}) if isinstance(content, dict) else {}
        return all(name in weights and weights[name].shape == shape for name, shape in shapes)
    return False


def _newest(folder: Path) -> str:
    """Which checkpoint a run would continue from, in words; its content is not looked at."""
    steps = [int(_NAME.fullmatch(path.name)[1]) for path in _list(folder)[:1]]  # type: ignore[index]
    return f"the newest is of step {steps[0]:,}" if steps else "and there is none"


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
