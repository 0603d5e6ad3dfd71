"""Which voxel meets which under each tap of a sparse convolution's kernel.

spconv keeps its keys on a CPU in 32 bits and confuses voxels of grids larger than 2^31 without a
word (a street at 5 cm is larger); these tables are exact up to 2^63.
"""

import math

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from pc_backbones.voxels import VoxelGrid

Pairs = tuple[Int32[Tensor, "2 t v"], Int32[Tensor, " t"]]


def submanifold_pairs(grid: VoxelGrid, kernel_size: int) -> Pairs:
    """Pair every voxel with its neighbours in a cube of odd side, itself excluded.

    Returns:
        Rows of the neighbour and of the voxel under each tap, and how many of them count; of the
        taps past the centre the number stays zero, they are those before it mirrored.

    Raises:
        ValueError: If the grid with its border has more than 2^63 cells.
    """
    reach = kernel_size // 2
    key, strides = _keys(grid, border=reach)
    key, row = key.sort()
    past_end = torch.cat([key, key.new_full((1,), -1)])
    num_taps = kernel_size**3
    rows = row.int()
    pairs = rows.new_empty((2, num_taps, len(row)))
    count = [0] * num_taps
    for column in range(kernel_size**2 // 2 + 1):  # of taps along z, up to the centre's own
        shift = (column // kernel_size - reach) * strides[0]
        shift += (column % kernel_size - reach) * strides[1] - reach
        position = torch.searchsorted(key, key + shift)
        for tap in range(column * kernel_size, (column + 1) * kernel_size):
            if tap == num_taps // 2:
                break
            hit = past_end[position] == key + (shift + tap % kernel_size)
            here = hit.nonzero()[:, 0]
            count[tap] = len(here)
            pairs[0, tap, : len(here)] = rows[position[here]]
            pairs[1, tap, : len(here)] = rows[here]
            position += hit  # the next tap's voxel, if there is one, is the next in the list
    centre = num_taps // 2
    pairs[:, centre + 1 :] = pairs[:, :centre].flip(0, 1)
    return pairs, torch.tensor(count, dtype=torch.int32, device=row.device)


def halving_pairs(grid: VoxelGrid) -> tuple[VoxelGrid, Pairs]:
    """Pair every voxel with the one of twice the size that it is in.

    Returns:
        The larger voxels, sorted, and for each of the eight places in them the rows of the small
        and of the large voxel, and how many.
    """
    scan, place = grid.indices[:, :1], grid.indices[:, 1:]
    x_size, y_size, z_size = ((size + 1) // 2 for size in grid.shape)
    halved = torch.cat([scan, place >> 1], dim=1)
    halved = VoxelGrid(halved, (x_size, y_size, z_size), grid.num_scans)
    key, strides = _keys(halved, border=0)
    key, parent = torch.unique(key, return_inverse=True)
    scan = key // (x_size * strides[0])
    place_in_scan = (key // strides[0] % x_size, key // strides[1] % y_size, key % z_size)
    indices = torch.stack([scan, *place_in_scan], dim=1).int()

    octant = ((place & 1) << torch.tensor([2, 1, 0], device=place.device)).sum(1)
    order = torch.argsort(octant, stable=True)
    count = torch.bincount(octant, minlength=8)
    pairs = indices.new_empty((2, 8, len(order)))
    for tap, fine in enumerate(order.split(count.tolist())):
        pairs[0, tap, : len(fine)] = fine
        pairs[1, tap, : len(fine)] = parent[fine]
    return halved._replace(indices=indices), (pairs, count.int())


def _keys(grid: VoxelGrid, *, border: int) -> tuple[Int64[Tensor, " v"], tuple[int, int]]:
    """One integer a voxel, with empty cells around, and what a step along x and y adds to it."""
    shape = [size + 2 * border for size in grid.shape]
    if grid.num_scans * math.prod(shape) >= 2**63:
        raise ValueError(
            f"{grid.num_scans} scans of {' x '.join(map(str, shape))} voxels are more than 2^63; "
            "drop far points or enlarge voxel_size"
        )
    scan, x, y, z = grid.indices.long().unbind(1)
    key = ((scan * shape[0] + x + border) * shape[1] + y + border) * shape[2] + z + border
    return key, (shape[1] * shape[2], shape[2])
