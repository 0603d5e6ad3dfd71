"""Voxels of packed scans against loops over points."""

import itertools
import math

import pytest
import torch
from pc_backbones.voxels import (
    cartesian_cells,
    cylindrical_cells,
    find_voxels,
    first_point,
    mean_of_points,
    read_voxels,
)


def cloud(*sizes, seed=0, spread=6):
    """Return (cells, batch) with many points a cell."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(-spread, spread, (sum(sizes), 3), generator=generator)
    return cells, torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def by_hand(cells, batch):
    """Points of each (scan, x, y, z), counted from the scan's own minimum, in sorted order."""
    points = {}
    for row, (cell, scan) in enumerate(zip(cells, batch, strict=True)):
        place = (cell - cells[batch == scan].amin(0)).tolist()
        points.setdefault((int(scan), *place), []).append(row)
    return dict(sorted(points.items()))


@pytest.mark.parametrize("sizes", [(1,), (2,), (300,), (80, 1, 150), (40, 0, 40)], ids=str)
def test_against_loops(sizes):
    cells, batch = cloud(*sizes)
    grid, occupants = find_voxels(cells, batch)
    expected = by_hand(cells, batch)
    assert grid.indices.dtype == torch.int32
    assert grid.indices.tolist() == [list(voxel) for voxel in expected]
    assert grid.num_scans == len(sizes)
    assert grid.shape == tuple((grid.indices[:, 1:].amax(0) + 1).tolist())
    rows = occupants.order.tensor_split(occupants.starts[1:])
    assert [row.tolist() for row in rows] == list(expected.values())
    for voxel, points in enumerate(expected.values()):
        assert (occupants.voxel[points] == voxel).all()


def test_scan_numbers_may_be_sparse_and_points_unsorted():
    cells, batch = cloud(30, 20)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    grid, occupants = find_voxels(cells[order], 3 * batch[order] + 1)
    plain, whose = find_voxels(cells, batch)
    assert torch.equal(grid.indices[:, 1:], plain.indices[:, 1:])
    assert torch.equal(grid.indices[:, 0], 3 * plain.indices[:, 0] + 1)
    assert torch.equal(occupants.voxel, whose.voxel[order])


def test_lattice_stays_with_the_frame():
    cells, batch = cloud(40, 30)
    cells = cells + torch.tensor([37, -21, 5])
    grid, occupants = find_voxels(cells, batch, multiple=16)
    assert ((cells - grid.indices[occupants.voxel, 1:]) % 16 == 0).all()
    for scan in range(2):
        least = grid.indices[grid.indices[:, 0] == scan, 1:].amin(0)
        assert ((least >= 0) & (least < 16)).all()


def test_scans_far_apart_do_not_mix():
    """Keys of the whole box would not fit 63 bits if scans shared their minimum."""
    corners = torch.tensor(list(itertools.product((0, 1000), repeat=3)))
    cells = torch.cat([corners, corners + 2**45])
    grid, _ = find_voxels(cells, torch.arange(2).repeat_interleave(8))
    assert len(grid.indices) == 16
    assert grid.shape == (1001, 1001, 1001)


def test_wide_scan_is_counted_exactly():
    """2^62 cells: far beyond what 32 bits tell apart."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 2**20, (500, 3), generator=generator)
    cells[:2] = torch.tensor([[0, 0, 0], [2**21 - 1, 2**21 - 1, 2**20 - 1]])
    grid, occupants = find_voxels(cells, torch.zeros(500, dtype=torch.long))
    assert torch.equal(grid.indices[occupants.voxel, 1:].long(), cells)


@pytest.mark.parametrize("far", [(2**31, 0, 0), (2**21, 2**21, 2**21), (2**52, 2**52, 0)], ids=str)
def test_too_many_voxels(far):
    cells = torch.tensor([(0, 0, 0), far])
    with pytest.raises(ValueError, match=r"1 scans span up to \d+ x .*drop far points or enlarge"):
        find_voxels(cells, torch.zeros(2, dtype=torch.long))


def test_cells_are_computed_in_double_precision():
    xyz = torch.tensor([[0.04, -0.04, 0.06], [-0.01, 0.0, 1e4]])
    expected = [[math.floor(float(x) / 0.02) for x in row] for row in xyz]
    assert cartesian_cells(xyz, 0.02).tolist() == expected


def test_cylindrical_cells():
    degrees = torch.tensor([0.5, 45.5, 179.5, -0.5, -90.5, -179.5]).double()
    rho = torch.tensor([0.05, 1.05, 2.55, 30.05, 3.05, 9.95]).double()
    phi = torch.deg2rad(degrees)
    xyz = torch.stack([rho * phi.cos(), rho * phi.sin(), rho - 3.0], dim=1)
    cells = cylindrical_cells(xyz.float(), 0.1)
    assert cells[:, 0].tolist() == [0, 10, 25, 300, 30, 99]
    assert cells[:, 1].tolist() == [0, 45, 179, -1, -91, -180]
    assert cells[:, 2].tolist() == [-30, -20, -5, 270, 0, 69]


@pytest.mark.parametrize("to_cells", [cartesian_cells, cylindrical_cells])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite(to_cells, value):
    xyz = torch.zeros(5, 3)
    xyz[3, 1] = value
    with pytest.raises(
        ValueError, match=r"1 of 5 points have a coordinate that is not finite, .* 3"
    ):
        to_cells(xyz, 0.1)


def test_too_far_from_the_origin():
    with pytest.raises(ValueError, match=r"a point is 1e\+31 voxels from the origin"):
        cartesian_cells(torch.tensor([[1e30, 0, 0]]), 0.1)


@pytest.fixture
def occupants():
    return find_voxels(*cloud(90, 1, 60, spread=3))[1]


def in_double(function, values, occupants):
    """Check a function of points or voxels against autograd's numerical gradient."""
    values = values.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: function(v, occupants), values)
    return function(values, occupants).detach()


def test_mean_of_points(occupants):
    feat = torch.randn(151, 2)
    out = in_double(mean_of_points, feat, occupants)
    for voxel in range(len(out)):
        mean = feat[occupants.voxel == voxel].double().mean(0)
        torch.testing.assert_close(out[voxel], mean)


def test_mean_of_one_point_is_the_point():
    occupants = find_voxels(torch.arange(60).view(20, 3), torch.zeros(20, dtype=torch.long))[1]
    feat = torch.randn(20, 4)
    assert torch.equal(mean_of_points(feat, occupants), feat)


def test_first_point(occupants):
    feat = torch.randn(151, 2)
    out = in_double(first_point, feat, occupants)
    for voxel in range(len(out)):
        first = (occupants.voxel == voxel).nonzero()[0, 0]
        assert torch.equal(out[voxel], feat[first].double())


def test_read_voxels(occupants):
    values = torch.randn(len(occupants.starts), 2)
    out = in_double(read_voxels, values, occupants)
    assert torch.equal(out, values[occupants.voxel].double())
