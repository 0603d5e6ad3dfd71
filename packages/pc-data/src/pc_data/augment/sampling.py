"""Augmentations that keep some points of a scan: crops, drops, one point a voxel, fixed counts.

Pure functions `(scan, rng) -> scan` as in `pc_data.augment`, whose `thin` and `crop_nearest` belong
here too. Points stay in file order unless a function says otherwise; at least one is kept of a scan
that has any, but for `clip_range` and `drop_ego`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from pc_geometry import occupied_volumes
from pc_geometry.arrays import require_count
from pc_geometry.keys import axis_bounds

from pc_data.augment.basic import Box, crop_nearest, inside_box
from pc_data.augment.draws import Range, happens, require_fraction, require_least, require_range
from pc_data.scan import Scan


def drop_points(
    scan: Scan,
    rng: np.random.Generator,
    *,
    ratio: float = 0.2,
    probability: float = 1.0,
    keep_labelled: bool = False,
) -> Scan:
    """Drop random points.

    Args:
        scan: Any scan.
        rng: Draws the points.
        ratio: Share of the points that go.
        probability: Of dropping any.
        keep_labelled: Never drop a point whose label is not -1, for training on few labels.

    Raises:
        ValueError: If `ratio` or `probability` is not in [0, 1].

    Source: RandomDropout of MSC's released fine-tuning (Wu et al., CVPR 2023).
    """
    require_fraction("ratio", ratio)
    if not happens(rng, probability) or not len(scan):
        return scan
    kept = np.zeros(len(scan), bool)
    num_kept = max(1, int(len(scan) * (1 - ratio)))
    kept[rng.permutation(len(scan))[:num_kept]] = True
    return scan.select(kept | _labelled(scan) if keep_labelled else kept)


def grid_sample(
    scan: Scan,
    rng: np.random.Generator,
    *,
    voxel_size: float = 0.02,
    keep_labelled: bool = False,
) -> Scan:
    """Keep one random point of each voxel of a grid that starts at the origin.

    Points come out by voxel, in order of the voxels' first appearance. `pc_data.augment.thin` lays
    its grid at the lower corner of the scan instead.

    Args:
        scan: Any scan.
        rng: Draws the points.
        voxel_size: Metres.
        keep_labelled: Keep all points whose label is not -1 besides, for training on few labels.

    Raises:
        ValueError: If the voxel size is not positive.

    Source: GridSample in training, of MSC's released code (Wu et al., CVPR 2023): 0.02 m.
    """
    voxel = occupied_volumes(scan.xyz, voxel_size, origin=np.zeros(3))
    if not len(scan):
        return scan
    order = rng.permutation(len(scan))
    kept = np.empty(int(voxel.max()) + 1, np.int64)
    kept[voxel[order]] = order  # of several points of a voxel the last in a random order stays
    if keep_labelled:
        more = _labelled(scan)
        more[kept] = False
        kept = np.concatenate([kept, np.flatnonzero(more)])
    return scan.select(kept)


def sphere_crop(scan: Scan, rng: np.random.Generator, *, rate: float = 0.6) -> Scan:
    """Keep a share of the points, those nearest to a random one.

    `pc_data.augment.crop_nearest` does the same up to a number of points.

    Raises:
        ValueError: If `rate` is not in [0, 1].

    Source: SphereCrop of MSC (Wu et al., CVPR 2023, Table 4: crop ratio 0.6).
    """
    require_fraction("rate", rate)
    return crop_nearest(scan, rng, max_points=max(1, int(rate * len(scan))))


def crop_cuboid(
    scan: Scan,
    rng: np.random.Generator,
    *,
    side: Range = (0.5, 1.0),
    min_aspect: float = 0.75,
    num_axes: int = 3,
    min_points: int = 10_000,
    tries: int = 100,
) -> Scan:
    """Keep the points in an upright cuboid around a random point.

    Args:
        scan: Any scan.
        rng: Draws the sides and the point.
        side: Range of a side, as a share of the scan's extent along its axis.
        min_aspect: Sides are drawn until two of these shares differ by at most this factor.
        num_axes: 3, or 2 for columns that are open above and below.
        min_points: Centres are drawn until more than so many points are inside; if none does, the
            fullest cuboid stays.
        tries: How often the sides, and the centre, are drawn at most.

    Raises:
        ValueError: If a parameter is out of range.

    Source: DepthContrast (Zhang et al., ICCV 2021), `randomcuboid`. Its code keeps the last cuboid
        where none is full enough.
    """
    require_range("side", side, least=0.0, most=1.0)
    require_fraction("min_aspect", min_aspect)
    require_count("num_axes", num_axes, least=2, most=3)
    require_count("tries", tries)
    if not len(scan):
        return scan
    shares = np.zeros(num_axes)
    for _ in range(tries):
        shares = rng.uniform(*side, num_axes)
        ordered = np.sort(shares)
        if (ordered[:-1] >= min_aspect * ordered[1:]).any():
            break
    xyz = scan.xyz[:, :num_axes]
    half = (_extent(scan)[:num_axes] * shares / 2).astype(np.float32)
    best = np.zeros(len(scan), bool)
    for _ in range(tries):
        inside = (np.abs(xyz - xyz[rng.integers(len(xyz))]) <= half).all(1)
        if inside.sum() > best.sum():
            best = inside
        if best.sum() > min_points:
            break
    return scan.select(best)


def drop_cuboid(scan: Scan, rng: np.random.Generator, *, side: Range = (0.0, 0.2)) -> Scan:
    """Drop the points in an upright cuboid around a random point.

    Args:
        scan: Any scan.
        rng: Draws the side and the point.
        side: Range of its sides, all the same share of the scan's extent along their axes.

    Raises:
        ValueError: If the range is not within [0, 1].

    Source: SLidR (Sautier et al., CVPR 2022), sides up to 0.2; DepthContrast (Zhang et al., ICCV
        2021), `randomdrop`, 0.2. With a guard on what remains: `pairs.drop_cuboid_paired`.
    """
    return scan.select(outside_cuboid(scan, rng, side=side)) if len(scan) else scan


def outside_cuboid(
    scan: Scan, rng: np.random.Generator, *, side: Range = (0.0, 0.2)
) -> Bool[np.ndarray, " n"]:
    """Tell which points `drop_cuboid` would keep."""
    require_range("side", side, least=0.0, most=1.0)
    half = (_extent(scan) * rng.uniform(*side) / 2).astype(np.float32)
    center = scan.xyz[rng.integers(len(scan))]
    return ~(np.abs(scan.xyz - center) < half).all(1)


def subsample(scan: Scan, rng: np.random.Generator, *, max_points: int = 50_000) -> Scan:
    """Keep at most `max_points` random points.

    Raises:
        ValueError: If `max_points` is not positive.
    """
    if len(scan) <= require_count("max_points", max_points):
        return scan
    return scan.select(np.sort(rng.permutation(len(scan))[:max_points]))


def resample(scan: Scan, rng: np.random.Generator, *, num_points: int = 20_000) -> Scan:
    """Bring a scan to an exact number of points, in random order.

    A smaller scan keeps all of its points and repeats random ones.

    Raises:
        ValueError: If `num_points` is not positive.

    Source: VoteNet (Qi et al., ICCV 2019): farthest point sampling starts at the first point, hence
        the order.
    """
    require_count("num_points", num_points)
    n = len(scan)
    if not n:
        return scan
    more = rng.integers(n, size=max(0, num_points - n))
    return scan.select(rng.permutation(np.concatenate([rng.permutation(n)[:num_points], more])))


def resample_one_of(
    scan: Scan,
    rng: np.random.Generator,
    *,
    counts: Sequence[int] = (5000, 10_000, 15_000, 20_000),
) -> Scan:
    """Bring a scan to one of several numbers of points, each as likely.

    Source: DepthContrast (Zhang et al., ICCV 2021), `multiscale`.
    """
    return resample(scan, rng, num_points=int(rng.choice(np.asarray(counts))))


def resample_near(
    scan: Scan, rng: np.random.Generator, *, num_points: int = 16_384, far: float = 40.0
) -> Scan:
    """Bring a scan to an exact number of points; what must go goes near the sensor.

    Args:
        scan: In the sensor's frame.
        rng: Draws the points and their order.
        num_points: How many to keep; a smaller scan repeats random points.
        far: Metres from which on points are kept. If they alone are too many, any may go.

    Raises:
        ValueError: If `num_points` is not positive or `far` is negative.

    Source: DepthContrast (Zhang et al., ICCV 2021) for point networks on LiDAR.
    """
    require_count("num_points", num_points)
    require_least("far", far)
    is_far = np.square(scan.xyz).sum(1) >= far**2
    num_near = num_points - int(is_far.sum())
    if len(scan) <= num_points or num_near < 0:
        return resample(scan, rng, num_points=num_points)
    near = rng.permutation(np.flatnonzero(~is_far))[:num_near]
    return scan.select(rng.permutation(np.concatenate([near, np.flatnonzero(is_far)])))


def shuffle(scan: Scan, rng: np.random.Generator) -> Scan:
    """Put the points in random order."""
    return scan.select(rng.permutation(len(scan)))


def clip_range(scan: Scan, rng: np.random.Generator, *, box: Box) -> Scan:  # noqa: ARG001
    """Keep the points strictly inside a box of the scan's frame, in metres."""
    return scan.select(inside_box(scan, box))


def drop_ego(
    scan: Scan,
    rng: np.random.Generator,  # noqa: ARG001 - transforms are (scan, rng)
    *,
    half_side: float = 3.0,
) -> Scan:
    """Drop the points on the vehicle itself: |x| and |y| both below `half_side` metres.

    Raises:
        ValueError: If `half_side` is negative.

    Source: ProposalContrast (Yin et al., ECCV 2022), the ancestor of the cross-modal method.
    """
    require_least("half_side", half_side)
    return scan.select(np.any(np.abs(scan.xyz[:, :2]) >= half_side, axis=1))


def _extent(scan: Scan) -> np.ndarray:
    low, high = axis_bounds(np.ascontiguousarray(scan.xyz))
    return high - low


def _labelled(scan: Scan) -> Bool[np.ndarray, " n"]:
    return np.zeros(len(scan), bool) if scan.labels is None else scan.labels >= 0
