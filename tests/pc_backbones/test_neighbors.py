"""Neighbours within scans against brute force."""

import numpy as np
import pytest
import torch
from pc_backbones import batch_neighbors


def brute_force(xyz, batch, k):
    """Squared distances to the k nearest others of the same scan, the farthest repeated."""
    distance = (xyz[:, None] - xyz).square().sum(-1)
    distance[batch[:, None] != batch] = torch.inf
    distance.fill_diagonal_(torch.inf)
    near = distance.sort(dim=1).values[:, :k]
    near = torch.nn.functional.pad(near, (0, k - near.shape[1]), value=torch.inf)
    return torch.where(near.isinf(), near.masked_fill(near.isinf(), 0).amax(1, True), near)


def cloud(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(sum(sizes), 3, generator=generator) * 10
    return xyz, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def check(xyz, batch, k):
    found = batch_neighbors(xyz, batch, k)
    assert found.shape == (len(xyz), k)
    assert found.dtype == torch.int64
    assert (batch[found] == batch[:, None]).all()
    alone = torch.bincount(batch)[batch] == 1
    itself = found == torch.arange(len(xyz))[:, None]
    assert not itself[~alone].any()
    assert itself[alone].all()
    distance = (xyz[found] - xyz[:, None]).square().sum(-1)
    torch.testing.assert_close(distance, brute_force(xyz, batch, k), rtol=1e-4, atol=1e-4)
    return found


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("sizes", [(1,), (2,), (60,), (30, 1, 2, 40), (16, 17, 18)], ids=str)
def test_against_brute_force(sizes, k):
    check(*cloud(*sizes), k)


@pytest.mark.parametrize("copies", [2, 5, 9])
def test_duplicates_crowd_no_point_in(copies):
    """With more copies of a point than neighbours, its own index may be missing from the search."""
    xyz, _ = cloud(4)
    check(xyz.repeat(copies, 1), torch.zeros(4 * copies, dtype=torch.long), 4)


def test_all_points_equal():
    """Ties go to the lowest index."""
    found = check(torch.ones(12, 3), torch.arange(2).repeat_interleave(6), 2)
    expected = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]])
    assert torch.equal(found, torch.cat([expected, expected + 6]))


def test_collinear_points():
    xyz = torch.zeros(10, 3)
    xyz[:, 0] = torch.arange(10.0)
    found = check(xyz, torch.zeros(10, dtype=torch.long), 2)
    assert found[0].tolist() == [1, 2]
    assert set(found[5].tolist()) == {4, 6}


def test_small_scan_repeats_its_farthest():
    xyz = torch.tensor([[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [0, 0, 0]])
    found = batch_neighbors(xyz, torch.tensor([0, 0, 0, 1]), 4)
    assert found.tolist() == [[1, 2, 2, 2], [0, 2, 2, 2], [1, 0, 0, 0], [3, 3, 3, 3]]


def test_no_points():
    found = batch_neighbors(torch.empty(0, 3), torch.empty(0, dtype=torch.long), 4)
    assert found.shape == (0, 4)


def test_scan_numbers_may_have_gaps():
    xyz, batch = cloud(10, 12)
    assert torch.equal(batch_neighbors(xyz, 3 * batch + 1, 3), batch_neighbors(xyz, batch, 3))


def test_no_gradient_passes():
    xyz, batch = cloud(8)
    assert not batch_neighbors(xyz.requires_grad_(), batch, 2).requires_grad


def test_agrees_with_the_loaders():
    """A loader that hands in neighbours hands in the same ones."""
    batching = pytest.importorskip("pc_data.batch")
    xyz = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    xyz[40:] = xyz[:10]
    theirs = batching.nearest_neighbors(xyz, 6)
    ours = batch_neighbors(torch.from_numpy(xyz), torch.zeros(50, dtype=torch.long), 6)
    np.testing.assert_array_equal(ours.numpy(), theirs)


def test_batch_must_be_sorted():
    with pytest.raises(ValueError, match="batch must be sorted, got scan 0 after 1 at point 2"):
        batch_neighbors(torch.zeros(3, 3), torch.tensor([0, 1, 0]), 1)
