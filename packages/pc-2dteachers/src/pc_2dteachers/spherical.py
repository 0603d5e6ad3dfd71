"""Spherical k-means: clusters of directions."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_ROWS_AT_ONCE = 16384
_TINY = 1e-6


def spherical_kmeans(
    unit: Float[Tensor, "n c"], num_clusters: int, *, max_iterations: int = 100, seed: int = 0
) -> Float[Tensor, "k c"]:
    """Find the unit vectors that unit vectors gather around, by cosine similarity.

    On a CPU the same input and seed give the same centroids; a GPU adds in no fixed order. A
    cluster that loses its last member starts anew at one of the vectors that are farthest from
    their own centroids.

    Args:
        unit: Vectors of length 1.
        num_clusters: How many.
        max_iterations: Rounds of assignment, unless none changes earlier.
        seed: Of the first centroids (k-means++); the global generator is left as it was.

    Returns:
        Centroids of length 1.

    Raises:
        ValueError: If there are fewer vectors than clusters, or a setting is out of range.

    Source: concept decompositions (Dhillon and Modha, Machine Learning 2001); seeding: k-means++
        (Arthur and Vassilvitskii, SODA 2007).
    """
    if not 1 <= num_clusters <= len(unit):
        raise ValueError(
            f"num_clusters must be in [1, {len(unit)}] (the number of vectors), got {num_clusters}"
        )
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be 1 or more, got {max_iterations}")
    centroids = _first_centroids(unit, num_clusters, seed)
    before = None
    for _ in range(max_iterations):
        similarity, cluster = nearest_centroid(unit, centroids)
        if before is not None and torch.equal(cluster, before):
            break
        centroids = _mean_directions(unit, cluster, similarity, num_clusters)
        before = cluster
    return centroids


def nearest_centroid(
    unit: Float[Tensor, "n c"], centroids: Float[Tensor, "k c"]
) -> tuple[Float[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return each vector's similarity to its nearest centroid, and which one that is."""
    parts = [(rows @ centroids.T).max(dim=1) for rows in unit.split(_ROWS_AT_ONCE)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _first_centroids(unit: Tensor, num_clusters: int, seed: int) -> Tensor:
    """k-means++: each next one is drawn by its squared distance to those before."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(num_clusters, generator=generator, dtype=torch.float64).to(unit.device)
    distance = torch.ones(len(unit), dtype=torch.float64, device=unit.device)
    picked = []
    for draw in draws:
        total = distance.cumsum(0)
        pick = int(torch.searchsorted(total, draw * total[-1], right=True).clamp(max=len(unit) - 1))
        picked.append(pick)
        now = (1 - (unit @ unit[pick]).double()).clamp(min=0)
        distance = now if len(picked) == 1 else torch.minimum(distance, now)
    return unit[picked].clone()


def _mean_directions(
    unit: Tensor, cluster: Tensor, similarity: Tensor, num_clusters: int
) -> Tensor:
    total = unit.new_zeros(num_clusters, unit.shape[1]).index_add_(0, cluster, unit)
    length = total.norm(dim=1, keepdim=True)
    centroids = total / length.clamp(min=_TINY)
    lost = torch.nonzero(length[:, 0] < _TINY)[:, 0]  # no member, or members that cancel out
    if len(lost):
        farthest = similarity.argsort(stable=True)[: len(lost)]
        centroids[lost] = unit[farthest]
    return centroids
