"""The precise test: fragments, passes and what they sum to."""

import dataclasses
import tracemalloc
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_backbones import create_backbone
from pc_data import DataError, Scan
from pc_train.precise import fragments, precise_scores
from pc_train.segmentation import SegmentationModel
from torch import nn

ROOM = ("red", "green", "blue", "normal_x", "normal_y", "normal_z")
VOXEL = 0.02


class Readout(nn.Module):
    """A backbone whose features are what it was given: (xyz, features)."""

    num_neighbors = 0
    fov = None

    def forward(self, xyz, feat, batch, *, neighbors=None):
        assert neighbors is None or neighbors.shape[1] == 0
        assert not self.training
        assert (batch == 0).all()
        return torch.cat([xyz, feat], 1)


class Scores(nn.Module):
    """A head that is a function of those, and that counts its calls."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls = function, 0

    def forward(self, seen):
        self.calls += 1
        return self.function(seen)


def model_of(function):
    return SegmentationModel(Readout(), Scores(function))


def constant(seen):
    return torch.tensor([0.3, -1.0, 2.0]).expand(len(seen), 3)


def room(n=300, side=0.2, seed=0):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(n, 3))
    return Scan(
        name="room",
        xyz=(np.array([3.0, -7.0, 1.5]) + rng.uniform(0, side, (n, 3))).astype(np.float32),
        color=rng.uniform(0, 1, (n, 3)).astype(np.float32),
        normal=(normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32),
        labels=rng.integers(-1, 3, n),
    )


def apart(n=20):
    """A room with a point in each voxel at most, whatever the turn and scale."""
    scan = room(n)
    x = np.arange(n) * 5 * VOXEL
    return dataclasses.replace(scan, xyz=np.stack([x, x**2, 0 * x], 1).astype(np.float32))


def score(function, scan, **more):
    arguments = {"features": ROOM, "voxel_size": VOXEL, "device": "cpu"} | more
    return precise_scores(model_of(function), scan, **arguments)


# fragments


def slow_fragments(xyz, voxel_size):
    """The protocol in words: i-th point of each voxel, i mod count."""
    members = {}
    for index, point in enumerate(np.asarray(xyz, np.float64)):
        members.setdefault(tuple(np.floor(point / voxel_size)), []).append(index)
    fullest = max(map(len, members.values()), default=0)
    return [[own[i % len(own)] for own in members.values()] for i in range(fullest)]


def test_voxels_with_one_two_and_three_points():
    xyz = np.float32([[5, 0, 0], [0, 0, 0], [0.01, 0, 0], [-0.01, 0, 0], [0, 0, 0], [-0.02, 0, 0]])
    parts = [part.tolist() for part in fragments(xyz, 0.1)]
    assert parts == [[0, 1, 3], [0, 2, 5], [0, 4, 3]]


@pytest.mark.parametrize("n", [1, 2, 50, 2000])
def test_fragments_against_the_slow_form(n):
    xyz = np.random.default_rng(n).uniform(-0.3, 0.3, (n, 3)).astype(np.float32)
    assert [part.tolist() for part in fragments(xyz, 0.1)] == slow_fragments(xyz, 0.1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), max_size=40), st.sampled_from([0.5, 1, 3]))
def test_every_point_is_in_a_fragment_and_no_voxel_twice(cells, voxel_size):
    xyz = np.array(cells, np.float32).reshape(-1, 3)
    voxel = np.floor(xyz.astype(np.float64) / voxel_size)
    parts = list(fragments(xyz, voxel_size))
    for part in parts:
        assert len(np.unique(voxel[part], axis=0)) == len(part)
    seen = np.concatenate([np.zeros(0, int), *parts])
    assert np.array_equal(np.unique(seen), np.arange(len(xyz)))
    num_voxels, fullest = 0, 0
    if len(xyz):
        counts = np.unique(voxel, axis=0, return_counts=True)[1]
        num_voxels, fullest = len(counts), counts.max()
    assert (len(parts), len(seen)) == (fullest, fullest * num_voxels)


def test_duplicates_of_one_point_come_one_by_one():
    xyz = np.full((4, 3), 0.7, np.float32)
    assert [part.tolist() for part in fragments(xyz, 0.02)] == [[0], [1], [2], [3]]


def test_no_points_no_fragments():
    assert list(fragments(np.zeros((0, 3), np.float32), 0.02)) == []


def test_the_grid_starts_at_the_origin():
    xyz = np.float32([[0.09, 0, 0], [0.11, 0, 0], [0.21, 0, 0]])
    assert [part.tolist() for part in fragments(xyz, 0.1)] == [[0, 1, 2]]
    assert len(list(fragments(xyz - np.float32([0.09, 0, 0]), 0.1))) == 2


def test_what_fragments_refuses_it_refuses_when_called():
    with pytest.raises(ValueError, match="positive and finite, got 0"):
        fragments(np.zeros((1, 3), np.float32), 0)
    with pytest.raises(ValueError, match="points must be finite, got 1 of 1"):
        fragments(np.full((1, 3), np.nan, np.float32), 0.1)


def crowded(num_voxels, fullest):
    """One voxel with many points, and others with one."""
    lone = np.arange(1, num_voxels)[:, None] * np.float32([1, 0, 0])
    return np.concatenate([np.zeros((fullest, 3), np.float32), lone]).astype(np.float32) + 0.5


def test_fragments_hold_one_index_list_at_a_time():
    xyz = crowded(num_voxels=20_000, fullest=1000)
    list(fragments(xyz[:10], 1.0))  # compiled before it is measured
    tracemalloc.start()
    try:
        count = sum(1 for _ in fragments(xyz, 1.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 1000
    whole = 1000 * 20_000 * 8  # bytes of all index lists
    assert peak < whole / 20


def test_scores_hold_one_fragment_at_a_time():
    n = 200
    xyz = crowded(num_voxels=2000, fullest=n)
    zeros = np.zeros_like(xyz)
    scan = Scan(name="crowd", xyz=xyz, color=zeros, normal=zeros)
    few = dataclasses.replace(scan, xyz=xyz[:10], color=zeros[:10], normal=zeros[:10])
    score(constant, few, voxel_size=1.0)  # imported and compiled before it is measured
    tracemalloc.start()
    try:
        score(lambda seen: seen[:, :2].clone(), scan, voxel_size=1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * 2000 * 8 / 4  # bytes of a pass's index lists


# scores


def test_a_constant_model_gives_thirteen_times_its_softmax():
    scan = apart()
    scores = score(constant, scan)
    expected = 13 * torch.tensor([0.3, -1.0, 2.0]).softmax(0).numpy()
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.tile(expected, (len(scan), 1)), rtol=1e-6)


def test_one_point():
    scan = apart(1)
    scores = score(constant, scan)
    np.testing.assert_allclose(scores.sum(1), [13], rtol=1e-6)


def test_a_point_in_a_less_full_voxel_is_seen_more_often():
    base = room(4)
    xyz = np.float32([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]])
    scores = score(constant, dataclasses.replace(base, xyz=xyz))
    np.testing.assert_allclose(scores.sum(1), [13, 13, 13, 39], rtol=1e-6)


def test_turns_and_scales_about_the_middle_of_the_floor():
    """What the network sees of one point over the passes, against the protocol's list."""
    scan = apart(5)
    passes = []

    def remember(seen):
        passes.append(seen.numpy().copy())
        return seen[:, :2]

    score(remember, scan)
    low, high = scan.xyz.min(0).astype(float), scan.xyz.max(0).astype(float)
    centered = scan.xyz - [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]]
    x, y, z = centered.T
    u, v, w = scan.normal.T
    turned = ((x, y, u, v), (-y, x, -v, u), (-x, -y, -u, -v), (y, -x, v, -u))
    assert len(passes) == 12
    for seen, (scale, (a, b, c, d)) in zip(passes, product((1, 0.95, 1.05), turned), strict=True):
        np.testing.assert_allclose(seen[:, :3], scale * np.stack([a, b, z], 1), atol=1e-6)
        np.testing.assert_allclose(seen[:, 3:6], 2 * scan.color - 1, atol=1e-6)
        np.testing.assert_allclose(seen[:, 6:], np.stack([c, d, w], 1), atol=1e-6)


