"""Steps whose loss or gradient is no number: written down, then left out or the end of the run."""

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_data.errors import DivergedError
from torch import Tensor, nn

from pc_train.callbacks import step_seed
from pc_train.notices import notice
from pc_train.pretrain_config import OnNonfinite
from pc_train.runs import write_text

MOST_SKIPPED = 10
"""Steps in a row that may be left out."""

_MOST_OVERFLOWS = 40  # of a scaled gradient in a row; 16 halvings bring a new scaler down to 1


class FiniteSteps(Callback):
    """Looks at each step's loss and gradient norm, in one copy from the device.

    A step that is not finite in one process is a step that is not finite in all. With `skip` it
    changes neither weights nor the optimiser's state; buffers (running statistics, queues,
    prototypes) are put back to what they were before the step, and a momentum encoder has followed
    the unchanged weights once more. A gradient that overflows under gradient scaling while its
    loss is finite is the scaler's: it leaves the step out and lowers its scale.

    Args:
        file: Gets a line of JSON for each such step: its number, loss, gradient norm, scans and
            seeds.
        on_nonfinite: raise ends the run at the first, skip at the tenth in a row.
        seed: Of the run.

    Attributes:
        gradient_norm: Of the last step, over all that learns.
    """

    def __init__(self, file: Path, *, on_nonfinite: OnNonfinite, seed: int) -> None:
        self.file, self.on_nonfinite, self.seed = file, on_nonfinite, seed
        self.gradient_norm = math.nan
        self._num_skipped, self._num_overflows = 0, 0
        self._names: tuple[str, ...] = ()
        self._loss: Tensor | None = None
        self._buffers = _Buffers()

    def state_dict(self) -> dict[str, int]:
        """How many steps in a row were left out: a resumed run counts on."""
        return {"skipped": self._num_skipped, "overflows": self._num_overflows}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Count on."""
        self._num_skipped = state_dict["skipped"]
        self._num_overflows = state_dict["overflows"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Have the buffers kept at the last moment before a step, if it may have to be undone."""
        if self.on_nonfinite == "raise":
            return
        training_step = pl_module.training_step

        @wraps(training_step)
        def keep_then_step(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Lightning's
            self._buffers.keep(pl_module)
            return training_step(*args, **kwargs)

        pl_module.training_step = keep_then_step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Let go of the method."""
        pl_module.__dict__.pop("training_step", None)
        self._buffers = _Buffers()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Drop the lines of steps that will be made again."""
        if trainer.is_global_zero and self.file.is_file():
            rows = [row for row in read_nonfinite(self.file) if row["step"] <= trainer.global_step]
            with suppress(OSError):
                write_text(self.file, "".join(json.dumps(row) + "\n" for row in rows))

    def on_train_batch_start(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        batch: Any,  # noqa: ANN401
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Remember the scans."""
        self._names = tuple(getattr(batch, "names", ()))

    def on_before_backward(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        loss: Tensor,
    ) -> None:
        """Remember the loss, which may be scaled."""
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Look, before the weights change.

        Raises:
            DivergedError: If the step is not finite and the run shall end at such a one, or there
                were too many in a row.
        """
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        loss, loss_is_bad, gradient_is_bad = self._look(trainer, optimizer)
        overflows = gradient_is_bad and not loss_is_bad and scaler is not None
        self._num_overflows = self._num_overflows + 1 if overflows else 0
        is_bad = loss_is_bad or (gradient_is_bad and not overflows)
        if not is_bad and self._num_overflows < _MOST_OVERFLOWS:
            self._num_skipped = 0 if not overflows else self._num_skipped
            return
        loss = loss / scaler.get_scale() if scaler is not None else loss
        said = self._write_down(trainer, loss, loss_is_bad=loss_is_bad)
        if overflows:
            raise DivergedError(
                f"{said}, as for {_MOST_OVERFLOWS} steps in a row whatever its scale; train in "
                "32-bit or bf16-mixed precision"
            )
        if self.on_nonfinite == "raise":
            raise DivergedError(
                f"{said}; lower lr, train in 32-bit precision, or pass --on_nonfinite skip to "
                "leave such steps out; the same command continues from the last checkpoint"
            )
        self._num_skipped += 1
        if self._num_skipped >= MOST_SKIPPED:
            raise DivergedError(
                f"{said}, the last of {self._num_skipped} such steps in a row; lower lr, or train "
                "in 32-bit precision"
            )
        optimizer.zero_grad(set_to_none=True)  # an optimiser passes over what has no gradient
        self._buffers.put_back()
        notice(f"{said}; the step is left out")

    def _look(self, trainer: Trainer, optimizer: torch.optim.Optimizer) -> tuple[float, bool, bool]:
        """The loss of this process, and what is not finite in any."""
        gradients = [
            value.grad
            for group in optimizer.param_groups
            for value in group["params"]
            if value.grad is not None
        ]
        loss = self._loss if self._loss is not None else torch.zeros(())
        norm = nn.utils.get_total_norm(gradients).to(loss.device)
        values = torch.stack([loss.float().reshape(()), norm.float()])
        flags = (~values.isfinite()).float()
        if trainer.world_size > 1:
            flags = trainer.strategy.reduce(flags, reduce_op="max")
        value, self.gradient_norm, *bad = torch.cat([values, flags]).tolist()
        return value, bool(bad[0]), bool(bad[1])

    def _write_down(self, trainer: Trainer, loss: float, *, loss_is_bad: bool) -> str:
        """Append the line, and say what it says."""
        step, rank = trainer.global_step + 1, trainer.global_rank
        mine = (loss, self._names, step_seed(self.seed, step - 1, rank))
        everyone: list[Any] = [mine]
        if trainer.world_size > 1:
            everyone = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyone, mine)
        losses, scans, seeds = zip(*everyone, strict=True)
        worst = next((value for value in losses if not math.isfinite(value)), loss)
        names = [name for part in scans for name in part]
        row = {
            "step": step,
            "loss": str(worst),
            "gradient_norm": str(self.gradient_norm),
            "scans": names,
            "seed": self.seed,
            "step_seeds": seeds,
        }
        if trainer.is_global_zero:
            with suppress(OSError), self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        what = f"loss of step {step} is {worst}"
        if not loss_is_bad:
            what = f"gradient of step {step} has norm {self.gradient_norm}"
        return f"the {what} on scans {', '.join(names)}"


def read_nonfinite(file: Path) -> list[dict[str, Any]]:
    """Read the steps that were not finite; none if there is no file, and what is torn is left out.

    Loss and gradient norm are text, because JSON has no NaN.
    """
    lines: Iterable[str] = file.read_text(encoding="utf-8").splitlines() if file.is_file() else ()
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


class _Buffers:
    """The buffers of a module as they were; those of children in eval mode do not change."""

    def __init__(self) -> None:
        self._kept: dict[tuple[nn.Module, str], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def keep(self, module: nn.Module) -> None:
        # Tensors count their changes, but not those that a batch norm makes: all are copied.
        kept = {}
        for owner in filter(lambda child: child.training, module.modules()):
            for name, value in owner._buffers.items():  # noqa: SLF001 - to put objects back
                if value is not None:
                    known, copy = self._kept.get((owner, name), (None, value))
                    copy = copy.copy_(value) if known is value else value.clone()
                    kept[owner, name] = (value, copy)
        self._kept = kept

    @torch.no_grad()
    def put_back(self) -> None:
        for (owner, name), (value, copy) in self._kept.items():
            owner._buffers[name] = value.copy_(copy)  # noqa: SLF001
