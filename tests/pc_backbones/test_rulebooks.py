"""Which voxels meet, against all pairs."""

import pytest
import torch
from pc_backbones.rulebooks import halving_pairs, submanifold_pairs
from pc_backbones.voxels import VoxelGrid, find_voxels


def draw(num_points, spread, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randint(0, spread, (num_points, 3), generator=generator)
    return find_voxels(cells, torch.arange(num_points) * 3 // num_points)[0]


def stretched(grid):
    """The same voxels and a copy of them 2^20 cells away, in a box of 2^62 cells."""
    far = grid.indices + torch.tensor([0, 2**20, 2**20, 2**15], dtype=torch.int32)
    return VoxelGrid(torch.cat([grid.indices, far]), (2**21, 2**21, 2**17), grid.num_scans)


GRIDS = {
    "random": draw(120, 7),
    "crowded": draw(300, 5),
    "one voxel": draw(1, 3),
    "two voxels": VoxelGrid(torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0]]).int(), (2, 1, 1), 1),
    "wrap": VoxelGrid(torch.tensor([[0, 0, 0, 2], [0, 0, 1, 0], [1, 0, 0, 0]]).int(), (1, 2, 3), 2),
    "unsorted": VoxelGrid(draw(120, 7).indices.flip(0), (7, 7, 7), 3),
    "wide": stretched(draw(120, 7)),
}


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


def listed(pairs, count):
    """Return the pairs (neighbour, voxel) of each tap, those past the centre as mirrored."""
    count = count.tolist()
    if len(count) % 2:
        count = [max(both) for both in zip(count, reversed(count), strict=True)]
    return [sorted(map(tuple, pairs[:, tap, :n].T.tolist())) for tap, n in enumerate(count)]


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_submanifold_pairs(grid, kernel_size):
    reach = kernel_size // 2
    difference = grid.indices[:, None] - grid.indices  # [neighbour voxel 4]
    same_scan = difference[..., 0] == 0
    expected = []
    for tap in range(kernel_size**3):
        x, y, z = tap // kernel_size**2, tap // kernel_size % kernel_size, tap % kernel_size
        step = torch.tensor([x, y, z]) - reach
        meets = same_scan & (difference[..., 1:] == step).all(-1)
        expected.append([] if not step.any() else sorted(map(tuple, meets.nonzero().tolist())))
    pairs, count = submanifold_pairs(grid, kernel_size)
    assert pairs.dtype == count.dtype == torch.int32
    assert listed(pairs, count) == expected


def test_halving_pairs(grid):
    halved, tables = halving_pairs(grid)
    parents = torch.cat([grid.indices[:, :1], grid.indices[:, 1:] // 2], dim=1)
    assert torch.equal(halved.indices, parents.unique(dim=0).int())
    assert halved.shape == tuple(-(-size // 2) for size in grid.shape)
    assert halved.num_scans == grid.num_scans
    seen = []
    for tap, found in enumerate(listed(*tables)):
        for fine, coarse in found:
            assert torch.equal(halved.indices[coarse], parents[fine])
            x, y, z = (grid.indices[fine, 1:] % 2).tolist()
            assert tap == 4 * x + 2 * y + z
            seen.append(fine)
    assert sorted(seen) == list(range(len(grid.indices)))


def test_too_large_with_its_border():
    edge = (2**21, 2**21, 2**21 - 1)  # itself below 2^63
    grid = VoxelGrid(torch.tensor([[0, 0, 0, 0]]).int(), edge, 1)
    with pytest.raises(ValueError, match=r"1 scans of 2097154 x .* are more than 2\^63; drop far"):
        submanifold_pairs(grid, 3)
