"""Learning rates by step and by layer."""

import math

import pytest
import torch
from pc_backbones import create_backbone, linear_probe_head
from pc_train.schedules import (
    OPTIMIZERS,
    adam_staircase,
    adamw_warmup_cosine,
    layer_decay_groups,
    sgd_cosine,
    sgd_onecycle,
    warmup_cosine,
)
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


def test_head_of_its_own_rate():
    layers, head = [nn.Linear(1, 1), nn.Linear(1, 1)], nn.Linear(1, 1)
    groups = layer_decay_groups(layers, head, decay=0.5, head_scale=100.0)
    of_head = {id(parameter) for parameter in head.parameters()}
    for group in groups:
        (parameter,) = group["params"]
        is_head = id(parameter) in of_head
        assert is_head == (group["scale"] == 100)
    assert [group["scale"] for group in groups] == [0.25, 0.25, 0.5, 0.5, 100, 100]


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


def _rates(made, num_steps):
    """(lr, momentum) of each step, and after the last."""
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    seen = []
    for step in range(num_steps + 1):
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["momentum"]))
        if step < num_steps:
            optimizer.step()
            schedule.step()
    return seen


def _one_cycle(step, *, warmup, num_steps, peak):
    """(lr, momentum) by hand: from a tenth up, then down to 1e-5 of the peak."""
    rise, fall = warmup - 1, num_steps - 1
    up = step <= rise
    part = step / rise if up else (step - rise) / (fall - rise)
    ends = (peak / 10, peak, 0.95, 0.85) if up else (peak, peak * 1e-5, 0.85, 0.95)
    half = (1 + math.cos(math.pi * part)) / 2
    return ends[1] + (ends[0] - ends[1]) * half, ends[3] + (ends[2] - ends[3]) * half


def test_one_cycle_by_hand():
    made = sgd_onecycle(
        [{"params": [nn.Parameter(torch.ones(1))]}],
        lr=0.05,
        weight_decay=1e-4,
        warmup_steps=4,
        num_steps=40,
    )
    optimizer = made["optimizer"]
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["nesterov"]
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4
    seen = _rates(made, 40)
    for step in range(40):
        wanted = _one_cycle(step, warmup=4, num_steps=40, peak=0.05)
        assert seen[step] == pytest.approx(wanted, abs=1e-12)
    assert seen[0] == pytest.approx((0.005, 0.95))
    assert seen[3] == pytest.approx((0.05, 0.85))
    assert seen[39] == pytest.approx((5e-7, 0.95))


def test_one_cycle_scales_groups_and_ends_where_told():
    made = sgd_onecycle(
        [{"params": [nn.Parameter(torch.ones(1))], "scale": 0.5, "decays": False}],
        lr=1.0,
        weight_decay=0.1,
        warmup_steps=2,
        num_steps=30,
        min_lr=0.25,
    )
    seen = [rate for rate, _ in _rates(made, 30)]
    assert max(seen) == pytest.approx(0.5)
    assert seen[29] == pytest.approx(0.125)
    assert made["optimizer"].param_groups[0]["weight_decay"] == 0.1


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10, 20])
@pytest.mark.parametrize("warmup_steps", [0, 1, 2, 999])
@pytest.mark.parametrize("min_lr", [None, 0.0])
def test_one_cycle_of_any_length(num_steps, warmup_steps, min_lr):
    made = sgd_onecycle(
        [{"params": [nn.Parameter(torch.ones(1))]}],
        lr=1.0,
        weight_decay=0.0,
        warmup_steps=warmup_steps,
        num_steps=num_steps,
        min_lr=min_lr,
    )
    rates = _rates(made, num_steps)[:num_steps]
    assert all(0 <= rate <= 1 and 0.85 <= momentum <= 0.95 for rate, momentum in rates)
    if num_steps >= 3:
        assert max(rates)[0] > 0.5


