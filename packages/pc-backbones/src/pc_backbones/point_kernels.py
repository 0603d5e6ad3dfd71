"""Sampling and neighbour search in plain torch, for any device: exact, in bounded memory.

Each gives the indices that `pc_geometry` gives on a CPU, ties and duplicates included. Squared
distances are computed in the precision of the points, summed in the order of the axes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_CHUNK = 2**22  # distances held at once: some 100 MB with what is derived from them


def squared_distances(
    query: Float[Tensor, "m 3"], points: Float[Tensor, "n 3"]
) -> Float[Tensor, "m n"]:
    """All squared distances; their rounding depends on no library."""
    x, y, z = (query[:, None, axis] - points[None, :, axis] for axis in range(3))
    return x.mul_(x).add_(y.mul_(y)).add_(z.mul_(z))


def sample_scans(
    xyz: Float[Tensor, "n 3"],
    sizes: Sequence[int],
    num_samples: int,
    allowed: Bool[Tensor, " n"],
) -> list[Int64[Tensor, " s"]]:
    """Sample farthest points of all scans at once, from the first point of each.

    Args:
        xyz: Points, scan by scan.
        sizes: How many points each scan has, one at least.
        num_samples: How many to choose.
        allowed: Points that may be chosen; the first of a scan is, whatever is said here.

    Returns:
        Of each scan, indices into its own points; a scan with fewer that may be chosen gives all.
    """
    first = torch.tensor([0, *sizes[:-1]], device=xyz.device).cumsum(0)
    allowed = allowed.index_fill(0, first, True)
    counts = [min(int(part.sum()), num_samples) for part in allowed.split(list(sizes))]
    free = torch.where(allowed, torch.inf, -1.0).to(xyz.dtype)
    padded = pad_sequence(list(xyz.split(list(sizes))), batch_first=True)  # [b n 3]
    axes = padded.permute(2, 0, 1).contiguous()  # [3 b n]
    free = list(free.split(list(sizes)))
    distance = pad_sequence(free, batch_first=True, padding_value=-1.0)
    position = torch.zeros_like(first)[:, None]
    chosen = position.new_zeros(len(sizes), max(counts))
    taken = distance.new_full(position.shape, -1)
    for step in range(chosen.shape[1]):
        chosen[:, step : step + 1] = position
        offset = axes - axes.gather(2, position.expand(3, -1, 1))
        x, y, z = offset.mul_(offset)
        distance.scatter_(1, position, taken)
        torch.minimum(distance, x.add_(y).add_(z), out=distance)
        position = distance.argmax(1, keepdim=True)  # the first of equals
    return [row[:count] for row, count in zip(chosen, counts, strict=True)]


def balls_of_scan(
    centers: Float[Tensor, "s 3"], points: Float[Tensor, "n 3"], radius: float, num: int
) -> Int64[Tensor, "s num"]:
    """List the first points of one scan closer than the radius to each centre, in index order.

    Rows with fewer repeat their first one; every centre must be one of the points.
    """
    limit = points.new_tensor(radius).square()
    column = torch.arange(len(points), device=points.device)
    place = torch.arange(num, device=points.device)
    found = []
    for part in centers.split(max(_CHUNK // len(points), 1)):
        inside = squared_distances(part, points) < limit
        rank = inside.cumsum(1, dtype=torch.int32)
        # What is outside or comes too late all falls into one more column.
        slot = torch.where(inside & (rank <= num), rank - 1, num).long()
        row = column.new_zeros(len(part), num + 1)
        row.scatter_(1, slot, column.expand(len(part), -1))
        found.append(torch.where(place < rank[:, -1:], row[:, :num], row[:, :1]))
    return torch.cat(found)


def nearest_of_scan(
    query: Float[Tensor, "m 3"], points: Float[Tensor, "n 3"], k: int
) -> Int64[Tensor, "m k"]:
    """Find the k nearest points of one scan, nearest first; compared as float32, ties by index."""
    column = torch.arange(len(points), device=points.device)
    found = [query.new_empty((0, k), dtype=torch.long)]
    for part in query.split(max(_CHUNK // len(points), 1)):
        # The bits of floats that are not negative sort like their values; the index comes below.
        bits = squared_distances(part, points).float().view(torch.int32).long()
        rank = bits.bitwise_left_shift_(32).bitwise_or_(column)
        found.append(rank.topk(k, largest=False, sorted=True).values.bitwise_and_(0xFFFFFFFF))
    return torch.cat(found)
