"""The method: its losses by hand, what learns, the queue's life, several processes."""

from types import SimpleNamespace

import pytest
import torch
from pc_backbones import create_backbone
from pc_data.loading import sample_rng
from pc_train.momentum import momentum_schedule
from sspl.method import SSPL, pool_volumes
from sspl.samples import NetworkInput, VolumePair, make_scans, make_volumes
from torch.nn import functional

from tests.processes import run_in_processes
from tests.sspl.test_samples import room

SCHEDULE = {"lr": 0.05, "min_lr": 0.0, "momentum": 0.9, "weight_decay": 1e-4, "num_steps": 10}
UNET = {
    "voxel_size": 0.1,
    "stem_width": 4,
    "stem_kernel": 3,
    "encoder_widths": (4, 6, 8, 8),
    "encoder_depths": (1, 1, 1, 1),
    "decoder_widths": (8, 6, 6, 6),
    "decoder_depths": (1, 1, 1, 1),
}
POINTNET = {
    "num_centers": (64, 32, 16, 8),
    "radii": (0.3, 0.6, 1.2, 1.8),
    "ball_sizes": (16, 8, 8, 8),
    "widths": ((8, 8), (8, 16), (8, 16), (8, 16)),
    "up_widths": ((16, 16), (16, 12)),
}
SMALL = {
    "hidden_dim": 16,
    "projection_dim": 8,
    "queue_size": 200,
    "num_clusters": 4,
    "num_negatives": 60,
    "refresh_every": 3,
}
TAKES = NetworkInput(features=("height",))


def method_of(network="sparse_unet", **changes):
    torch.manual_seed(0)
    sizes = UNET if network == "sparse_unet" else POINTNET
    backbone = create_backbone(network, 1, **sizes)
    return SSPL(backbone, **(SMALL | changes), schedule=SCHEDULE)


def batch_of(count=3, level="volume", **changes):
    make = make_volumes if level == "volume" else make_scans
    samples = [
        make(room(2000, seed=seed), sample_rng(0, 0, seed), takes=TAKES, **changes)
        for seed in range(count)
    ]
    return VolumePair.pack(samples)


def filled(method):
    """With a full and clustered queue."""
    generator = torch.Generator().manual_seed(5)
    method.queue.push(torch.randn(method.queue.size, 8, generator=generator))
    if hasattr(method.queue, "refresh"):
        method.queue.refresh()
    return method


def test_pooling_against_a_loop():
    feature, volume = torch.randn(50, 3), torch.randint(0, 9, (50,))
    volume[volume == 4] = 5
    pooled, occurs = pool_volumes(feature, volume, 12)
    assert occurs.tolist() == [bool((volume == number).any()) for number in range(12)]
    for number in range(12):
        members = feature[volume == number]
        expected = members.max(0).values if len(members) else torch.zeros(3)
        torch.testing.assert_close(pooled[number], expected, rtol=0, atol=0)
    nothing, occurs = pool_volumes(feature[:0], volume[:0], 2)
    assert not nothing.any()
    assert not occurs.any()