def test_one_cycle_is_resumed_exactly():
    arguments = {"lr": 0.1, "weight_decay": 0.0, "warmup_steps": 3, "num_steps": 30}

    def made():
        return sgd_onecycle([{"params": [nn.Parameter(torch.ones(1))]}], **arguments)

    whole = _rates(made(), 30)
    first, second = made(), made()
    _rates(first, 12)
    second["optimizer"].load_state_dict(first["optimizer"].state_dict())
    second["lr_scheduler"]["scheduler"].load_state_dict(
        first["lr_scheduler"]["scheduler"].state_dict()
    )
    assert _rates(second, 18) == whole[12:]


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimizers_take_the_same(name):
    made = OPTIMIZERS[name](
        [{"params": [nn.Parameter(torch.ones(1))]}],
        lr=0.1,
        min_lr=0.0,
        weight_decay=0.0,
        warmup_steps=2,
        num_steps=20,
    )
    assert made["lr_scheduler"]["interval"] == "step"


def test_staircase_is_the_papers():
    """JS3C-Net: Adam, 1e-3, 0.7 after every 10 of 100 epochs, not below 1e-6."""
    groups = [
        {"params": [nn.Parameter(torch.ones(1))]},
        {"params": [nn.Parameter(torch.ones(1))], "scale": 2.0},
    ]
    made = adam_staircase(groups, lr=1e-3, min_lr=1e-6, weight_decay=1e-4, num_steps=100)
    assert type(made["optimizer"]) is torch.optim.Adam
    assert {group["weight_decay"] for group in made["optimizer"].param_groups} == {1e-4}
    rates = _group_rates(made, 101)
    wanted = [1e-3 * 0.7 ** (epoch // 10) for epoch in range(100)]
    assert rates[0] == pytest.approx([*wanted, wanted[-1]])
    assert rates[1] == pytest.approx([2 * rate for rate in rates[0]])


@pytest.mark.parametrize("num_steps", [1, 2, 7, 33])
def test_staircase_of_short_runs_and_its_floor(num_steps):
    made = adam_staircase(
        [{"params": [nn.Parameter(torch.ones(1))]}],
        lr=0.1,
        min_lr=0.05,
        weight_decay=0.0,
        num_steps=num_steps,
    )
    (rates,) = _group_rates(made, num_steps)
    assert rates[0] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert min(rates) >= 0.05


@pytest.mark.parametrize("optimizer", ["sgd_cosine", "adam"])
def test_rise_before_the_fall(optimizer):
    made = OPTIMIZERS[optimizer](
        [{"params": [nn.Parameter(torch.ones(1))]}],
        lr=1.0,
        min_lr=0.0,
        weight_decay=0.0,
        warmup_steps=4,
        num_steps=40,
    )
    (rates,) = _group_rates(made, 40)
    assert rates[:4] == pytest.approx([0, 0.25, 0.5, 0.75])


def _group_rates(made, num_steps):
    optimizer, rates = made["optimizer"], []
    for _ in range(num_steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        made["lr_scheduler"]["scheduler"].step()
    return [list(rate) for rate in zip(*rates, strict=True)]


@pytest.mark.parametrize("dampening", [0.0, 0.1])
def test_sgd_cosine_by_hand(dampening):
    """Rates of half a cosine; the weight by SGD's own formula, without Nesterov's look ahead."""
    weight, plain = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    made = sgd_cosine(
        [{"params": [weight]}, {"params": [plain], "scale": 0.5}],
        lr=0.06,
        min_lr=0.006,
        weight_decay=0.1,
        momentum=0.9,
        num_steps=10,
        dampening=dampening,
    )
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    value, speed = 1.0, 0.0
    for step in range(11):
        rate = 0.006 + 0.054 * (1 + math.cos(math.pi * step / 10)) / 2
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate / 2])
        (3 * weight).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        gradient = 3 + 0.1 * value
        speed = 0.9 * speed + (1 - dampening if step else 1) * gradient
        value -= rate * speed
        assert weight[0].item() == pytest.approx(value, abs=1e-5)
