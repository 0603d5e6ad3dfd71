"""A copy of a network that follows it slowly: the momentum encoder of MoCo and BYOL."""

import copy
import math

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MomentumEncoder(nn.Module):
    """A frozen copy of a network, moved a little towards it after each step of its training.

    Call `encoder.network(...)`; its parameters need no gradients, so none are kept. Only parameters
    follow by momentum. Buffers stay the copy's own: it is in training mode when the method is, so
    its batch norms use the statistics of what they see, and their running means follow that. The
    state dict has everything that an exact resume needs.

    `torch.optim.swa_utils.AveragedModel` overwrites parameters at its first update, and buffers at
    every one.

    Args:
        online: What is copied, as it is now; its weights are shared with no one.
        momentum: Share of a parameter that stays in an update.

    Attributes:
        network: The copy.
        momentum: As given.

    Raises:
        ValueError: If the momentum is not in [0, 1].

    Source: MoCo (He et al., CVPR 2020, arXiv:1911.05722), Sec. 3.1; buffers as in its and
        DepthContrast's released code (Zhang et al., ICCV 2021). SSPL (Zhang et al., NeurIPS 2022),
        Sec. 3.2, has the same with 0.999.
    """

    def __init__(self, online: nn.Module, *, momentum: float = 0.999) -> None:
        super().__init__()
        self.momentum = _require_momentum(momentum)
        self.network = copy.deepcopy(online).requires_grad_(False)

    @torch.no_grad()
    def update(self, online: nn.Module, momentum: float | None = None) -> None:
        """Set each parameter to momentum * its own value + (1 - momentum) * that of `online`.

        Processes that train together need not talk: their `online` are equal, so the copies are.

        Args:
            online: The network that was copied, not a wrapper of it.
            momentum: Of this update alone, from a schedule for example.

        Raises:
            ValueError: If the momentum is not in [0, 1], or `online` has other parameters.
        """
        share = self.momentum if momentum is None else _require_momentum(momentum)
        own, others = dict(self.network.named_parameters()), dict(online.named_parameters())
        for name in [*own, *others]:
            if name not in own or name not in others or own[name].shape != others[name].shape:
                raise ValueError(
                    f"online must have the parameters of the network that was copied, but {name} "
                    f"is {_shape(others.get(name))} in it and {_shape(own.get(name))} in the copy; "
                    "pass that network itself, not a wrapper of it"
                )
        if own:
            get_ema_multi_avg_fn(share)([*own.values()], [others[name] for name in own], 0)


def momentum_schedule(step: int, num_steps: int, base: float = 0.996) -> float:
    """Momentum that rises from `base` to 1 by half a cosine.

    Args:
        step: From 0; from `num_steps` on it stays 1.
        num_steps: Length of the run.
        base: At step 0.

    Raises:
        ValueError: If a number of steps is negative, or `base` is not in [0, 1].

    Source: BYOL (Grill et al., NeurIPS 2020, arXiv:2006.07733), implementation details.

    >>> [round(momentum_schedule(step, 10, 0.9), 3) for step in (0, 5, 10)]
    [0.9, 0.95, 1.0]
    """
    _require_momentum(base, "base")
    if step < 0 or num_steps < 0:
        raise ValueError(f"step and num_steps must be at least 0, got {step} and {num_steps}")
    done = min(step / num_steps, 1.0) if num_steps else 1.0
    return 1 - (1 - base) * (math.cos(math.pi * done) + 1) / 2


def _require_momentum(momentum: float, name: str = "momentum") -> float:
    if not 0 <= momentum <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {momentum}")
    return momentum


def _shape(parameter: torch.Tensor | None) -> str:
    return "missing" if parameter is None else f"of shape {list(parameter.shape)}"
