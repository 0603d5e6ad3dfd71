"""Contrastive units of a scan: what is compared with what across images and points."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.clusters import cluster_radius, filter_clusters
from pc_geometry.neighbors import knn
from pc_geometry.pillars import points_in_pillars
from pc_geometry.sampling import farthest_point_sample

FindContext = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Lists the points around each centre: ([n 3], [m 3]) -> indices, splits."""

ChooseSamples = Callable[[np.ndarray, int, np.random.Generator | None], np.ndarray]
"""Picks where to put units: ([n 3], number, draws) -> indices, none twice."""

FindObjects = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Clusters the points that are not ground: ([n 3], [n] is ground) -> [n], -1 for none."""

_ROUNDING = 1e-6
"""Above the relative error of a sum of weights."""


@dataclass(frozen=True, kw_only=True)
class Units:
    """Units of a scan, each with the points that its features are averaged over.

    The features of unit i are the sum of `weight * features[indices]` over its part of the rows,
    `splits[i]:splits[i + 1]`, where the weights of a unit sum to 1.

    Attributes:
        center: The point that a unit was sampled at; of merged ones the one sampled first.
        cluster: Cluster that a unit stands for, -1 for none.
        unit_of_sample: The unit that each sampled one is part of, in the order of sampling.
        indices: Points of the units, into those of the scan; none twice in one unit.
        weight: Of each of those points.
        splits: Where the points of each unit start, and at last their number.
    """

    center: Int64[np.ndarray, " b"]
    cluster: Int64[np.ndarray, " b"]
    unit_of_sample: Int64[np.ndarray, " m"]
    indices: Int64[np.ndarray, " p"]
    weight: Float32[np.ndarray, " p"]
    splits: Int64[np.ndarray, " b+1"]

    def __len__(self) -> int:
        return len(self.center)

    @property
    def unit(self) -> Int64[np.ndarray, " p"]:
        """The unit of each entry of `indices`, ascending."""
        return np.repeat(np.arange(len(self)), np.diff(self.splits))

    @property
    def num_merged(self) -> Int64[np.ndarray, " b"]:
        """How many sampled units each unit is made of."""
        return np.bincount(self.unit_of_sample, minlength=len(self))


def nearest_context(
    points: Float[np.ndarray, "n 3"],
    centers: Float[np.ndarray, "m 3"],
    *,
    k: int = 16,
    num_threads: int = 1,
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " m+1"]]:
    """List the nearest points of each centre, which is one of them, nearest first.

    Args:
        points: Positions to take from.
        centers: Positions to search from.
        k: How many to take, or all if there are fewer. K is not printed; 16 are those of
            ProposalContrast (Yin et al., ECCV 2022), the closest method with code.
        num_threads: Threads that share the centres; 1 is right inside a data-loader worker.

    Returns:
        Indices into `points` and splits, as `pillar_context` does.

    Raises:
        ValueError: If a count is not positive or a coordinate is not finite.

    >>> street = np.float32([[0, 0, 0], [9, 0, 0], [1, 0, 0]])
    >>> nearest_context(street, street[:1], k=2)[0].tolist()
    [0, 2]
    """
    k = min(require_count("k", k), len(points))
    if not k or not len(centers):
        return np.empty(0, np.int64), np.zeros(len(centers) + 1, np.int64)
    _, index = knn(centers, points, k, num_threads=num_threads)
    return index.ravel(), k * np.arange(len(centers) + 1)


def pillar_context(
    points: Float[np.ndarray, "n 3"],
    centers: Float[np.ndarray, "m 3"],
    *,
    size: float = 0.5,
    num_threads: int = 1,
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " m+1"]]:
    """List all points in the pillar around each centre, ascending.

    Args:
        points: Positions to take from, z up.
        centers: Positions that the pillars stand around.
        size: Side of a pillar, in the unit of `points`. It is not printed; 0.5 m stays on one
            object, and holds more than the cell of a pillar network (0.2 to 0.32 m).
        num_threads: Threads that share the points; 1 is right inside a data-loader worker.

    Returns:
        Indices into `points` and splits: centre i has `indices[splits[i]:splits[i + 1]]`.

    Raises:
        ValueError: If `size` or `num_threads` is not positive or a coordinate is not finite.
    """
    centers = np.asarray(centers)[:, :2]
    return points_in_pillars(points, centers, size, num_threads=num_threads)


def farthest_from_above(
    points: Float[np.ndarray, "n 3"], num: int, rng: np.random.Generator | None
) -> Int64[np.ndarray, " num"]:
    """Spread samples by farthest point sampling that ignores heights.

    Args:
        points: Positions, z up.
        num: How many to choose, no more than there are.
        rng: Draws the first, from which the others follow; without it that is the first point.
    """
    start = 0 if rng is None or not num else int(rng.integers(len(points)))
    return farthest_point_sample(points[:, :2], num, start=start)


def random_samples(
    points: Float[np.ndarray, "n 3"], num: int, rng: np.random.Generator | None
) -> Int64[np.ndarray, " num"]:
    """Choose points at random, each as likely: the paper's ablation, which crowds near the sensor.

    Args:
        points: Positions.
        num: How many to choose, no more than there are.
        rng: Draws.

    Raises:
        ValueError: If `rng` is None.
    """
    if rng is None:
        raise ValueError("rng must be a generator to choose samples at random, got None; pass one")
    return rng.permutation(len(points))[:num]


def sample_units(
    points: Float[np.ndarray, "n 3"],
    candidate: Bool[np.ndarray, " n"],
    num_units: int,
    *,
    context: FindContext = nearest_context,
    choose: ChooseSamples = farthest_from_above,
    rng: np.random.Generator | None = None,
) -> Units:
    """Put units at some of the candidates, by farthest point sampling from above.

    Args:
        points: Positions, z up.
        candidate: Points that units may be sampled at and have in their context.
        num_units: How many to sample; all candidates if there are fewer.
        context: Lists the points of each unit: `nearest_context` or `pillar_context`, with other
            values through `functools.partial`. A unit without any would have no features and is an
            error.
        choose: Picks the candidates that units are sampled at: `farthest_from_above` or
            `random_samples`.
        rng: Draws for `choose`; without it the first unit is at the first candidate.

    Returns:
        Units in the order of sampling, none of them in a cluster.

    Raises:
        ValueError: If `candidate` is not one bool a point, `num_units` is negative, a context is
            empty, or a coordinate is not finite.

    Source: cross-modal contrastive units (Cai et al., 2024), section II-B, initial units. The
        context comes from the candidates, because only they have image features too; the paper
        does not say.

    >>> street = np.float32([[0, 0, 0], [9, 0, 0], [1, 0, 0], [8, 0, 5]])
    >>> units = sample_units(street, np.array([True, True, True, False]), 2, context=pillar_context)
    >>> units.center.tolist(), units.indices.tolist()
    ([0, 1], [0, 1])
    """
    points = require_points(points, dims=(3,))
    candidate = _require_mask("candidate", candidate, len(points))
    num_units = require_count("num_units", num_units, least=0)
    index = np.flatnonzero(candidate)
    num_units = min(num_units, len(index))
    among = points[index]
    chosen = choose(among, num_units, rng)
    indices, splits = context(among, among[chosen])
    size = np.diff(splits)
    if not size.all():
        raise ValueError(
            f"context must list a point for every unit, got none for {(size == 0).sum()} of "
            f"{len(size)}; take a larger one"
        )
    return Units(
        center=index[chosen],
        cluster=np.full(num_units, -1, np.int64),
        unit_of_sample=np.arange(num_units),
        indices=index[indices],
        weight=np.repeat(1 / size, size).astype(np.float32),
        splits=splits,
    )


def cluster_objects(
    points: Float[np.ndarray, "n 3"],
    ground: Bool[np.ndarray, " n"],
    *,
    radius: float = 0.5,
    min_points: int = 10,
    join: Callable[..., np.ndarray] = cluster_radius,
    keep: Callable[[np.ndarray, np.ndarray], np.ndarray] = filter_clusters,
) -> Int64[np.ndarray, " n"]:
    """Cluster what stands on the ground and keep the clusters that have the size of an object.

    Args:
        points: Positions in the sensor's frame, z up.
        ground: Points on the ground, see `segment_ground`.
        radius: Longest step within a cluster. It is not printed; 0.5 m joins the beams of a
            64-beam sensor up to some 50 m and keeps parked cars apart. With 32 beams take 1 m.
        min_points: Clusters with fewer points are dropped. It is not printed; with fewer than 10
            points shapes are guesses.
        join: `cluster_radius`, or `pc_geometry.range_clusters.cluster_range_image`, which finds the
            same through the range image.
        keep: Drops clusters by size and aspect ratio: `filter_clusters`, with other limits through
            `functools.partial`.

    Returns:
        Cluster of each point, numbered from 0 by first appearance, -1 for none.

    Raises:
        ValueError: If `ground` is not one bool a point, `radius` or `min_points` is not positive,
            or a coordinate is not finite.

    Source: cross-modal contrastive units (Cai et al., 2024), section II-B, instance-aware
        clustering.
    """
    points = require_points(points, dims=(3,))
    above = np.flatnonzero(~_require_mask("ground", ground, len(points)))
    cluster = np.full(len(points), -1, np.int64)
    joined = join(points[above], radius, min_points=min_points)
    cluster[above] = keep(points[above], joined)
    return cluster


def main_cluster(units: Units, cluster: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " b"]:
    """Return the cluster that holds more than half of each unit, by weight, -1 where none does.

    The sampling from above prefers stray points, such as those seen through the windows of a car,
    which are in no cluster though most of their neighbours are.

    Args:
        units: What to look up.
        cluster: Cluster of each point of the scan, negative for none.

    Raises:
        ValueError: If `cluster` is not one whole number a point.
    """
    of_point = _require_clusters(units, cluster)[units.indices]
    member = np.flatnonzero(of_point >= 0)
    base = int(of_point.max(initial=0)) + 1
    entry, row = np.unique(units.unit[member] * base + of_point[member], return_inverse=True)
    major = entry[np.bincount(row, units.weight[member], len(entry)) > 0.5 * (1 + _ROUNDING)]
    found = np.full(len(units), -1, np.int64)
    found[major // base] = major % base
    return found


def center_cluster(units: Units, cluster: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " b"]:
    """Return the cluster of the centre of each unit, -1 for none; otherwise as `main_cluster`."""
    return np.maximum(_require_clusters(units, cluster)[units.center], -1)


def merge_units(units: Units, cluster: Int64[np.ndarray, " b"]) -> Units:
    """Make one unit of all units of one cluster.

    The features of the merged unit are the mean of those of the sampled units in it: weights are
    averaged, and those of a point that was in several are added.

    Args:
        units: What to merge.
        cluster: Cluster of each unit, negative for those that stay as they are.

    Returns:
        Units in the order of their first centres, the points of each in ascending order.

    Raises:
        ValueError: If `cluster` is not one whole number a unit.

    Source: cross-modal contrastive units (Cai et al., 2024), section II-B: units in one cluster
        become one, with the average of their features.
    """
    if cluster.shape != (len(units),) or not np.issubdtype(cluster.dtype, np.integer):
        raise ValueError(
            f"cluster must be a whole number a unit, shape {(len(units),)}, got {cluster.dtype} of "
            f"shape {cluster.shape}"
        )
    # A name for each merged unit, then its number by first appearance.
    name = np.where(cluster < 0, -1 - np.arange(len(units)), cluster)
    _, first, merged = np.unique(name, return_index=True, return_inverse=True)
    merged, first = np.argsort(np.argsort(first))[merged], np.sort(first)
    total = np.bincount(merged, units.num_merged, len(first))
    weight = units.weight * (units.num_merged / total[merged])[units.unit]

    base = int(units.indices.max(initial=0)) + 1
    entry, row = np.unique(merged[units.unit] * base + units.indices, return_inverse=True)
    return Units(
        center=units.center[first],
        cluster=np.maximum(cluster[first], -1).astype(np.int64),
        unit_of_sample=merged[units.unit_of_sample],
        indices=entry % base,
        weight=np.bincount(row, weight, len(entry)).astype(np.float32),
        splits=np.searchsorted(entry, base * np.arange(len(first) + 1)),
    )


def contrastive_units(
    points: Float[np.ndarray, "n 3"],
    visible: Bool[np.ndarray, " n"],
    *,
    ground: Bool[np.ndarray, " n"],
    num_units: int = 1024,
    context: FindContext = nearest_context,
    objects: FindObjects = cluster_objects,
    belongs: Callable[[Units, np.ndarray], np.ndarray] = main_cluster,
    choose: ChooseSamples = farthest_from_above,
    rng: np.random.Generator | None = None,
) -> Units:
    """Build the contrastive units of a scan: sampled from above, one for each object found.

    Args:
        points: Positions in the sensor's frame, z up, metres.
        visible: Points that some image shows; units and their context are taken from these.
        ground: Points on the ground, which are left out; see `segment_ground`.
        num_units: How many to sample before merging. It is not printed; ProposalContrast samples
            2048 in the full turn, and half of the points that are not ground are seen or fewer.
        context: Lists the points of each unit: `nearest_context` or `pillar_context`, with other
            values through `functools.partial`.
        objects: Finds the clusters that are one unit each; `cluster_objects`, with other values
            through `functools.partial`. It gets points that no image shows too, so that the border
            of an image cuts no object.
        belongs: Tells the cluster of each unit, from the units and the cluster of each point:
            `main_cluster`, or `center_cluster`. The paper says that units "fall into" clusters; by
            the former twice as many cars become one unit, and the units are no more mixed.
        choose: Picks the points that units are sampled at: `farthest_from_above` or
            `random_samples`.
        rng: Draws for `choose`; without it the first unit is at the first candidate.

    Returns:
        At most `num_units` units, in the order of sampling.

    Raises:
        ValueError: If a mask is not one bool a point, `num_units` is negative, or a coordinate is
            not finite.

    Source: cross-modal contrastive units (Cai et al., 2024), section II-B, all but the balancing of
        negatives, which needs the features.

    >>> rng = np.random.default_rng(0)
    >>> car, hedge = rng.uniform(0, [4, 2, 1.5], (500, 3)), rng.uniform(6, [30, 7, 7], (999, 3))
    >>> points = np.concatenate([car, hedge])
    >>> nothing = np.zeros(len(points), bool)
    >>> units = contrastive_units(points, ~nothing, ground=nothing, num_units=64)
    >>> (units.center < 500).tolist().count(True), units.num_merged.sum().item()
    (1, 64)
    """
    points = require_points(points, dims=(3,))
    visible = _require_mask("visible", visible, len(points))
    ground = _require_mask("ground", ground, len(points))
    among = visible & ~ground
    units = sample_units(points, among, num_units, context=context, choose=choose, rng=rng)
    return merge_units(units, belongs(units, objects(points, ground)))


def _require_mask(name: str, mask: np.ndarray, n: int) -> np.ndarray:
    """Return the mask if it is one bool a point."""
    if mask.dtype != bool or mask.shape != (n,):
        raise ValueError(
            f"{name} must be a bool a point, shape {(n,)}, got {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _require_clusters(units: Units, cluster: np.ndarray) -> np.ndarray:
    """Return the cluster of each point if it is a whole number."""
    least = int(max(units.indices.max(initial=-1), units.center.max(initial=-1))) + 1
    if cluster.ndim != 1 or len(cluster) < least or not np.issubdtype(cluster.dtype, np.integer):
        raise ValueError(
            f"cluster must be a whole number for each point of the scan, at least {least}, got "
            f"{cluster.dtype} of shape {cluster.shape}"
        )
    return cluster.astype(np.int64, copy=False)
