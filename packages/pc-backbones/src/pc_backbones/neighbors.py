"""Nearest neighbours inside each scan of a packed batch."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_CHUNK = 2048  # rows of the distance matrix held at once on a GPU


def batch_neighbors(
    xyz: Float[Tensor, "n 3"], batch: Int64[Tensor, " n"], k: int
) -> Int64[Tensor, "n k"]:
    """Find the k nearest neighbours of every point in its own scan, itself excluded.

    A scan of k points or fewer repeats its farthest neighbour; a lone point is its own.

    Args:
        xyz: Points in metres.
        batch: Scan of each point, sorted.
        k: Number of neighbours.

    Returns:
        Indices into the packed points, nearest first.

    Raises:
        ValueError: If `batch` is not sorted.
    """
    found = []
    start = 0
    for count in scan_sizes(batch):
        scan = xyz[start : start + count].detach()
        near = _nearest(scan, min(k + 1, count))  # [count k + 1], itself included
        found.append(_without_self(near, k) + start)
        start += count
    return torch.cat(found) if found else xyz.new_empty((0, k), dtype=torch.long)


def scan_sizes(batch: Int64[Tensor, " n"]) -> list[int]:
    """Count the points of each scan that has any.

    Raises:
        ValueError: If `batch` is not sorted.
    """
    falls = batch[1:] < batch[:-1]
    if falls.any():
        row = int(falls.int().argmax()) + 1
        raise ValueError(
            f"batch must be sorted, got scan {int(batch[row])} after {int(batch[row - 1])} at "
            f"point {row}; reorder the points scan by scan"
        )
    return torch.unique_consecutive(batch, return_counts=True)[1].tolist()


def _nearest(scan: Tensor, k: int) -> Tensor:
    if not scan.is_cuda:
        from pc_geometry import knn

        points = scan.float().numpy()
        return torch.from_numpy(knn(points, points, k)[1])
    return torch.cat(
        [
            torch.cdist(part, scan, compute_mode="donot_use_mm_for_euclid_dist")
            .topk(k, largest=False, sorted=True)
            .indices
            for part in scan.split(_CHUNK)
        ]
    )


def _without_self(near: Tensor, k: int) -> Tensor:
    """Drop each row's own index (or its last, where duplicates crowd it out); pad to k."""
    own = torch.arange(len(near), device=near.device)[:, None]
    if near.shape[1] == 1:
        return own.expand(-1, k)
    last = near.shape[1] - 1
    is_self = near == own
    position = torch.where(is_self.any(1), is_self.int().argmax(1), last)[:, None]
    column = torch.arange(last, device=near.device)
    others = near.gather(1, column + (column >= position))
    padding = others[:, -1:].expand(-1, k - last)
    return torch.cat([others, padding], dim=1)
