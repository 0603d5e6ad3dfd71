"""Learning-rate schedules and parameter groups."""

import math
from collections.abc import Sequence
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
    warmup_steps = min(warmup_steps, max(num_steps // 10, 1))
    scaled = [
        {
            "params": group["params"],
            "lr": lr * group.get("scale", 1.0),
            "weight_decay": weight_decay if group.get("decays", True) else 0.0,
        }
        for group in groups
    ]
    optimizer = torch.optim.AdamW(scaled, lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: warmup_cosine(
            step, warmup_steps=warmup_steps, num_steps=num_steps, final=min_lr / lr
        ),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def layer_decay_groups(
    layers: Sequence[nn.Module], head: nn.Module, *, decay: float
) -> list[dict[str, Any]]:
    """Parameter groups whose learning rate shrinks by `decay` per layer away from the head.

    Biases, norms and other parameters of one dimension are groups without weight decay.

    Args:
        layers: Modules from input to output (`backbone.layer_groups()`).
        head: Keeps the full learning rate.
        decay: Factor per layer.

    Source: ScaLR's fine-tuning (Puy et al., CVPR 2024): the embedding is the first layer.
    """
    groups = []
    for index, module in enumerate([*layers, head]):
        parameters = list(module.parameters())
        for decays in (True, False):
            chosen = [value for value in parameters if (value.ndim > 1) == decays]
            scale = decay ** (len(layers) - index)
            groups.append({"params": chosen, "scale": scale, "decays": decays})
    return [group for group in groups if group["params"]]