def test_the_double_mirror_counts_as_a_second_half_turn():
    scan = apart(1)
    scan = dataclasses.replace(scan, normal=np.float32([[1, 0, 0]]))
    scores = score(lambda seen: 100 * torch.stack([seen[:, 6], -seen[:, 6]], 1), scan)
    # Normal to +x in 3 passes, to -x in 3 and the mirror, sideways in 6.
    np.testing.assert_allclose(scores, [[3 + 3, 4 + 3]], atol=1e-5)


def test_a_turned_scan_gets_the_same_scores():
    scan = room(200, side=2.0)
    turn = np.float32([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turned = dataclasses.replace(scan, xyz=scan.xyz @ turn.T, normal=scan.normal @ turn.T)

    def height(seen):  # z, the distance from the axis, brightness, and the normal's inclination
        return torch.stack(
            [seen[:, 2], seen[:, :2].square().sum(1), seen[:, 3:6].sum(1), seen[:, 8]], 1
        )

    first = score(height, scan)
    np.testing.assert_allclose(score(height, turned), first, rtol=2e-5)
    moved = dataclasses.replace(scan, xyz=scan.xyz + np.float32([4, -2, 8]))
    np.testing.assert_allclose(score(height, moved), first, rtol=2e-4)


def slow_scores(model, scan, voxel_size):
    """The thirteen passes spelled out, the double mirror one of them, fragments from a dict."""
    low, high = scan.xyz.min(0), scan.xyz.max(0)
    middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    centered = (scan.xyz - middle).astype(np.float32)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    passes = [
        (np.linalg.matrix_power(quarter, turn), scale)
        for scale in (1, 0.95, 1.05)
        for turn in range(4)
    ]
    total = np.zeros((len(scan), 4))
    for linear, scale in [*passes, (np.diag([-1, -1, 1]), 1)]:
        xyz = (scale * (centered @ linear.T.astype(float))).astype(np.float32)
        feat = np.concatenate([2 * scan.color - 1, scan.normal @ linear.T], 1, dtype=np.float32)
        for part in slow_fragments(xyz, voxel_size):
            with torch.no_grad():
                zeros = torch.zeros(len(part), dtype=torch.long)
                seen = model.backbone(torch.tensor(xyz[part]), torch.tensor(feat[part]), zeros)
                total[part] += model.head(seen).softmax(1).numpy()
    return total


class Surroundings(nn.Module):
    """A learned function of a point and of its distances and features to all others."""

    num_neighbors = 0
    fov = None

    def __init__(self):
        super().__init__()
        self.out_dim = 8
        self.own, self.other = nn.Linear(6, 8), nn.Linear(9, 8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, xyz, feat, batch, *, neighbors=None):
        assert neighbors is None or neighbors.shape[1] == 0
        assert (batch == 0).all()
        offset = xyz[None] - xyz[:, None]
        near = torch.exp(-offset.square().sum(-1, keepdim=True) / 0.01)
        pairs = torch.cat([offset * 10, feat[None].expand(len(feat), -1, -1)], -1)
        return self.norm(self.own(feat) + (near * self.other(pairs).tanh()).sum(1))


def tiny_model(make_backbone):
    torch.manual_seed(0)
    backbone = make_backbone()
    model = SegmentationModel(backbone, nn.Linear(backbone.out_dim, 4))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def test_agrees_with_the_slow_form():
    scan = room(120, side=0.1)
    model = tiny_model(Surroundings)
    scores = precise_scores(model, scan, features=ROOM, voxel_size=VOXEL, device="cpu")
    np.testing.assert_allclose(scores, slow_scores(model, scan, VOXEL), rtol=1e-4, atol=1e-5)


def test_agrees_with_the_slow_form_on_a_sparse_unet():
    scan = room(100, side=0.1)
    tiny = {
        "voxel_size": VOXEL,
        "stem_width": 8,
        "encoder_widths": (8, 16),
        "encoder_depths": (1, 1),
        "decoder_widths": (16, 8),
        "decoder_depths": (1, 1),
    }
    model = tiny_model(lambda: create_backbone("spunet14_small", 6, **tiny, init_std=0.3))
    scores = precise_scores(model, scan, features=ROOM, voxel_size=VOXEL, device="cpu")
    assert scores.std(0).min() > 0.5  # points do differ
    np.testing.assert_allclose(scores, slow_scores(model, scan, VOXEL), rtol=1e-3, atol=1e-4)


def test_nothing_is_random_and_the_model_ends_in_eval_mode():
    scan = room(100, side=0.1)
    model = tiny_model(Surroundings).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (
        precise_scores(model, scan, features=ROOM, voxel_size=VOXEL, device="cpu") for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_intensity_is_standardised():
    scan = Scan(name="s", xyz=np.zeros((1, 3), np.float32), intensity=np.float32([5.0]))
    seen = []
    score(
        lambda given: seen.append(float(given[0, 3])) or given[:, :2],
        scan,
        features=("intensity",),
        intensity_mean=2.0,
        intensity_std=1.5,
    )
    assert seen == [2.0] * 12


def test_a_backbone_that_takes_neighbors_gets_them():
    class Counting(Readout):
        num_neighbors = 3

        def forward(self, xyz, feat, batch, *, neighbors=None):
            assert neighbors.shape == (len(xyz), 3)
            assert (batch == 0).all()
            return feat

    model = SegmentationModel(Counting(), Scores(lambda feat: feat[:, :2]))
    scores = precise_scores(model, apart(6), features=ROOM, voxel_size=VOXEL, device="cpu")
    assert scores.shape == (6, 2)


def test_one_network_call_a_fragment_and_a_report_a_pass():
    scan = dataclasses.replace(room(3), xyz=np.zeros((3, 3), np.float32))
    model, told = model_of(constant), []
    precise_scores(
        model,
        scan,
        features=ROOM,
        voxel_size=VOXEL,
        device="cpu",
        report=lambda done, total: told.append((done, total)),
    )
    assert model.head.calls == 12 * 3
    assert told == [(done, 12) for done in range(1, 13)]


def test_an_empty_scan_is_refused():
    nothing = np.zeros((0, 3), np.float32)
    with pytest.raises(DataError, match="scan void has no points to predict; leave it out"):
        score(constant, Scan(name="void", xyz=nothing, color=nothing, normal=nothing))


def test_a_scan_without_what_the_network_takes():
    scan = Scan(name="grey", xyz=np.zeros((1, 3), np.float32))
    with pytest.raises(DataError, match="scan grey has no color"):
        score(constant, scan)


def test_a_voxel_size_of_nothing():
    with pytest.raises(ValueError, match="must be positive and finite, got -1"):
        score(constant, room(3), voxel_size=-1.0)


def test_points_outside_a_field_of_view():
    model = model_of(constant)
    model.backbone.fov = torch.tensor([[-1.0, -1, -1], [1, 1, 1]])
    xyz = np.float32([[0, 0, 0], [3, 0, 0], [1.5, 0.5, 0]])
    scan = dataclasses.replace(room(3), xyz=xyz)
    with pytest.raises(DataError, match="room: 2 of its 3 points leave the network's field"):
        precise_scores(model, scan, features=ROOM, voxel_size=VOXEL, device="cpu")
