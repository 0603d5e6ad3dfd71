"""Probing, fine-tuning and the score."""

import numpy as np
import pytest
import torch
from pc_backbones import create_backbone
from pc_data.batch import PointBatch
from pc_train.networks import HEADS
from pc_train.schedules import OPTIMIZERS
from pc_train.segmentation import (
    FineTune,
    LinearProbe,
    SegmentationModel,
    confusion,
    count_answers,
    iou_per_class,
    mean_iou,
)
from sklearn.metrics import jaccard_score

NUM_CLASSES = 4


def _batch(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(n, 3, generator=generator) * 10 - 5
    labels = torch.randint(-1, NUM_CLASSES, (n,), generator=generator)
    return PointBatch(
        names=("scan",),
        xyz=xyz,
        feat=torch.rand(n, 5, generator=generator),
        batch=torch.zeros(n, dtype=torch.long),
        labels=labels,
        nearest=torch.arange(n),
        all_labels=labels,
    )


def _backbone():
    torch.manual_seed(0)
    return create_backbone("waffleiron", 5, depth=3, channels=8, drop_path=0.2)


def test_probe_learns_on_a_frozen_backbone():
    probe = LinearProbe(_backbone(), NUM_CLASSES, num_steps=10, warmup_steps=1).train()
    before = {name: value.clone() for name, value in probe.backbone.state_dict().items()}
    assert not probe.backbone.training
    assert probe.head.training
    optimizer = probe.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(10):
        loss = probe.training_step(_batch())
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 0.05
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    after = probe.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_every_class_starts_equal():
    probe = LinearProbe(_backbone(), NUM_CLASSES, num_steps=10, warmup_steps=1)
    assert torch.equal(probe(_batch()), torch.zeros(60, NUM_CLASSES))


def test_finetuning_trains_the_backbone_in_train_mode():
    """Files load in eval mode, which keeps batch norm's statistics and skips no branch."""
    tune = FineTune(_backbone().eval(), NUM_CLASSES, num_steps=10, warmup_steps=1)
    assert all(module.training for module in tune.modules())
    before = {name: value.clone() for name, value in tune.backbone.named_buffers()}
    tune.training_step(_batch())
    moved = [name for name, value in tune.backbone.named_buffers() if not value.equal(before[name])]
    assert any("running_mean" in name for name in moved)
    with torch.no_grad():
        first, second = (tune.backbone(*_inputs()) for _ in range(2))
    assert not torch.equal(first, second)  # another branch was skipped


def _inputs():
    batch = _batch()
    return batch.xyz, batch.feat, batch.batch


def test_finetuning_reaches_every_parameter():
    tune = FineTune(_backbone(), NUM_CLASSES, num_steps=10, warmup_steps=1)
    for layer in tune.backbone.layers:
        layer.drop_path = 0.0
    torch.nn.init.normal_(tune.head[1].weight)  # a zero head passes no gradient on
    tune.training_step(_batch()).backward()
    assert all(parameter.grad is not None for parameter in tune.parameters())
    assert sum(float(p.grad.abs().sum()) > 0 for p in tune.backbone.parameters()) > 30


def test_no_labels():
    probe = LinearProbe(_backbone(), NUM_CLASSES, num_steps=10, warmup_steps=1)
    batch = _batch()
    bare = PointBatch(names=("s7",), xyz=batch.xyz, feat=batch.feat, batch=batch.batch)
    with pytest.raises(ValueError, match="scans s7 has no labels"):
        probe.training_step(bare)


@pytest.mark.parametrize("kind", [LinearProbe, FineTune])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("head", list(HEADS))
def test_any_head_learns_with_any_optimizer(kind, optimizer, head):
    task = kind(
        _backbone(),
        NUM_CLASSES,
        num_steps=8,
        warmup_steps=1,
        lr=0.02,
        make_head=HEADS[head],
        make_optimizer=OPTIMIZERS[optimizer],
        lovasz_weight=0.0,
    )
    made = task.configure_optimizers()
    losses = []
    for _ in range(8):
        made["optimizer"].zero_grad()
        loss = task.training_step(_batch())
        loss.backward()
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_without_lovasz_the_loss_is_the_cross_entropy():
    model = SegmentationModel(_backbone().eval(), HEADS["linear"](8, 4), lovasz_weight=0.0).eval()
    batch = _batch()
    wanted = torch.nn.functional.cross_entropy(model(batch), batch.labels, ignore_index=-1)
    torch.testing.assert_close(model.training_step(batch), wanted)
    model.lovasz_weight = 1.0
    assert model.training_step(batch) > wanted


class _Constant(torch.nn.Module):
    """Predicts what the features' first column says."""

    def forward(self, batch):
        return torch.nn.functional.one_hot(batch.feat[:, 0].long(), NUM_CLASSES).float()


def test_confusion_equals_scikit_learn():
    rng = np.random.default_rng(0)
    predicted, nearest = rng.integers(0, 3, 40), rng.integers(0, 40, 90)  # class 3 never predicted
    truth = rng.choice([-1, 0, 1, 3], 90)
    batch = PointBatch(
        names=("a",),
        xyz=torch.zeros(40, 3),
        feat=torch.from_numpy(predicted[:, None]).float(),
        batch=torch.zeros(40, dtype=torch.long),
        nearest=torch.from_numpy(nearest),
        all_labels=torch.from_numpy(truth),
    )
    counts = confusion(_Constant(), [batch, batch], NUM_CLASSES, device=torch.device("cpu"))
    valid = truth >= 0
    expected = jaccard_score(truth[valid], predicted[nearest][valid], average=None, labels=range(4))
    assert counts.sum() == 2 * valid.sum()
    np.testing.assert_allclose(iou_per_class(counts), expected)


def test_what_absent_classes_count():
    counts = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert np.isnan(iou_per_class(counts)[2])
    assert mean_iou(counts) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert mean_iou(counts, absent_classes="zero") == pytest.approx((3 / 4 + 4 / 5) / 3)
    assert mean_iou(counts, absent_classes="one") == pytest.approx((3 / 4 + 4 / 5 + 1) / 3)
    with pytest.raises(ValueError, match="must be one of left_out, zero, one, got 'two'"):
        mean_iou(counts, absent_classes="two")


def test_answers_are_counted():
    counts = count_answers(
        [
            (torch.tensor([0, 1, 1]), torch.tensor([0, 1, -1])),
            (torch.tensor([1]), torch.tensor([0])),
        ],
        2,
        device=torch.device("cpu"),
    )
    assert counts.tolist() == [[1, 1], [0, 1]]
