"""What every run is watched for besides its loss: its gradient, and the rank of its features."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from pc_losses.health import effective_rank
from torch import Tensor
from torch.utils.hooks import RemovableHandle

GRADIENT_NORM = "gradient norm"
"""Watched value: L2 norm of all gradients of a step, unscaled and averaged over processes."""

EFFECTIVE_RANK = "effective rank"
"""Watched value: how many directions the backbone's features use (`effective_rank`)."""

_RANK_EVERY = 100  # steps; eigenvalues of 768 channels cost tens of milliseconds
_MOST_POINTS = 2048


class Health(Callback):
    """Adds `gradient norm` and `effective rank` to what a method watches; comes before the curve.

    The rank is looked at in the first and every hundredth step. It is that of up to 2,048 points of
    the first call of the method's `backbone` in the step, in this process. A backbone that does not
    learn, or one of another name, has none.

    Args:
        gradient_norm: Tells the norm of the step just made.
    """

    def __init__(self, gradient_norm: Callable[[], float]) -> None:
        self.gradient_norm = gradient_norm
        self._hook: RemovableHandle | None = None
        self._feature: Tensor | None = None

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Listen to the backbone, if it is time."""
        self._feature = None
        step = trainer.global_step + 1
        backbone = _learning(pl_module)
        if backbone is not None and (step == 1 or step % _RANK_EVERY == 0):
            self._hook = backbone.register_forward_hook(self._keep)

    def on_train_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Add the values; at steps between, NaN, so that the curve knows its columns."""
        self._stop()
        added: dict[str, Any] = {GRADIENT_NORM: self.gradient_norm()}
        if _learning(pl_module) is not None:
            feature, self._feature = self._feature, None
            added[EFFECTIVE_RANK] = math.nan if feature is None else effective_rank(feature)
        outputs["watch"] = {**outputs.get("watch", {}), **added}

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the backbone as it was."""
        del trainer, pl_module, exception
        self._stop()

    def _keep(self, module: torch.nn.Module, inputs: Any, feature: Tensor) -> None:  # noqa: ANN401, ARG002
        if self._feature is None and module.training:  # not a pass over the data between steps
            step = -(-len(feature) // _MOST_POINTS) or 1
            self._feature = feature.detach()[::step].clone()

    def _stop(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None


def _learning(method: LightningModule) -> torch.nn.Module | None:
    backbone = getattr(method, "backbone", None)
    return backbone if isinstance(backbone, torch.nn.Module) and backbone.training else None
