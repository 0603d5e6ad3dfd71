"""What ends a run from outside its own code: memory, loader processes, other training processes.

Each becomes one sentence that says what to do, and an exit code.
"""

import dataclasses
import json
import re
import shutil
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_data.batch import PointBatch
from pc_data.errors import (
    DataError,
    DivergedError,
    MachineError,
    ResourceError,
    exit_code,
    one_line,
)

from pc_train.hardware import HardwareConfig
from pc_train.interruption import Interruption
from pc_train.notices import notice
from pc_train.runs import write_json

_CONTINUES = "the same command continues"
_WORKER = re.compile(r"worker \(pid(?:\(s\))? [^)]*\) (?:is (killed by signal: [\w ]+)|exited)")
_SHARED_MEMORY = re.compile(r"</torch_|shared memory|\(shm\)")
_FILES = re.compile(r"ancdata|Too many open files")
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|[Cc]annot allocate memory|can't allocate memory")
_PEER = re.compile(
    r"by peer|Broken pipe|Connection (?:closed|refused)|[Tt]imed out|NCCL|gloo|store", re.IGNORECASE
)
_ERRORS: Mapping[int, type[Exception]] = {
    2: ValueError,
    3: DataError,
    4: MachineError,
    5: DivergedError,
    6: ResourceError,
}


class Faults(Callback):
    """Runs training, and turns what breaks it into a sentence.

    Processes that train together leave a note in the run's folder when they fail, so that those
    whose connection breaks end with the same words and the same code.

    Args:
        out: The run's folder.
        hardware: For the advice.
        interruption: Knows whether the run was asked to end: its loader processes may have been
            told as well.
    """

    def __init__(self, out: Path, hardware: HardwareConfig, interruption: Interruption) -> None:
        self.out, self.hardware, self.interruption = out, hardware, interruption
        self._step, self._names, self._num_points = 0, (), 0

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ANN401
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Remember what the step is made of, but not the batch itself."""
        self._step = trainer.global_step + 1
        self._names, self._num_points = getattr(batch, "names", ()), count_points(batch)

    def run(self, train: Callable[[], object], trainer: Trainer) -> None:
        """Train.

        Raises:
            ResourceError: If memory runs out, or a loader process or another training process dies.
            SystemExit: If that came of a signal that ends the run.
        """
        self._note(trainer.global_rank).unlink(missing_ok=True)
        try:
            train()
            return
        except Exception as error:
            fault = self._explain(error, trainer)
            if trainer.world_size > 1:
                with suppress(OSError):
                    write_json(self._note(trainer.global_rank), _describe(fault or error))
            if fault is None:
                raise
            fault.add_note("".join(traceback.format_exception(error)))
        # Here the error is gone, and with it the tensors that its frames held.
        raise fault

    def _explain(self, error: Exception, trainer: Trainer) -> BaseException | None:
        if isinstance(error, ValueError):  # of data or settings: its words may be any
            return None
        text = f"{error.__cause__ or ''} {error}"
        if isinstance(error, torch.OutOfMemoryError):
            return ResourceError(self._out_of_gpu(text))
        if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
            return ResourceError(
                f"this machine is out of memory{self._place()}; lower hardware.num_workers (now "
                f"{self.hardware.num_workers}), or close what else takes memory; {_CONTINUES}"
            )
        if found := _WORKER.search(text):
            how = f" ({found[1]})" if found[1] else ""
            return self._stopped() or ResourceError(self._worker_died(f"died{how}"))
        if _FILES.search(text):
            return ResourceError(
                "the loader processes have too many files open; raise the limit (ulimit -n), or "
                f"lower hardware.num_workers (now {self.hardware.num_workers}); {_CONTINUES}"
            )
        if _SHARED_MEMORY.search(text):
            return ResourceError(self._worker_died("failed"))
        if trainer.world_size > 1 and isinstance(error, RuntimeError) and _PEER.search(text):
            return self._stopped() or self._lost(trainer)
        return None

    def _place(self) -> str:
        if not self._names:
            return ""
        names = ", ".join(self._names[:4]) + (", ..." if len(self._names) > 4 else "")
        return (
            f" at step {self._step:,}, on {len(self._names)} scans of {self._num_points:,} points "
            f"in all ({names})"
        )

    def _out_of_gpu(self, text: str) -> str:
        asked = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
        more = f", where {asked[1]} more were asked for" if asked else ""
        return (
            f"the GPU is out of memory{self._place()}{more}; share the batch over more of them "
            f"(hardware.devices), and {_CONTINUES}; or start anew with a lower batch_size, fewer "
            "points a scan (max_points, a larger voxel_size), or hardware.precision 16-mixed"
        )

    def _worker_died(self, how: str) -> str:
        return (
            f"a loader process {how}: it ran out of memory, or of /dev/shm ({shared_memory()}); "
            f"lower hardware.num_workers (now {self.hardware.num_workers}; 0 loads without such "
            f"processes and without /dev/shm), or give the container more (--shm-size); "
            f"{_CONTINUES}"
        )

    def _stopped(self) -> SystemExit | None:
        number = self.interruption.number
        if not number:
            return None
        notice(f"interrupted in mid-step; {_CONTINUES} from the last checkpoint")
        return SystemExit(128 + number)

    def _lost(self, trainer: Trainer) -> Exception:
        """What another process says that it died of."""
        for rank in range(trainer.world_size):
            with suppress(OSError, ValueError, KeyError):
                said = json.loads(self._note(rank).read_text(encoding="utf-8"))
                kind = _ERRORS.get(said["code"], RuntimeError)
                return kind(f"process {rank} of this run ended: {said['text']}")
        return ResourceError(
            "another process of this run ended without a word, as one does that is killed, for "
            f"memory for example; see its output; {_CONTINUES}"
        )

    def _note(self, rank: int) -> Path:
        return self.out / f".failed-{rank}.json"


def count_points(batch: Any) -> int:  # noqa: ANN401 - what an app's samples are
    """Points of a batch: of the clouds that it is, or that it holds."""
    if isinstance(batch, PointBatch):
        return len(batch.xyz)
    if not dataclasses.is_dataclass(batch) or isinstance(batch, type):
        return 0
    return sum(count_points(getattr(batch, field.name)) for field in dataclasses.fields(batch))


def shared_memory() -> str:
    """Size of /dev/shm and what is free of it, in words."""
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError:
        return "there is none"
    return f"{usage.total / 2**20:,.0f} MB, {usage.free / 2**20:,.0f} MB free"


def _describe(error: BaseException) -> dict[str, object]:
    return {"code": exit_code(error), "text": one_line(error)}
