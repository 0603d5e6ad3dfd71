"""Optimisers with their learning-rate schedules, and parameter groups."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn


def warmup_cosine(step: int, *, warmup_steps: int, num_steps: int, final: float) -> float:
    """Factor of the learning rate: linear from 0, then half a cosine down to `final`.

    Source: the schedule of ScaLR's released code (Puy et al., CVPR 2024).
    """
    if step < warmup_steps:
        return step / warmup_steps
    done = min((step - warmup_steps) / max(num_steps - warmup_steps, 1), 1.0)
    return final + 0.5 * (1 - final) * (1 + math.cos(math.pi * done))


def adamw_warmup_cosine(
    groups: Sequence[dict[str, Any]],
    *,
    lr: float,
    weight_decay: float,
    min_lr: float,
    warmup_steps: int,
    num_steps: int,
) -> dict[str, Any]:
    """AdamW with that schedule per step, in the form that Lightning takes.

    Args:
        groups: Parameter groups; `scale` multiplies the learning rate of a group, `decays` tells
            whether weight decay applies to it, as it does by default.
        lr: Peak learning rate.
        weight_decay: Of the groups that decay.
        min_lr: Learning rate at the end.
        warmup_steps: Steps of the linear rise; cut to a tenth of a run shorter than ten of them.
        num_steps: Length of the run.
    """
    warmup_steps = _cut(warmup_steps, num_steps)
    scaled = [
        plain | {"weight_decay": weight_decay if group.get("decays", True) else 0.0}
        for plain, group in zip(_scaled(groups, lr), groups, strict=True)
    ]
    optimizer = torch.optim.AdamW(scaled, lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: warmup_cosine(
            step, warmup_steps=warmup_steps, num_steps=num_steps, final=min_lr / lr
        ),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def sgd_onecycle(
    groups: Sequence[dict[str, Any]],
    *,
    lr: float,
    weight_decay: float,
    warmup_steps: int,
    num_steps: int,
    min_lr: float | None = None,
    momentum: float | None = None,
) -> dict[str, Any]:
    """SGD with Nesterov momentum whose learning rate rises once and falls, both by half a cosine.

    It rises from a tenth of the peak.

    Args:
        groups: Parameter groups; `scale` multiplies the learning rate of a group. Weight decay
            applies to all of them, biases and norms included, as there.
        lr: Peak learning rate.
        weight_decay: Of all parameters.
        warmup_steps: Steps until the peak; cut to a tenth of a run shorter than ten of them.
        num_steps: Length of the run.
        min_lr: Learning rate at the end; by default 1e-5 of the peak.
        momentum: Constant; by default it runs against the rate, from 0.95 to 0.85 and back, which
            is what the released code does whatever its configurations say (0.8, 0.9).

    Source: MSC (Wu et al., CVPR 2023), Tables 5 and 6 and its released code; the schedule is that
        of Smith and Topin (2018, arXiv:1708.07120) as torch has it.
    """
    scaled = _scaled(groups, lr)
    rates = [group["lr"] for group in scaled]
    # The rate that the optimiser starts with is the schedule's.
    optimizer = torch.optim.SGD(
        scaled,
        lr=lr,
        momentum=0.9 if momentum is None else momentum,
        nesterov=True,
        weight_decay=weight_decay,
    )
    rise = _cut(warmup_steps, num_steps)
    start = lr / 10
    final = start / 1e4 if min_lr is None else min_lr
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=rates,
        total_steps=num_steps,
        pct_start=rise / num_steps if rise > 1 else 0.0,  # torch divides by zero for one step
        anneal_strategy="cos",
        cycle_momentum=momentum is None,
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=lr / start,
        final_div_factor=start / final if final else math.inf,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def sgd_cosine(
    groups: Sequence[dict[str, Any]],
    *,
    lr: float,
    min_lr: float,
    weight_decay: float,
    momentum: float,
    num_steps: int,
    warmup_steps: int = 0,
    dampening: float = 0.0,
) -> dict[str, Any]:
    """SGD with momentum whose learning rate falls by half a cosine, step by step.

    Args:
        groups: Parameter groups; `scale` multiplies the learning rate of a group. Weight decay
            applies to all of them, biases and norms included.
        lr: Learning rate at the start.
        min_lr: Learning rate at the end.
        weight_decay: Of all parameters.
        momentum: Not Nesterov's.
        num_steps: Length of the run.
        warmup_steps: Steps of a linear rise before; cut to a tenth of a run shorter than ten of
            them.
        dampening: Share of a new gradient that the momentum does not take.

    Source: DepthContrast (Zhang et al., ICCV 2021), whose code steps once an epoch, and SSPL (Zhang
        et al., NeurIPS 2022), Sec. 3.4; SLidR (Sautier et al., CVPR 2022), once an epoch too.
    """
    warmup_steps = _cut(warmup_steps, num_steps)
    optimizer = torch.optim.SGD(
        _scaled(groups, lr),
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: warmup_cosine(
            step, warmup_steps=warmup_steps, num_steps=num_steps, final=min_lr / lr
        ),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def adam_staircase(
    groups: Sequence[dict[str, Any]],
    *,
    lr: float,
    min_lr: float,
    weight_decay: float,
    num_steps: int,
    warmup_steps: int = 0,
    num_stages: int = 10,
    factor: float = 0.7,
) -> dict[str, Any]:
    """Adam whose learning rate falls by a factor after every tenth of the run.

    Args:
        groups: Parameter groups; `scale` multiplies the learning rate of a group. Weight decay
            applies to all of them, as a part of the gradient.
        lr: Learning rate at the start.
        min_lr: It does not fall below this.
        weight_decay: Of all parameters.
        num_steps: Length of the run.
        warmup_steps: Steps of a linear rise before; cut to a tenth of a run shorter than ten of
            them.
        num_stages: Parts of the run with a constant rate.
        factor: From one to the next.

    Source: JS3C-Net (Yan et al., AAAI 2021): 0.7 after every 10 of 100 epochs. SSPL (Zhang et al.,
        NeurIPS 2022), Sec. 4.3, largely follows its settings.
    """
    warmup_steps = _cut(warmup_steps, num_steps)

    def scale(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        stage = min(step, num_steps - 1) * num_stages // num_steps
        return max(factor**stage, min_lr / lr)

    optimizer = torch.optim.Adam(_scaled(groups, lr), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


OPTIMIZERS: dict[str, Callable[..., dict[str, Any]]] = {
    "adamw": adamw_warmup_cosine,
    "sgd": sgd_onecycle,
    "sgd_cosine": partial(sgd_cosine, momentum=0.9, dampening=0.1),
    "adam": adam_staircase,
}
"""By the name that settings give them; all take groups, lr, min_lr, weight_decay and steps."""


def _cut(warmup_steps: int, num_steps: int) -> int:
    return min(warmup_steps, max(num_steps // 10, 1))


def _scaled(groups: Sequence[dict[str, Any]], lr: float) -> list[dict[str, Any]]:
    return [{"params": group["params"], "lr": lr * group.get("scale", 1.0)} for group in groups]


def layer_decay_groups(
    layers: Sequence[nn.Module], head: nn.Module, *, decay: float, head_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate shrinks by `decay` per layer away from the head.

    Biases, norms and other parameters of one dimension are groups without weight decay.

    Args:
        layers: Modules from input to output (`backbone.layer_groups()`).
        head: Keeps the full learning rate.
        decay: Factor per layer.
        head_scale: Factor of the learning rate of the head, which no layer shares.

    Source: ScaLR's fine-tuning (Puy et al., CVPR 2024): the embedding is the first layer. SLidR's
        (Sautier et al., CVPR 2022) has no decay, but a head that learns 100 times as fast.
    """
    groups = []
    for index, module in enumerate([*layers, head]):
        parameters = list(module.parameters())
        scale = head_scale if module is head else decay ** (len(layers) - index)
        for decays in (True, False):
            chosen = [value for value in parameters if (value.ndim > 1) == decays]
            groups.append({"params": chosen, "scale": scale, "decays": decays})
    return [group for group in groups if group["params"]]
