"""Which voxel meets which under each tap of a sparse convolution's kernel.

spconv keeps its keys on a CPU in 32 bits and confuses voxels of grids larger than 2^31 without a
word (a street at 5 cm is larger); these tables are exact up to 2^63.
"""

import itertools
import math

import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from pc_backbones.voxels import VoxelGrid

Pairs = tuple[Int32[Tensor, "2 t v"], Int32[Tensor, " t"]]
Triple = tuple[int, int, int]


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
    key, parent = torch.unique(_keys(halved, border=0)[0], return_inverse=True)
    indices = _indices(key, halved.shape)

    octant = ((place & 1) << torch.tensor([2, 1, 0], device=place.device)).sum(1)
    order = torch.argsort(octant, stable=True)
    count = torch.bincount(octant, minlength=8)
    pairs = indices.new_empty((2, 8, len(order)))
    for tap, fine in enumerate(order.split(count.tolist())):
        pairs[0, tap, : len(fine)] = fine
        pairs[1, tap, : len(fine)] = parent[fine]
    return halved._replace(indices=indices), (pairs, count.int())


def strided_shape(shape: Triple, *, kernel_size: Triple, stride: Triple, padding: Triple) -> Triple:
    """How many voxels along x, y and z a strided convolution leaves of a grid; 0 if it is small."""
    x_size, y_size, z_size = (
        max((size + 2 * pad - kernel) // step + 1, 0)
        for size, kernel, step, pad in zip(shape, kernel_size, stride, padding, strict=True)
    )
    return x_size, y_size, z_size


def strided_pairs(
    grid: VoxelGrid, *, kernel_size: Triple, stride: Triple, padding: Triple
) -> tuple[VoxelGrid, Pairs]:
    """Pair every voxel with those that a strided convolution makes of it.

    Returns:
        All voxels that a kernel over the grid, padded on every side, finds a voxel for, sorted;
        and under each tap of the kernel the rows of the read and of the made voxel, and how many.

    Raises:
        ValueError: If the made grid has more than 2^63 cells.
    """
    shape = strided_shape(grid.shape, kernel_size=kernel_size, stride=stride, padding=padding)
    made = grid._replace(indices=grid.indices[:0], shape=shape)
    _, strides = _keys(made, border=0)
    scan = grid.indices[:, 0].long() * shape[0] * strides[0]
    meets, key = [], []  # for every tap along an axis: does it meet a voxel, and what it makes
    for axis, step in enumerate((*strides, 1)):
        tap = torch.arange(kernel_size[axis], device=scan.device)
        place = grid.indices[:, 1 + axis].long() + padding[axis] - tap[:, None]
        target = place.div(stride[axis], rounding_mode="floor")
        inside = (target >= 0) & (target < shape[axis])
        meets.append(inside & (target * stride[axis] == place))
        key.append(target * step)
    here, keys = [], []
    for x, y, z in itertools.product(*map(range, kernel_size)):
        rows = (meets[0][x] & meets[1][y] & meets[2][z]).nonzero()[:, 0]
        here.append(rows)
        keys.append(scan[rows] + key[0][x, rows] + key[1][y, rows] + key[2][z, rows])
    made_keys, row = torch.unique(torch.cat(keys), return_inverse=True)
    made = made._replace(indices=_indices(made_keys, shape))

    count = [len(rows) for rows in here]
    pairs = made.indices.new_empty((2, len(count), len(grid.indices)))
    for tap, (source, target) in enumerate(zip(here, row.split(count), strict=True)):
        pairs[0, tap, : len(source)] = source
        pairs[1, tap, : len(source)] = target
    return made, (pairs, torch.tensor(count, dtype=torch.int32, device=row.device))


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


def _indices(key: Int64[Tensor, " v"], shape: Triple) -> Int32[Tensor, "v 4"]:
    """Scan and place that `_keys` without border made a key of."""
    x_size, y_size, z_size = shape
    rest = key // z_size
    place = (rest // y_size % x_size, rest % y_size, key % z_size)
    return torch.stack([rest // y_size // x_size, *place], dim=1).int()
