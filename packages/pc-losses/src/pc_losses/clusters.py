"""Clusters of a feature queue, and objectives over them whose cost does not grow with the batch."""

import math
from difflib import get_close_matches
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from pc_losses.contrast import unit_rows
from pc_losses.queue import FeatureQueue, check_features
from pc_losses.reduction import gather_rows, mean_over_processes
from pc_losses.sinkhorn import column_potential
from pc_losses.volumes import check_temperature

_BLOCK = 2**23
"""Similarities that `nearest_rows` holds at a time: 34 MB."""


class ClusteredQueue(FeatureQueue):
    """A queue whose rows carry the label of their cluster.

    `refresh` finds balanced labels for all rows. Rows that are pushed later get theirs from the
    same head and the same balance, so that none is stale: 96 scans of 300 volumes replace the
    default queue in 11 steps. Before the first refresh the head decides alone, unbalanced.

    The head learns from `head_loss`. To leave it random, freeze it by
    `queue.head.requires_grad_(False)` and do not call that: labels are then a balanced partition
    of the directions.

    Attributes:
        head: The linear map to scores of the clusters (h_g).
        labels: Cluster of each row; -1 where nothing was pushed yet.
        potential: What balances the clusters, added to `sharpness` times their scores.

    Source: SSPL (Zhang, Bai and Li, NeurIPS 2022), Sec. 3.3, which labels as Asano, Rupprecht and
        Vedaldi (ICLR 2020, arXiv:1911.05371) do; 64 clusters are best there on SemanticKITTI
        (Sec. 5.5). It tells neither when labels are renewed nor how the head is trained.
    """

    labels: Int64[Tensor, " size"]
    potential: Float[Tensor, " k"]

    def __init__(
        self,
        dim: int = 128,
        size: int = 300_000,
        *,
        num_clusters: int = 64,
        sharpness: float = 25.0,
        num_iterations: int = 20,
        tolerance: float = 0.02,
    ) -> None:
        """Start with an empty queue and a random head.

        Args:
            dim: Width of the features.
            size: How many rows to hold.
            num_clusters: K, at least 2.
            sharpness: Power of the probabilities in `sinkhorn`; 25 is that of Asano et al.
            num_iterations: Most iterations of a refresh, which goes on from the balance of the last
                one: the more often, the fewer.
            tolerance: Share of the rows that the balance may be off by; labels hardly move below.

        Raises:
            ValueError: If a number is too small.
        """
        super().__init__(dim, size)
        if num_clusters < 2:
            raise ValueError(f"num_clusters must be at least 2, got {num_clusters}; SSPL uses 64")
        self.sharpness, self.num_iterations, self.tolerance = sharpness, num_iterations, tolerance
        self.head = nn.Linear(dim, num_clusters, bias=False)
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("potential", torch.zeros(num_clusters))

    @property
    def num_clusters(self) -> int:
        """K."""
        return self.head.out_features

    @torch.no_grad()
    def push(self, feature: Float[Tensor, "b dim"]) -> Int64[Tensor, " p"]:
        """Write the rows of all processes over the oldest ones and label them.

        See `FeatureQueue.push`.
        """
        places = super().push(feature)
        self.labels[places] = self.assign(self.feature[places])
        return places

    @torch.no_grad()
    def assign(self, feature: Float[Tensor, "b dim"]) -> Int64[Tensor, " b"]:
        """Tell the cluster of each feature by the head, balanced as at the last refresh."""
        return (self.sharpness * self._scores(feature) + self.potential).argmax(dim=1)

    @torch.no_grad()
    def refresh(self) -> None:
        """Balance the clusters anew over all pushed rows, and label these.

        Every process must call it; each works on its share of the rows. Soft assignments fill all
        clusters alike; labels are their largest entries, so that clusters of labels differ in size.
        """
        count = self.num_filled
        if not count:
            return
        everyone, rank = gather_rows(self.feature.new_zeros(1, 1))  # a row a process
        rows = self.feature[:count].tensor_split(len(everyone))[rank]
        self.potential.copy_(
            column_potential(
                self._scores(rows).log_softmax(dim=1),
                sharpness=self.sharpness,
                num_iterations=self.num_iterations,
                tolerance=self.tolerance,
                start=self.potential,
                over_processes=True,
            )
        )
        labels, _ = gather_rows(self.assign(rows)[:, None].double())  # exact up to 2^53
        self.labels[:count] = labels[:, 0].long()

    def head_loss(self, *, generator: torch.Generator, num_rows: int = 4096) -> Float[Tensor, ""]:
        """Teach the head its own balanced labels: cross entropy on random rows of the queue.

        No gradient reaches the features. Mean over the rows of all processes; a zero that can be
        back-propagated while nothing was pushed.

        Args:
            generator: Source of the draw.
            num_rows: How many rows to draw, with replacement; 64 a cluster at the default K.

        Source: Asano et al. (ICLR 2020), Eq. 1, with the queue as the data set. Our choice: SSPL
            states no objective for the head, and the paper's clusters are those of Asano et al.
        """
        count = self.num_filled
        drawn = torch.randint(
            max(count, 1), (num_rows if count else 0,), generator=generator, device=generator.device
        ).to(self.labels.device)
        scores = self._scores(self.feature[drawn])
        return mean_over_processes(
            functional.cross_entropy(scores, self.labels[drawn], reduction="none")
        )

    def _scores(self, feature: Tensor) -> Float[Tensor, "b k"]:
        with torch.autocast(feature.device.type, enabled=False):
            return self.head(unit_rows(feature).to(self.head.weight.dtype))


