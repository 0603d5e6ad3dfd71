"""Volumes of a scene, and crops of the points inside each."""
# ruff: noqa: ANN001, ANN202  (numba infers the types of kernels)

import numpy as np
from jaxtyping import Bool, Float, Int64

from pc_geometry.arrays import require_count, require_points
from pc_geometry.compiling import kernel
from pc_geometry.keys import axis_bounds, require_sizes
from pc_geometry.voxels import occupied_volumes

_ROUNDING = 1e-9  # 0.1 * 30 is a little more than 3


def split_volumes(
    xyz: Float[np.ndarray, "n 3"],
    *,
    size: float | tuple[float, float, float],
    max_volumes: int = 400,
    min_points: int = 8,
    origin: Float[np.ndarray, " 3"] | None = None,
    rng: np.random.Generator,
) -> Int64[np.ndarray, " n"]:
    """Cut a scene into volumes, and draw some of those that hold enough points.

    Call it on the scan as recorded: augmented views then share the volumes of their points.

    Args:
        xyz: Positions, in metres for the usual sizes: 0.5 to 1 in rooms, 2 to 4 on streets.
        size: Edge of a volume, or its edges along x, y and z.
        max_volumes: As many random ones stay at most.
        min_points: Volumes with fewer points do not count.
        origin: A corner of the grid; a random one if not given, so that its borders do not always
            cut the same things.
        rng: Draws the origin and the volumes.

    Returns:
        The volume of each point, numbered from 0 by first appearance, -1 in none that stays.

    Raises:
        ValueError: If `size`, `max_volumes` or `min_points` is not positive, a coordinate is not
            finite, or a volume is more than 2^31 - 1 from the origin.

    Source: SSPL (Zhang et al., NeurIPS 2022), Sec. 3.1 and 5.2, which finds about 300 occupied
        volumes a scene and no gain beyond 400. Size and origin are ours, and so is `min_points`:
        pooling over a crop of a volume needs some points.

    >>> street = np.float32([[0, 0, 0], [9, 0, 0], [1, 1, 1], [20, 0, 0], [20, 1, 0]])
    >>> start, rng = np.zeros(3), np.random.default_rng(0)
    >>> split_volumes(street, size=2.0, min_points=2, origin=start, rng=rng).tolist()
    [0, -1, 0, 1, 1]
    """
    xyz = require_points(xyz, name="xyz", dims=(3,))
    sizes = require_sizes("size", size, 3)
    max_volumes = require_count("max_volumes", max_volumes)
    if origin is None and len(xyz):
        origin = axis_bounds(xyz)[0] - rng.random(3) * sizes
    volume = occupied_volumes(xyz, size, origin=origin, min_points=min_points)
    num_volumes = int(volume.max(initial=-1)) + 1
    if num_volumes <= max_volumes:
        return volume
    stays = np.zeros(num_volumes + 1, bool)  # the last one answers for -1
    stays[rng.permutation(num_volumes)[:max_volumes]] = True
    return np.where(stays, np.cumsum(stays) - 1, -1)[volume]


def crop_volumes(
    xyz: Float[np.ndarray, "n 3"],
    volume: Int64[np.ndarray, " n"],
    *,
    share: float,
    rng: np.random.Generator,
) -> Bool[np.ndarray, " n"]:
    """In each volume keep the share of its points nearest to a random one of them.

    Distances are computed in float64; ties go to the lowest index.

    Args:
        xyz: Positions.
        volume: Volume of each point, as `split_volumes` numbers them; points of -1 are left out.
        share: Of a volume's points, rounded up, so that each volume keeps at least one.
        rng: Draws one point a volume.

    Returns:
        Whether each point is kept.

    Raises:
        ValueError: If `share` is not in [0, 1], a coordinate is not finite, or `volume` is not one
            number from -1 to n - 1 a point.

    Source: the local and the global crop of SSPL (Zhang et al., NeurIPS 2022), Sec. 3.1 and 5.1
        (10% and 50% of a volume), whose shape it leaves open.

    >>> xyz, rng = np.float32([[0, 0, 0], [1, 0, 0], [9, 9, 9]]), np.random.default_rng(0)
    >>> crop_volumes(xyz, np.array([0, 0, -1]), share=1.0, rng=rng).tolist()
    [True, True, False]
    """
    xyz = require_points(xyz, name="xyz", dims=(3,))
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    n = len(xyz)
    if volume.shape != (n,) or volume.dtype.kind not in "iu":
        raise ValueError(
            f"volume must be one integer a point, shape {(n,)}, got {volume.dtype} "
            f"{volume.shape}; `split_volumes` gives them"
        )
    low, high = int(volume.min(initial=0)), int(volume.max(initial=-1))
    if low < -1 or high >= n > 0:
        raise ValueError(
            f"volume must be from -1 to {n - 1} (there are {n} points), got {low} to {high}; "
            "number the volumes from 0"
        )
    volume = np.ascontiguousarray(volume, np.int64)
    size = np.bincount(volume + 1, minlength=1)[1:]
    kept_size = np.ceil(share * size - _ROUNDING).astype(np.int64).clip(np.minimum(size, 1), size)
    place = (rng.random(len(size)) * size).astype(np.int64)  # of the centre among the members
    start = np.append(0, np.cumsum(size))
    kept = np.zeros(n, bool)
    _keep_nearest(xyz, _sort_by_volume(volume, start), start, kept_size, place, kept)
    return kept


@kernel
def _sort_by_volume(volume, start):
    """Return the points of each volume one after the other, in ascending order."""
    order = np.empty(start[-1], np.int64)
    free = start[:-1].copy()
    for i in range(len(volume)):
        if volume[i] >= 0:
            order[free[volume[i]]] = i
            free[volume[i]] += 1
    return order


@kernel
def _keep_nearest(xyz, order, start, kept_size, place, kept):
    """Find how far the last kept point of each volume is, and keep those nearer than it."""
    distance = np.empty(len(order))
    for number in range(len(kept_size)):
        members = order[start[number] : start[number + 1]]
        left = kept_size[number]
        if left == 0:
            continue
        apart = distance[: len(members)]
        center = xyz[members[place[number]]]
        for j in range(len(members)):
            x = np.float64(xyz[members[j], 0]) - np.float64(center[0])
            y = np.float64(xyz[members[j], 1]) - np.float64(center[1])
            z = np.float64(xyz[members[j], 2]) - np.float64(center[2])
            apart[j] = x * x + y * y + z * z
        limit = np.partition(apart, left - 1)[left - 1]
        left -= (apart < limit).sum()
        for j in range(len(members)):
            if apart[j] == limit:
                kept[members[j]] = left > 0
                left -= 1
            else:
                kept[members[j]] = apart[j] < limit
