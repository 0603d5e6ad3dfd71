"""The method: what gets a gradient, what is saved, and what the loss is."""

import pytest
import torch
from pc_2dteachers import create_teacher
from pc_2dteachers.teacher import TeacherConcat
from pc_backbones import create_backbone, mlp_head
from pc_data.batch import PointBatch, pack
from scalr.method import ScaLR
from torch import nn

SCHEDULE = {"lr": 1e-3, "min_lr": 0.0, "weight_decay": 0.0, "warmup_steps": 1, "num_steps": 5}


def _batch(num_scans=2, n=40):
    generator = torch.Generator().manual_seed(0)
    scans = []
    for index in range(num_scans):
        xyz = torch.rand(n, 3, generator=generator) * 8 - 4
        pixel = (torch.rand(n, 2, generator=generator) * torch.tensor([64, 32])).floor()
        scans.append(
            PointBatch(
                names=(str(index),),
                xyz=xyz,
                feat=torch.rand(n, 5, generator=generator),
                batch=torch.zeros(n, dtype=torch.long),
                images=torch.rand(1, 3, 32, 64, generator=generator),
                pixel=pixel,
            )
        )
    return pack(scans)


def _method(teacher, head=None):
    torch.manual_seed(0)
    backbone = create_backbone("waffleiron", 5, depth=3, channels=8, num_neighbors=4)
    head = head or nn.Linear(8, teacher.out_dim)
    return ScaLR(backbone, teacher, head, schedule=SCHEDULE)


@pytest.fixture(scope="module")
def teacher():
    return create_teacher("efficientnet_lite0_offline")


def test_loss_by_hand(teacher):
    """Upsample the whole map, index it, and average the distances of unit vectors."""
    method, batch = _method(teacher), _batch()
    maps = nn.functional.interpolate(
        teacher(batch.images), size=(32, 64), mode="bilinear", align_corners=True
    )
    u, v = batch.pixel.long().T
    target = maps[batch.batch, :, v, u]
    feature = method.head(method.backbone(batch.xyz, batch.feat, batch.batch))
    unit = nn.functional.normalize
    expected = (unit(feature) - unit(target)).norm(dim=1).mean()
    result = method.training_step(batch)
    torch.testing.assert_close(result["loss"], expected)
    cosine = torch.cosine_similarity(feature, target).mean()
    torch.testing.assert_close(result["watch"]["alignment"], cosine.detach())
    assert set(result["watch"]) == {"alignment", "feature spread"}


def test_gradient_reaches_the_student_and_never_the_teacher(teacher):
    method = _method(teacher).train()
    method.training_step(_batch())["loss"].backward()
    assert all(
        p.grad is not None for p in [*method.backbone.parameters(), *method.head.parameters()]
    )
    assert all(p.grad is None for p in method.teacher.parameters())
    assert not method.teacher.training
    optimized = {
        id(p) for g in method.configure_optimizers()["optimizer"].param_groups for p in g["params"]
    }
    assert not optimized & {id(p) for p in method.teacher.parameters()}


def test_teacher_is_in_no_checkpoint(teacher):
    method = _method(teacher)
    state = method.state_dict()
    assert not any(name.startswith("teacher") for name in state)
    method.load_state_dict(state)  # strict


def test_several_teachers(teacher):
    both = TeacherConcat([teacher, create_teacher("efficientnet_lite0_offline", pretrained=False)])
    assert both.out_dim == 2 * teacher.out_dim
    method = _method(both, head=mlp_head(8, 16, both.out_dim))
    loss = method.training_step(_batch())["loss"]
    loss.backward()
    assert 0 < loss.item() < 2