def test_local_loss_by_hand():
    method = method_of(across="none", temperature=0.3).eval()
    batch = batch_of()
    features = []
    for encoder, view, volume in (
        (method.online, batch.local_view, batch.local_volume),
        (method.momentum.network, batch.global_view, batch.global_volume),
    ):
        point = encoder.backbone(view.xyz, view.feat, view.batch)
        pooled = [point[volume == v].max(0).values for v in range(len(batch.volume_scan))]
        features.append(functional.normalize(encoder.head(torch.stack(pooled))))
    losses = []
    for scan in range(len(batch)):
        query, key = (side[batch.volume_scan == scan] for side in features)
        losses.append(functional.cross_entropy(query @ key.T / 0.3, torch.arange(len(query))))
    result = method.training_step(batch)
    torch.testing.assert_close(result["loss"], torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    assert set(result["watch"]) == {"local", "across", "accuracy", "alignment", "feature spread"}


def test_byol_predicts_the_copy():
    method = method_of(local="byol", across="none").eval()
    batch = batch_of(2)
    query, key, scan = method.volume_features(batch)
    distance = functional.normalize(method.predictor(query)) - functional.normalize(key)
    terms = distance.square().sum(1)
    expected = (terms[scan == 0].mean() + terms[scan == 1].mean()) / 2
    torch.testing.assert_close(method.training_step(batch)["loss"], expected)


def test_classification_by_hand():
    method = filled(method_of(local="none", across="classification", train_clusters=False)).eval()
    batch = batch_of(2)
    query, key, _ = method.volume_features(batch)
    labels = method.queue.labels[(functional.normalize(key) @ method.queue.feature.T).argmax(1)]
    expected = sum(
        functional.cross_entropy(method.classifier(functional.normalize(side)), labels)
        for side in (query, key)
    )
    torch.testing.assert_close(method.training_step(batch)["loss"], expected)


def test_moco_by_hand():
    """One feature a scan, its own key against all rows of the queue; the first are random."""
    method = method_of(local="none", across="queue", queue_size=50).eval()
    batch = batch_of(3, "scan", view_points=400)
    query, key, _ = map(
        functional.normalize, (*method.volume_features(batch)[:2], torch.ones(1, 1))
    )
    own = (query * key).sum(1, keepdim=True)
    logits = torch.cat([own, query @ method.queue.feature.T], dim=1) / 0.1
    expected = functional.cross_entropy(logits, torch.zeros(3, dtype=torch.long))
    result = method.training_step(batch)
    torch.testing.assert_close(result["loss"], expected)
    torch.testing.assert_close(method.queue.feature[:3], key)
    assert 0 <= result["watch"]["accuracy"] <= 1  # among the scans of the batch


@pytest.mark.parametrize("network", ["sparse_unet", "pointnet2"])
@pytest.mark.parametrize(
    "changes",
    [
        {"local": "none", "across": "clusters"},
        {"local": "none", "across": "clusters", "negatives": "hard"},
        {"local": "none", "across": "clusters", "negatives": "random"},
        {"local": "none", "across": "classification"},
        {"local": "none", "across": "queue"},
        {"local": "info_nce", "across": "none"},
        {"local": "byol", "across": "none"},
    ],
    ids=lambda changes: "-".join(changes.values()),
)
def test_gradient_reaches_what_learns(network, changes):
    """Each part alone; the copy, the queue and what is not in use get none."""
    method = method_of(network, **changes)
    if changes["across"] != "none":
        filled(method)
    method.training_step(batch_of())["loss"].backward()
    for name, parameter in method.named_parameters():
        if name.startswith("momentum."):
            assert not parameter.requires_grad
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("across", ["clusters", "classification"])
def test_everything_has_a_gradient_while_the_queue_fills(across):
    """Other processes wait for the gradient of every parameter."""
    method = method_of(across=across)
    method.training_step(batch_of(1))["loss"].backward()
    for name, parameter in method.online.named_parameters():
        assert parameter.grad.abs().max() > 0, name
    assert not method.queue.head.weight.grad.any()


def test_queue_fills_and_starts_the_global_loss():
    method = method_of(queue_size=250)
    batch = batch_of()
    num_volumes = len(method.volume_features(batch)[0])
    assert 50 < num_volumes < 250
    seen = []
    for step in range(8):
        method.trainer = SimpleNamespace(global_step=step)
        full = method.queue.full
        watch = method.training_step(batch)["watch"]
        assert (watch["across"] > 0) == full
        assert int(method.queue.num_pushed) == (step + 1) * num_volumes
        seen.append(full)
        if method.queue.full:
            sizes = method.queue.labels.bincount(minlength=4)
            assert (sizes > 0).all()
    assert seen[0] is False
    assert seen[-1] is True


def test_clusters_are_renewed_when_due(monkeypatch):
    method = method_of(queue_size=60)
    renewed = []
    monkeypatch.setattr(type(method.queue), "refresh", lambda _: renewed.append(step))
    batch = batch_of(1)
    for step in range(10):
        method.trainer = SimpleNamespace(global_step=step)
        method.training_step(batch)
    first = renewed[0]
    assert renewed == sorted({first, *(step for step in (3, 6, 9) if step > first)})


def test_copy_follows_before_it_looks():
    method = method_of(ema=0.75, across="none")
    before = [value.clone() for value in method.momentum.network.parameters()]
    with torch.no_grad():
        for value in method.online.parameters():
            value += 1
    method.training_step(batch_of(1))
    for old, value in zip(before, method.momentum.network.parameters(), strict=True):
        torch.testing.assert_close(value, old + 0.25)


def test_copy_follows_by_the_cosine():
    method = method_of(ema=0.9, ema_steps=10, across="none")
    method.trainer = SimpleNamespace(global_step=5)
    assert method._momentum_of_step() == momentum_schedule(5, 10, 0.9) == pytest.approx(0.95)
    assert method_of(across="none")._momentum_of_step() is None


def test_volumes_without_a_seed_are_left_out():
    method = method_of("pointnet2", across="none")
    batch = batch_of()
    query, key, scan = method.volume_features(batch)
    assert 3 < len(query) < len(batch.volume_scan)
    assert len(query) == len(key) == len(scan)
    seeds = method.backbone.forward_seeds(
        batch.local_view.xyz, batch.local_view.feat, batch.local_view.batch
    )[0]
    assert len(query) <= len(batch.local_volume[seeds].unique())


def test_only_what_learns_is_optimised():
    method = method_of(across="classification", train_clusters=False)
    optimizer = method.configure_optimizers()["optimizer"]
    chosen = {id(value) for group in optimizer.param_groups for value in group["params"]}
    names = {name for name, value in method.named_parameters() if id(value) in chosen}
    assert {name.split(".")[0] for name in names} == {"online", "classifier"}
    assert not method.queue.head.weight.requires_grad


def test_the_step_follows_from_torchs_seed():
    """Its draws are from the generator that the trainer seeds at each step."""
    batch, losses = batch_of(), []
    for seed in (1, 1, 2):
        method = filled(method_of(num_negatives=10)).eval()
        torch.manual_seed(seed)
        losses.append(method.training_step(batch)["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_checkpoints_hold_the_queue_and_processes_do_not_send_it():
    method = method_of()
    state = method.state_dict()
    assert {"queue.feature", "queue.labels", "queue.num_pushed", "queue.potential"} <= set(state)
    assert set(method._ddp_params_and_buffers_to_ignore) <= set(state)


def _step(samples, across):
    """Gradient of a step and the queue after it; batch norms by their running statistics."""
    local = "none" if across == "classification" else "info_nce"
    method = filled(method_of(local=local, across=across, train_clusters=False)).eval()
    method.training_step(VolumePair.pack(samples))["loss"].backward()
    gradient = [value.grad.flatten() for value in method.parameters() if value.requires_grad]
    return torch.cat(gradient), method.queue.feature


def _samples():
    return [
        make_volumes(room(1500, seed=seed), sample_rng(0, 0, seed), takes=TAKES)
        for seed in range(4)
    ]


def _shared_step(rank, across):
    """A process's step, its gradient averaged over the processes as DDP does."""
    gradient, queue = _step(_samples()[2 * rank : 2 * rank + 2], across)
    torch.distributed.all_reduce(gradient)
    return gradient / 2, queue


@pytest.mark.slow
@pytest.mark.parametrize("across", ["queue", "classification"])
def test_two_processes_step_as_one(across):
    """Where nothing is drawn: ClusterInfoNCE draws its volumes in each process."""
    first, second = run_in_processes(_shared_step, across)
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
    gradient, queue = _step(_samples(), across)
    torch.testing.assert_close(first[1], queue, rtol=1e-5, atol=1e-6)
    largest = float(gradient.abs().max())
    torch.testing.assert_close(first[0], gradient, rtol=1e-4, atol=1e-5 * largest)
