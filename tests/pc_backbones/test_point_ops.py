"""Sampling, balls and interpolation against loops; both ways of computing give the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_backbones import point_kernels
from pc_backbones.point_kernels import balls_of_scan, nearest_of_scan, sample_scans
from pc_backbones.point_ops import group_balls, interpolate, sample_farthest, three_nearest

from tests.pc_backbones import naive_pointnet2 as naive


def _clouds():
    rng = np.random.default_rng(0)
    lattice = np.stack(np.meshgrid(*[np.arange(4)] * 3), -1).reshape(-1, 3) * 0.25
    return {
        "random": rng.normal(size=(50, 3)),
        "lattice": rng.permutation(lattice),
        "duplicates": rng.normal(size=(7, 3))[rng.integers(0, 7, 40)],
        "collinear": np.linspace(-1, 1, 30)[:, None] * [1.0, 0.5, 0.0],
        "all the same": np.ones((9, 3)),
        "one": np.ones((1, 3)),
        "two": np.eye(3)[:2],
        "around the origin": rng.normal(size=(30, 3)) * 0.02,
    }


CLOUDS = _clouds()
NAMES = list(CLOUDS)


def cloud(name, dtype=torch.float32):
    return torch.from_numpy(CLOUDS[name]).to(dtype)


def packed(names, dtype=torch.float32):
    scans = [cloud(name, dtype) for name in names]
    return torch.cat(scans), [len(scan) for scan in scans], [scan.numpy() for scan in scans]


@pytest.fixture(params=["kernels of pc_geometry", "kernels in torch"])
def either(request, monkeypatch):
    """Both ways through the public functions; the second in many chunks."""
    if request.param == "kernels in torch":
        monkeypatch.setattr("pc_backbones.point_ops._on_cpu", lambda _: False)
        monkeypatch.setattr(point_kernels, "_CHUNK", 200)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("skip_origin", [False, True])
@pytest.mark.parametrize("num", [1, 6, 45])
def test_samples(either, dtype, skip_origin, num):
    xyz, sizes, scans = packed(NAMES, dtype)
    index, counts = sample_farthest(xyz, sizes, num, skip_origin=skip_origin)
    expected = [naive.farthest(scan, num, skip_origin) for scan in scans]
    starts = np.cumsum([0, *sizes[:-1]])
    assert counts == [len(chosen) for chosen in expected]
    assert index.tolist() == [
        i + start for part, start in zip(expected, starts, strict=True) for i in part
    ]


def test_points_near_the_origin_are_never_centres_if_so_wished():
    xyz = torch.tensor([[0, 0, 0], [0.03, 0, 0], [0.04, 0, 0], [0.0316, 0, 0], [1, 0, 0]])
    assert sample_farthest(xyz, [5], 9, skip_origin=True)[0].tolist() == [0, 4, 2]
    assert sorted(sample_farthest(xyz, [5], 9)[0].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", NAMES)
def test_coarser_samples_are_prefixes(name):
    xyz = cloud(name)
    index, (count,) = sample_farthest(xyz, [len(xyz)], 20)
    again, _ = sample_farthest(xyz[index], [count], 12)
    assert again.tolist() == list(range(min(count, 12)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num", [1, 5, 64])
@pytest.mark.parametrize("radius", [0.25, 0.5, 10.0])
def test_balls(either, dtype, num, radius):
    """Of the lattice, whole rings of points lie exactly at the radius: outside."""
    xyz, sizes, scans = packed(NAMES, dtype)
    centers, counts = sample_farthest(xyz, sizes, 8)
    balls = group_balls(xyz, sizes, centers, counts, radius=radius, num=num)
    rows = []
    for scan, start in zip(scans, np.cumsum([0, *sizes[:-1]]), strict=True):
        members = [naive.ball(scan, scan[c], radius, num) for c in naive.farthest(scan, 8)]
        rows += [[i + start for i in row] for row in members]
    assert balls.tolist() == rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest(either, dtype):
    """Queries of one scan never see another; few points are all that there is."""
    xyz, sizes, scans = packed(NAMES, dtype)
    query = torch.randn(4 * len(NAMES), 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    query[::4] = torch.stack([cloud(name, dtype)[-1] for name in NAMES])  # exactly on a point
    index, weight = three_nearest(query, [4] * len(NAMES), xyz, sizes)
    starts = np.cumsum([0, *sizes[:-1]])
    torch.testing.assert_close(weight.sum(1), torch.ones(len(query), dtype=dtype))
    for row in range(len(query)):
        expected = naive.nearest_three(query[row].numpy(), scans[row // 4])
        assert [i + starts[row // 4] for i, _ in expected] == index[row, : len(expected)].tolist()
        weights = torch.tensor([w for _, w in expected], dtype=dtype)
        torch.testing.assert_close(weight[row, : len(expected)], weights)
        assert not weight[row, len(expected) :].any()


@given(
    st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=30),
    st.integers(1, 12),
    st.sampled_from([0.5, 1.0, 2.0**0.5, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_both_ways_agree(points, num, radius):
    """On integers, where nearly everything is a tie."""
    xyz = torch.tensor(points, dtype=torch.float32)
    sizes, n = [len(xyz)], len(xyz)
    centers, counts = sample_farthest(xyz, sizes, num)
    (same,) = sample_scans(xyz, sizes, num, torch.ones(n, dtype=torch.bool))
    assert torch.equal(same, centers)
    balls = group_balls(xyz, sizes, centers, counts, radius=radius, num=num)
    assert torch.equal(balls_of_scan(xyz[centers], xyz, radius, num), balls)
    index, _ = three_nearest(xyz, sizes, xyz[centers], counts)
    k = min(3, counts[0])
    assert torch.equal(nearest_of_scan(xyz, xyz[centers], k), index[:, :k])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gpu_agrees(dtype):
    xyz, sizes, _ = packed(NAMES, dtype)
    centers, counts = sample_farthest(xyz, sizes, 12)
    others, same = sample_farthest(xyz.cuda(), sizes, 12)
    assert (others.tolist(), same) == (centers.tolist(), counts)
    balls = group_balls(xyz, sizes, centers, counts, radius=0.5, num=7)
    others = group_balls(xyz.cuda(), sizes, centers.cuda(), counts, radius=0.5, num=7)
    assert torch.equal(others.cpu(), balls)
    index, weight = three_nearest(xyz, sizes, xyz[centers], counts)
    others, weights = three_nearest(xyz.cuda(), sizes, xyz[centers].cuda(), counts)
    assert torch.equal(others.cpu(), index)
    torch.testing.assert_close(weights.cpu(), weight)


def test_interpolation_and_its_gradient():
    g = torch.Generator().manual_seed(0)
    feat = torch.randn(6, 4, generator=g, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 6, (9, 3), generator=g)
    weight = torch.rand(9, 3, generator=g, dtype=torch.float64)
    ours, expected = interpolate(feat, index, weight), (feat[index] * weight[..., None]).sum(1)
    torch.testing.assert_close(ours, expected)
    direction = torch.randn(9, 4, generator=g, dtype=torch.float64)
    mine, theirs = (
        torch.autograd.grad((out * direction).sum(), feat)[0] for out in (ours, expected)
    )
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype):
    """A thousand points that look at one: in bfloat16 a sum would stop at 256."""
    feat = torch.ones(1, 2, dtype=dtype, requires_grad=True)
    weight = torch.full((1000, 3), 1 / 3)
    out = interpolate(feat, torch.zeros(1000, 3, dtype=torch.long), weight)
    assert out.dtype == dtype
    out.sum().backward()
    torch.testing.assert_close(feat.grad.float(), torch.full((1, 2), 1000.0), rtol=4e-3, atol=0)
