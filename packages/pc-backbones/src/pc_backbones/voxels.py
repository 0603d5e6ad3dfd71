"""Occupied voxels of a packed batch, and the way between points and their voxel."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional

_MAX_CELL = 2**53  # float64 holds every integer up to here
_MAX_COORDINATE = 2**31 - 1  # of spconv
_MAX_KEY = 2**63 - 1


class VoxelGrid(NamedTuple):
    """The occupied voxels of a packed batch at one resolution.

    Attributes:
        indices: Scan and x, y, z of each voxel, counted from 0 in each scan; no row comes twice.
        shape: Number of voxels along x, y and z that hold every scan.
        num_scans: Number of scans; one may be without voxels.
    """

    indices: Int32[Tensor, "v 4"]
    shape: tuple[int, int, int]
    num_scans: int


class Occupants(NamedTuple):
    """Which points are in which voxel.

    Attributes:
        voxel: Row of each point's voxel.
        order: Points sorted by voxel; within a voxel in their own order.
        starts: Where each voxel begins in `order`.
    """

    voxel: Int64[Tensor, " n"]
    order: Int64[Tensor, " n"]
    starts: Int64[Tensor, " v"]


def cartesian_cells(xyz: Float[Tensor, "n 3"], voxel_size: float) -> Int64[Tensor, "n 3"]:
    """Compute the cell of each point: floor(xyz / voxel_size), in float64.

    Raises:
        ValueError: If a coordinate is not finite or more than 2^53 cells from the origin.
    """
    return _floor(xyz.double() / voxel_size)


def cylindrical_cells(xyz: Float[Tensor, "n 3"], voxel_size: float) -> Int64[Tensor, "n 3"]:
    """Compute the cylindrical cell of each point: one degree wide, `voxel_size` deep and high.

    The azimuth does not wrap: the cells on both sides of its seam, behind the sensor, are no
    neighbours.

    Raises:
        ValueError: If a coordinate is not finite or more than 2^53 cells from the origin.

    Source: SLidR (Sautier et al., CVPR 2022), whose network divides a scan so; differs in
        computing in float64.
    """
    x, y, z = xyz.double().unbind(1)
    rho = torch.hypot(x, y) / voxel_size
    return _floor(torch.stack([rho, torch.rad2deg(torch.atan2(y, x)), z / voxel_size], dim=1))


def find_voxels(
    cells: Int64[Tensor, "n 3"], batch: Int64[Tensor, " n"], *, multiple: int | None = None
) -> tuple[VoxelGrid, Occupants]:
    """Find the occupied voxels of every scan; they come sorted by scan, x, y and z.

    Args:
        cells: Cell of each point.
        batch: Scan of each point.
        multiple: Each scan is moved by a multiple of so many cells, so that halving the grid
            divides space at the same places whatever a scan's extent. If not given, each scan is
            moved to its own minimum.

    Raises:
        ValueError: If a scan spans more voxels than can be counted.
    """
    num_scans = int(batch.max()) + 1
    first = cells.new_full((num_scans, 3), _MAX_CELL)
    first.scatter_reduce_(0, batch[:, None].expand(-1, 3), cells, "amin")
    if multiple is not None:
        first = first.div(multiple, rounding_mode="floor") * multiple
    place = cells - first[batch]
    x_size, y_size, z_size = (int(size) + 1 for size in place.amax(0).tolist())
    shape = (x_size, y_size, z_size)
    if max(shape) > _MAX_COORDINATE or num_scans * math.prod(shape) > _MAX_KEY:
        raise ValueError(
            f"{num_scans} scans span up to {x_size} x {y_size} x {z_size} voxels, more than 2^31 "
            "along an axis or 2^63 in all; drop far points or enlarge voxel_size"
        )
    key = ((batch * x_size + place[:, 0]) * y_size + place[:, 1]) * z_size + place[:, 2]
    _, voxel, count = torch.unique(key, return_inverse=True, return_counts=True)
    order = torch.argsort(voxel, stable=True)
    starts = count.cumsum(0) - count
    a_point = order[starts]
    indices = torch.cat([batch[a_point, None], place[a_point]], dim=1).int()
    return VoxelGrid(indices, shape, num_scans), Occupants(voxel, order, starts)


def mean_of_points(feat: Float[Tensor, "n c"], occupants: Occupants) -> Float[Tensor, "v c"]:
    """Average the points of each voxel."""
    return functional.embedding_bag(occupants.order, feat, occupants.starts, mode="mean")


def first_point(feat: Float[Tensor, "n c"], occupants: Occupants) -> Float[Tensor, "v c"]:
    """Take the first point of each voxel."""
    return feat.index_select(0, occupants.order[occupants.starts])


def read_voxels(values: Float[Tensor, "v c"], occupants: Occupants) -> Float[Tensor, "n c"]:
    """Give each point the value of its voxel."""
    # Not values[voxel]: its gradient is summed in whatever order the threads come.
    return functional.embedding(occupants.voxel, values)


def _floor(cells: Tensor) -> Tensor:
    cells = cells.floor()
    if not (cells.abs() < _MAX_CELL).all():
        bad = ~cells.isfinite().all(1)
        if num_bad := int(bad.sum()):
            raise ValueError(
                f"{num_bad} of {len(cells)} points have a coordinate that is not finite, the first "
                f"is point {int(bad.int().argmax())}; drop them"
            )
        raise ValueError(
            f"a point is {float(cells.abs().max()):.3g} voxels from the origin, more than 2^53; "
            "drop far points or enlarge voxel_size"
        )
    return cells.long()
