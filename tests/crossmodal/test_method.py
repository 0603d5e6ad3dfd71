"""The method: its loss by hand, what gets a gradient, modalities."""

from functools import partial

import pytest
import torch
from crossmodal.method import CrossModal
from crossmodal.samples import UnitBatch, make_units
from pc_2dteachers import create_teacher
from pc_2dteachers.levels import TeacherLevels, resize_levels
from pc_backbones import create_backbone
from pc_data import NuScenes
from pc_data.loading import sample_rng
from pc_geometry.units import contrastive_units
from torch.nn import functional

SCHEDULE = {"lr": 1e-3, "min_lr": 0.0, "weight_decay": 0.0, "warmup_steps": 1, "num_steps": 5}


@pytest.fixture(scope="module")
def teacher():
    return TeacherLevels(create_teacher("efficientnet_lite0_offline"), (1, 2, 3))


@pytest.fixture(scope="module")
def batch(street_world):
    dataset = NuScenes(street_world)
    make = partial(
        make_units,
        features=("x", "y", "z", "intensity"),
        intensity_mean=18.0,
        intensity_std=22.0,
        box=((-25.6, -25.6, -4.0), (25.6, 25.6, 4.0)),
        find_units=partial(contrastive_units, num_units=30),
        sensor_height=1.84,
        image_size=(64, 128),
        with_other=True,
    )
    return UnitBatch.pack([make(dataset[i], sample_rng(0, 0, i)) for i in range(2)])


def method_of(teacher, **changes):
    torch.manual_seed(0)
    backbone = create_backbone("centerpoint_pillar_small", 4)
    arguments = {"num_negatives": 8, "hidden_dim": 16, "projection_dim": 8, "temperature": 0.2}
    return CrossModal(backbone, teacher, **(arguments | changes), schedule=SCHEDULE)


def test_loss_by_hand(teacher, batch):
    method = method_of(teacher).eval()
    with torch.no_grad():
        feature = method.backbone(batch.points.xyz, batch.points.feat, batch.points.batch)
        point = functional.normalize(method.point_head(batch.point_bags.mean(feature)))
        full = functional.interpolate(
            resize_levels(teacher(batch.images)), (64, 128), mode="bilinear", align_corners=True
        )
        u, v = batch.pixel.long().T
        read = full[batch.image_index, :, v, u]
        image = functional.normalize(method.image_head(batch.pixel_bags.mean(read)))
    losses = []
    for i, scan in enumerate(batch.unit_scan.tolist()):
        others = [j for j in range(len(image)) if batch.unit_scan[j] == scan and j != i]
        others.sort(key=lambda j, i=i: float(image[i] @ image[j]))
        chosen = others[:8]
        for query, key in ((point, image), (image, point)):
            own = query[i] @ key[i] / 0.2
            logits = torch.stack([own, *(query[i] @ key[j] / 0.2 for j in chosen)])
            losses.append(torch.logsumexp(logits, 0) - own)
    result = method.training_step(batch)
    torch.testing.assert_close(result["loss"], torch.stack(losses).mean(), rtol=1e-3, atol=1e-3)
    assert 0 <= result["watch"]["accuracy"] <= 1


@pytest.mark.parametrize(("across", "within"), [(True, False), (False, True), (True, True)])
def test_gradient_reaches_what_learns(teacher, batch, across, within):
    method = method_of(teacher if across else None, across=across, within=within)
    result = method.training_step(batch)
    result["loss"].backward()
    for name, parameter in method.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert ("accuracy of clouds" in result["watch"]) == within


def test_multi_is_the_sum(teacher, batch):
    losses = [
        method_of(teacher, across=across, within=within).eval().training_step(batch)["loss"]
        for across, within in ((True, True), (True, False))
    ]
    clouds = method_of(teacher, across=True, within=True).eval()
    point = clouds.point_head(clouds.point_units(batch.points, batch))
    other = clouds.point_head(clouds.point_units(batch.other, batch))
    within = clouds._contrast(point, other, batch, rank=2**31)
    torch.testing.assert_close(losses[0], losses[1] + within)


def test_the_teacher_is_in_no_checkpoint(teacher):
    assert not any(name.startswith("teacher") for name in method_of(teacher).state_dict())
