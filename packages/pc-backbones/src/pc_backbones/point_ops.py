"""Farthest points, balls and interpolation over packed scans, as PointNet++ needs them.

On a CPU by the kernels of `pc_geometry`, on another device by `pc_backbones.point_kernels`: the
same indices either way. None of them passes a gradient to coordinates.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int64
from pc_geometry import farthest_point_sample, knn, radius_neighbors
from torch import Tensor
from torch.nn import functional

from pc_backbones.point_kernels import balls_of_scan, nearest_of_scan, sample_scans

_NEAR_ORIGIN = 1e-3  # squared
_MARGIN = 1e-5  # relative; above the rounding of a float32 distance


@torch.no_grad()
def sample_farthest(
    xyz: Float[Tensor, "n 3"],
    sizes: Sequence[int],
    num_samples: int,
    *,
    skip_origin: bool = False,
) -> tuple[Int64[Tensor, " s"], list[int]]:
    """Choose points of each scan, from its first on each the farthest from those before.

    A scan of fewer points gives each of them once. Copies, with which arrays of one size fill up,
    would say nothing new and count again in a batch norm. Ties go to the lowest index. Sampling
    from the result gives its first ones: the samples of coarser levels are prefixes.

    Args:
        xyz: Points in metres, scan by scan.
        sizes: How many points each scan has, one at least.
        num_samples: How many to choose of each.
        skip_origin: Never choose a point whose squared norm is 1e-3 or less, but for a scan's first
            one. The code with which PointNet++ was published does, as it fills arrays up with
            zeros. Packed scans are never filled up, so here it only leaves out real points within
            32 mm of wherever the frame's origin is; weights trained with it may want it.

    Returns:
        Indices into `xyz`, scan by scan in the order of choice, and how many each scan gives.

    Source: PointNet++ (Qi et al., NeurIPS 2017, arXiv:1706.02413), Sec. 3.2.
    """
    allowed = xyz.square().sum(1) > _NEAR_ORIGIN if skip_origin else xyz.new_ones(len(xyz)).bool()
    starts = _starts(sizes)
    if not _on_cpu(xyz):
        chosen = sample_scans(xyz, sizes, num_samples, allowed)
    else:
        allowed[starts] = True
        chosen = []
        for points, free in zip(xyz.split(list(sizes)), allowed.split(list(sizes)), strict=True):
            candidates = free.nonzero()[:, 0]
            scan = (points[candidates] if skip_origin else points).numpy()
            index = farthest_point_sample(scan, min(num_samples, len(scan)))
            chosen.append(candidates[torch.from_numpy(index)])
    packed = torch.cat([index + start for index, start in zip(chosen, starts, strict=True)])
    return packed, [len(index) for index in chosen]


@torch.no_grad()
def group_balls(
    xyz: Float[Tensor, "n 3"],
    sizes: Sequence[int],
    centers: Int64[Tensor, " s"],
    center_sizes: Sequence[int],
    *,
    radius: float,
    num: int,
) -> Int64[Tensor, "s num"]:
    """List the first points of its scan closer than a radius to each centre, in index order.

    Strictly closer; compared in the precision of `xyz`. A ball of fewer repeats its first one.

    Args:
        xyz: Points in metres, scan by scan.
        sizes: How many points each scan has.
        centers: Points that are centres, scan by scan.
        center_sizes: How many centres each scan has.
        radius: In metres.
        num: How many points to list.

    Returns:
        Indices into `xyz`.

    Source: PointNet++, Sec. 3.2 (ball query).
    """
    balls = _balls_on_cpu if _on_cpu(xyz) else balls_of_scan
    scans = zip(
        xyz.split(list(sizes)),
        xyz[centers].split(list(center_sizes)),
        _starts(sizes),
        strict=True,
    )
    return torch.cat([balls(middle, scan, radius, num) + start for scan, middle, start in scans])


@torch.no_grad()
def three_nearest(
    query: Float[Tensor, "m 3"],
    query_sizes: Sequence[int],
    xyz: Float[Tensor, "n 3"],
    sizes: Sequence[int],
) -> tuple[Int64[Tensor, "m 3"], Float[Tensor, "m 3"]]:
    """Find the three nearest points of its scan for each query, and what each is worth.

    A scan of fewer gives what it has; the rest is the nearest again, worth nothing.

    Returns:
        Indices into `xyz`, and weights 1 / (distance + 1e-8) that sum to 1.

    Source: PointNet++, Eq. 2. Differs as its successors' code does: by distances, not squared ones.
    """
    scans = zip(
        query.split(list(query_sizes)),
        xyz.split(list(sizes)),
        _starts(sizes),
        strict=True,
    )
    indices, weights = [], []
    for some, points, start in scans:
        k = min(3, len(points))
        index = _nearest(some, points, k)
        offset = some[:, None] - points[index]
        weight = 1 / (offset.square().sum(2).sqrt() + 1e-8)
        padding = index[:, :1].expand(-1, 3 - k)
        indices.append(torch.cat([index, padding], dim=1) + start)
        weights.append(functional.pad(weight / weight.sum(1, keepdim=True), (0, 3 - k)))
    return torch.cat(indices), torch.cat(weights)


def interpolate(
    feat: Float[Tensor, "n c"], index: Int64[Tensor, "m k"], weight: Float[Tensor, "m k"]
) -> Float[Tensor, "m c"]:
    """Sum weighted features, in float32 at least: many points may look at one."""
    table = feat.float() if feat.dtype in (torch.float16, torch.bfloat16) else feat
    # One sum instead of three gathered copies; its gradient does not depend on threads.
    summed = functional.embedding_bag(
        index, table, mode="sum", per_sample_weights=weight.to(table.dtype)
    )
    return summed.to(feat.dtype)


def _on_cpu(xyz: Tensor) -> bool:
    return xyz.device.type == "cpu"


def _starts(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes[:-1])]


def _balls_on_cpu(centers: Tensor, points: Tensor, radius: float, num: int) -> Tensor:
    # All within a little more, then exactly those closer in the precision of the points.
    found, splits = radius_neighbors(centers.numpy(), points.numpy(), radius * (1 + _MARGIN))
    index = torch.from_numpy(found)
    row = torch.from_numpy(np.repeat(np.arange(len(centers)), np.diff(splits)))
    x, y, z = (points[index] - centers[row]).square_().unbind(1)
    inside = (x + y).add_(z) < points.new_tensor(radius).square()
    index, row = index[inside], row[inside]
    count = torch.bincount(row, minlength=len(centers))
    place = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    early = place < num
    balls = index.new_zeros(len(centers), num)
    balls[row[early], place[early]] = index[early]
    return torch.where(torch.arange(num) < count[:, None], balls, balls[:, :1])


def _nearest(query: Tensor, points: Tensor, k: int) -> Tensor:
    if not _on_cpu(query):
        return nearest_of_scan(query, points, k)
    return torch.from_numpy(knn(query.numpy(), points.numpy(), k)[1])
