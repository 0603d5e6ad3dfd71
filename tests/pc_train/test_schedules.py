"""Learning rates by step and by layer."""

import math

import pytest
import torch
from pc_backbones import create_backbone, linear_probe_head
from pc_train.schedules import adamw_warmup_cosine, layer_decay_groups, warmup_cosine
from torch import nn


def test_warmup_cosine_by_hand():
    factor = [
        warmup_cosine(step, warmup_steps=4, num_steps=12, final=0.1) for step in (0, 2, 4, 8, 12)
    ]
    assert factor == pytest.approx([0, 0.5, 1, 0.1 + 0.45 * (1 + math.cos(math.pi / 2)), 0.1])
    assert warmup_cosine(99, warmup_steps=4, num_steps=12, final=0.1) == pytest.approx(0.1)


def test_layer_decay_is_the_papers():
    layers = [nn.Linear(1, 1) for _ in range(49)]  # embedding and 48 layers
    groups = layer_decay_groups(layers, nn.Linear(1, 1), decay=0.99)
    scales = [group["scale"] for group in groups if group["decays"]]
    assert scales == [group["scale"] for group in groups if not group["decays"]]
    assert (scales[-1], scales[-2]) == (1, 0.99)
    assert scales[0] == pytest.approx(0.611, abs=1e-3)
    few = layer_decay_groups(layers, nn.Linear(1, 1), decay=0.95)
    assert few[0]["scale"] == pytest.approx(0.081, abs=1e-3)


def test_groups_cover_every_parameter_once():
    backbone = create_backbone("waffleiron", 5, depth=3, channels=8)
    head = linear_probe_head(8, 4)
    groups = layer_decay_groups(backbone.layer_groups(), head, decay=0.9)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(map(id, [*backbone.parameters(), *head.parameters()]))


def test_optimizer_steps():
    weight = nn.Parameter(torch.ones(2))
    made = adamw_warmup_cosine(
        [{"params": [weight], "scale": 0.5}],
        lr=1.0,
        weight_decay=0.0,
        min_lr=0.25,
        warmup_steps=2,
        num_steps=20,
    )
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0, 0.25, 0.5])
    assert schedule.get_last_lr()[0] == pytest.approx(0.125)


def test_short_run_cuts_the_warmup():
    made = adamw_warmup_cosine(
        [{"params": [nn.Parameter(torch.ones(1))]}],
        lr=1.0,
        weight_decay=0.0,
        min_lr=0.0,
        warmup_steps=3500,
        num_steps=20,
    )
    schedule = made["lr_scheduler"]["scheduler"]
    assert schedule.lr_lambdas[0](2) == 1