@torch.no_grad()
def nearest_rows(
    key: Float[Tensor, "v c"], feature: Float[Tensor, "q c"], labels: Int64[Tensor, " q"]
) -> Int64[Tensor, " v"]:
    """Find for each key the row of the queue that points most nearly its way.

    Of unit vectors it is also the nearest one. Rows labelled -1 are passed over; -1 if no other is
    left. Memory does not depend on the size of the queue.
    """
    with torch.autocast(key.device.type, enabled=False):
        key = unit_rows(key).to(feature.dtype)
        best = key.new_full((len(key),), -torch.inf)
        nearest = labels.new_full((len(key),), -1)
        shut = torch.where(labels < 0, -torch.inf, 0.0).to(feature.dtype)
        num_rows = max(_BLOCK // max(len(key), 1), 1)
        for first in range(0, len(feature), num_rows):
            block = slice(first, first + num_rows)
            cosine, row = torch.addmm(shut[block], key, feature[block].T).max(dim=1)
            closer = cosine > best
            best = torch.where(closer, cosine, best)
            nearest = torch.where(closer, row + first, nearest)
        return nearest


def cluster_info_nce(
    query: Float[Tensor, "v c"],
    key: Float[Tensor, "v c"],
    feature: Float[Tensor, "q c"],
    labels: Int64[Tensor, " q"],
    *,
    num_clusters: int,
    generator: torch.Generator,
    negatives: Literal["other", "hard", "random"] = "other",
    num_negatives: int = 20_000,
    max_lookups: int | None = None,
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Contrast one volume of each cluster with rows of a queue: ClusterInfoNCE.

    A volume is of the cluster of the queue's row nearest to its key. For each cluster that occurs
    among the volumes of this process one is drawn: its query should pick that nearest row among it
    and the negatives, rows of the queue. The loss is the mean over the clusters that occur, over
    all processes (see `mean_over_processes`). None give a zero that can be back-propagated, as
    while no row is labelled: wait until the queue is `full` before this loss counts.

    Queries alone get gradients. The draws are each process's own, so two processes with a batch
    each see up to 2 K terms where one with both sees up to K. The queue may be pushed to before the
    backward pass.

    Time and memory do not grow with v, once it is above `max_lookups`: the search is over
    `max_lookups` * q, the scores are K * `num_negatives`.

    Args:
        query: Features of the volumes in the first view, of any length; L2-normalised here.
        key: Features of the same volumes from the momentum network; they only look up.
        feature: Rows of the queue, of length 1: of a `ClusteredQueue`.
        labels: Cluster of each row, -1 = none: neither found nor a negative.
        num_clusters: K, at least 2; labels are below it.
        generator: Source of the draws of volumes and negatives, in this order.
        negatives: The queue's rows to draw from: of clusters "other" than the own one, as many of
            each; "hard": of the own one; "random": of any. The last two do worse in Sec. 5.4.
        num_negatives: How many negatives a query has, where there are so many. With "other" a K-1th
            of each cluster, rounded up; all queries share one draw of rows. "hard" scores up to
            this many of every cluster that occurs.
        max_lookups: How many random volumes to look up at most. Default: 8 K, for one of a cluster
            is drawn anyway; a cluster of less than about 1 / (8 K) of the volumes may be missed.
        temperature: What the cosines are divided by, above 0.

    Raises:
        ValueError: If shapes do not fit, a label is not below `num_clusters`, `negatives` is
            unknown or a number is too small.

    Source: SSPL (Zhang, Bai and Li, NeurIPS 2022), Eq. 2 and Sec. 5.4. The sum in Eq. 2's
        denominator is read as the positive plus the negatives, whose clusters exclude i by
        Sec. 5.4; the mean is over the clusters that occur, where Eq. 2 divides by K.
    """
    check_temperature(temperature)
    check_features(query, key, feature)
    _check_draws(feature, labels, negatives, num_clusters, num_negatives, max_lookups)
    limit = 8 * num_clusters if max_lookups is None else max_lookups
    device = query.device
    with torch.autocast(device.type, enabled=False):
        order = _shuffle(len(query), generator, device)[:limit]
        positive = nearest_rows(key[order], feature, labels)
        order, positive = order[positive >= 0], positive[positive >= 0]
        first = _first_of_each(labels[positive], num_clusters)
        volume, positive = order[first], positive[first]
        cluster = labels[positive]

        draw = _STRATEGIES[negatives]
        pool, is_negative = draw(labels, cluster, num_clusters, num_negatives, generator)
        is_negative &= pool != positive[:, None]

        chosen = unit_rows(query[volume]) / temperature
        own = (chosen * feature[positive].to(chosen.dtype)).sum(dim=1, keepdim=True)
        other = chosen @ feature[pool].to(chosen.dtype).T  # [clusters pool]
        scores = torch.cat([own, other.masked_fill(~is_negative, -torch.inf)], dim=1)
        return mean_over_processes(scores.logsumexp(dim=1) - own[:, 0])


def cluster_classification(
    query: Float[Tensor, "v k"], key: Float[Tensor, "v k"], labels: Int64[Tensor, " v"]
) -> Float[Tensor, ""]:
    """Classify the volumes of both views: the sum of the two cross entropies.

    Mean over the labelled volumes of all processes (see `mean_over_processes`); none give a zero
    that can be back-propagated. With `nearest_rows` all volumes' labels cost v * q products, so
    give some volumes only where there are many.

    Args:
        query: Scores of the clusters that a linear head (h_l) gives each volume in the first view.
        key: Those it gives in the second view; the head learns from both.
        labels: Cluster of each volume, that of its nearest row of the queue; -1 = left out.

    Raises:
        ValueError: If shapes do not fit.

    Source: SSPL (Zhang, Bai and Li, NeurIPS 2022), Eq. 4, which does worse than no global objective
        there. Differs by the mean where Eq. 4 sums.
    """
    if query.ndim != 2 or query.shape != key.shape or labels.shape != query.shape[:1]:
        raise ValueError(
            "query and key must both be [v, k] and labels [v], got "
            f"{list(query.shape)}, {list(key.shape)} and {list(labels.shape)}"
        )
    known = labels >= 0
    with torch.autocast(query.device.type, enabled=False):
        terms = [
            functional.cross_entropy(_single(side[known]), labels[known], reduction="none")
            for side in (query, key)
        ]
        return mean_over_processes(terms[0] + terms[1])


def _single(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _shuffle(num: int, generator: torch.Generator, device: torch.device) -> Int64[Tensor, " n"]:
    return torch.randperm(num, generator=generator, device=generator.device).to(device)


def _first_of_each(cluster: Tensor, num_clusters: int) -> Int64[Tensor, " m"]:
    """Where each cluster that occurs does so first, in order of cluster."""
    num = len(cluster)
    first = cluster.new_full((num_clusters,), num)
    first = first.scatter_reduce(0, cluster, torch.arange(num, device=cluster.device), "amin")
    return first[first < num]


def _other_clusters(
    labels: Tensor, cluster: Tensor, num_clusters: int, num: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " p"], Bool[Tensor, "m p"]]:
    """Rows drawn for all clusters together, and which of them are negatives of which cluster."""
    pool = _rows_of_each(labels, math.ceil(num / (num_clusters - 1)), generator)
    return pool, labels[pool] != cluster[:, None]


def _own_cluster(
    labels: Tensor, cluster: Tensor, _num_clusters: int, num: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " p"], Bool[Tensor, "m p"]]:
    occurring = torch.where(torch.isin(labels, cluster), labels, -1)
    pool = _rows_of_each(occurring, num, generator)
    return pool, labels[pool] == cluster[:, None]


def _any_cluster(
    labels: Tensor, cluster: Tensor, _num_clusters: int, num: int, generator: torch.Generator
) -> tuple[Int64[Tensor, " p"], Bool[Tensor, "m p"]]:
    pool = _labelled_rows(labels, generator)[:num]
    return pool, torch.ones(len(cluster), len(pool), dtype=torch.bool, device=labels.device)


_STRATEGIES = {"other": _other_clusters, "hard": _own_cluster, "random": _any_cluster}


def _labelled_rows(labels: Tensor, generator: torch.Generator) -> Int64[Tensor, " p"]:
    """All of them, in random order."""
    order = _shuffle(len(labels), generator, labels.device)
    return order[labels[order] >= 0]


def _rows_of_each(labels: Tensor, limit: int, generator: torch.Generator) -> Int64[Tensor, " p"]:
    """Up to `limit` random rows of each cluster, each at most once."""
    order = _labelled_rows(labels, generator)
    order = order[labels[order].argsort(stable=True)]
    grouped = labels[order]
    counts = grouped.bincount()
    place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[grouped]
    return order[place < limit]


def _check_draws(
    feature: Tensor,
    labels: Tensor,
    negatives: str,
    num_clusters: int,
    num_negatives: int,
    max_lookups: int | None,
) -> None:
    if negatives not in _STRATEGIES:
        near = get_close_matches(negatives, _STRATEGIES, n=1, cutoff=0) or ["other"]
        raise ValueError(
            f"negatives must be one of {', '.join(_STRATEGIES)}, got {negatives!r}; did you mean "
            f"{near[0]!r}?"
        )
    if labels.shape != feature.shape[:1]:
        raise ValueError(
            f"labels must be [{len(feature)}], a label a row of the queue, got {list(labels.shape)}"
        )
    for name, value, least in (
        ("num_clusters", num_clusters, 2),
        ("num_negatives", num_negatives, 1),
        ("max_lookups", max_lookups, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if len(labels) and labels.max() >= num_clusters:
        raise ValueError(
            f"labels must be below num_clusters, {num_clusters}, got {int(labels.max())}; pass the "
            "number of clusters of the queue"
        )
