"""Two views of one scan that know which of their points are the same.

Each function here is a paper's way to make its views, from the steps of `pc_data.augment.presets`.
"""

import dataclasses
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Int64
from pc_geometry import match_radius
from pc_geometry.volumes import crop_volumes, split_volumes

from pc_data.augment.basic import Transform
from pc_data.augment.draws import require_fraction
from pc_data.augment.image_crops import ImageCrop
from pc_data.augment.pairs import PixelPairs, crop_paired, drop_cuboid_paired
from pc_data.augment.presets import MSC_SHARED, MSC_VIEW, SLIDR_CLOUD, Steps, run, sspl_view
from pc_data.errors import DataError
from pc_data.scan import Scan


@dataclass(frozen=True, kw_only=True)
class View:
    """An augmented scan, and where its points come from.

    Attributes:
        scan: What the network sees.
        index: Which point of the source each of its points was.
        origin: Where that was: its position before the view was made, metres.
    """

    scan: Scan
    index: Int64[np.ndarray, " n"]
    origin: Float32[np.ndarray, "n 3"]

    def __len__(self) -> int:
        return len(self.index)


def make_view(scan: Scan, rng: np.random.Generator, transform: Transform) -> View:
    """Apply a transform and keep track of the points.

    Args:
        scan: The source.
        rng: Draws.
        transform: Anything that moves, drops, repeats or reorders points of one scan.

    Raises:
        ValueError: If the transform loses the scan's instances, by which points are tracked.
    """
    numbered = dataclasses.replace(scan, instance=np.arange(len(scan)))
    view = transform(numbered, rng)
    index = view.instance
    if index is None:
        raise ValueError(f"the transform of scan {scan.name} lost the instances; keep them")
    instance = None if scan.instance is None else scan.instance[index]
    return View(
        scan=dataclasses.replace(view, instance=instance), index=index, origin=scan.xyz[index]
    )


def match_views(
    query: View,
    key: View,
    rng: np.random.Generator,
    *,
    radius: float = 0.03,
    max_neighbors: int = 8,
) -> Int64[np.ndarray, "p 2"]:
    """Pair the points of two views that were near each other in the source.

    Args:
        query: Each of its points gets one partner at most.
        key: The view to draw partners from.
        rng: Draws among several.
        radius: Metres that a pair stays below.
        max_neighbors: How many of the nearest are drawn from.

    Returns:
        Indices into the points of `query` and of `key`.

    Source: MSC (Wu et al., CVPR 2023), released code.
    """
    return match_radius(query.origin, key.origin, radius, max_neighbors=max_neighbors, rng=rng)


def msc_views(
    scan: Scan,
    rng: np.random.Generator,
    *,
    shared: Steps = MSC_SHARED,
    view: Steps = MSC_VIEW,
) -> tuple[View, View]:
    """Make the two views of a room: both from the same centred and scaled room.

    Args:
        scan: The room.
        rng: Draws.
        shared: What both views have in common.
        view: What each gets by its own draws.

    Source: MSC (Wu et al., CVPR 2023, Fig. 2 and Table 4), in the order of its released code.
    """
    common, transform = run(shared, scan, rng), partial(run, view)
    return make_view(common, rng, transform), make_view(common, rng, transform)


@dataclass(frozen=True, kw_only=True)
class VolumeViews:
    """Two views of the same volumes of a scan.

    Attributes:
        local_view: Small crops of the volumes, in the first augmentation.
        global_view: Large crops of the volumes, in the second.
        local_volume: Volume of each point of `local_view`, 0 to `num_volumes` - 1; none is empty.
        global_volume: Volume of each point of `global_view`, likewise.
        num_volumes: How many there are; the same number is the same volume.
    """

    local_view: View
    global_view: View
    local_volume: Int64[np.ndarray, " n"]
    global_volume: Int64[np.ndarray, " m"]
    num_volumes: int


def sspl_views(
    scan: Scan,
    rng: np.random.Generator,
    *,
    volume_size: float = 0.5,
    max_volumes: int = 400,
    min_points: int = 8,
    local_share: float = 0.1,
    global_share: float = 0.5,
    transform: Transform | None = None,
) -> VolumeViews:
    """Cut a scan into volumes, and make a local and a global view of some of them.

    The views hold the points of the crops and no others: what lies around them would give the
    local crop away.

    Args:
        scan: A room, or a LiDAR scan with larger volumes (2 to 4 m) and another
            `transform`: `partial(run, sspl_view(indoor=False))`.
        rng: Draws the grid's origin, the volumes, the crops and the augmentations.
        volume_size: Edge of a volume in metres; about 300 occupied ones a scan is the paper's.
        max_volumes: As many random ones are kept.
        min_points: Volumes with fewer points do not count.
        local_share: Of a volume's points that the local view keeps, nearest to a random one.
        global_share: Of a volume's points that the global view keeps, nearest to another one.
        transform: Augments each view by its own draws; `sspl_view(indoor=True)` if not given.

    Raises:
        ValueError: If a parameter is out of range.
        DataError: If no volume has `min_points` points, or the transform drops them all.

    Source: SSPL (Zhang et al., NeurIPS 2022, Alg. 1, Sec. 3.1, 5.1 and 5.2). Size and origin of the
        volumes, the shape of the crops and the ranges of the augmentation are ours.
    """
    for name, share in (("local_share", local_share), ("global_share", global_share)):
        require_fraction(name, share)
    volume = split_volumes(
        scan.xyz, size=volume_size, max_volumes=max_volumes, min_points=min_points, rng=rng
    )
    if volume.max(initial=-1) < 0:
        raise DataError(
            f"scan {scan.name}: none of its volumes of {volume_size} m holds {min_points} points; "
            "use a larger volume_size or a smaller min_points"
        )
    augment = transform or partial(run, sspl_view(indoor=True))
    small, large = (
        _crop_volumes(scan, rng, volume, share, augment) for share in (local_share, global_share)
    )
    # A transform of the caller's may drop points: volumes that either view lost go from both.
    both = np.intersect1d(volume[small.index], volume[large.index])
    if not len(both):
        raise DataError(
            f"scan {scan.name}: the transform drops all volumes, as the field of view of a network "
            "may; use one that drops less"
        )
    small, large = (_select(view, np.isin(volume[view.index], both)) for view in (small, large))
    return VolumeViews(
        local_view=small,
        global_view=large,
        local_volume=np.searchsorted(both, volume[small.index]),
        global_volume=np.searchsorted(both, volume[large.index]),
        num_volumes=len(both),
    )


def _crop_volumes(
    scan: Scan,
    rng: np.random.Generator,
    volume: Int64[np.ndarray, " n"],
    share: float,
    transform: Transform,
) -> View:
    cropped = np.flatnonzero(crop_volumes(scan.xyz, volume, share=share, rng=rng))
    view = make_view(scan.select(cropped), rng, transform)
    return dataclasses.replace(view, index=cropped[view.index])


def _select(view: View, keep: Bool[np.ndarray, " n"]) -> View:
    return View(scan=view.scan.select(keep), index=view.index[keep], origin=view.origin[keep])


@dataclass(frozen=True, kw_only=True)
class PairedView:
    """An augmented scan, crops of its images, and the pairs that are left.

    Attributes:
        scan: What the 3D network sees.
        pairs: Its points and the pixels of the crops.
        crops: Of each camera's image, for `pc_data.augment.image_crops.crop_image`.
    """

    scan: Scan
    pairs: PixelPairs
    crops: tuple[ImageCrop, ...]


def slidr_view(
    scan: Scan,
    pairs: PixelPairs,
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (224, 416),
) -> PairedView:
    """Turn and mirror a scan, drop a cuboid, then crop and mirror each of its images.

    Args:
        scan: With cameras.
        pairs: Of the scan, by `pairs.pair_pixels`; CSC leaves those without a superpixel
            out.
        rng: Draws.
        size: (height, width) of the crops in pixels.

    Source: SLidR (Sautier et al., CVPR 2022) and CSC (Chen et al., CVPR 2024), released code.
    """
    moved = run(SLIDR_CLOUD, scan, rng)
    moved, pairs = drop_cuboid_paired(moved, pairs, rng)
    sizes = [camera.image_size for camera in scan.cameras]
    pairs, crops = crop_paired(pairs, sizes, rng, size=size)
    return PairedView(scan=moved, pairs=pairs, crops=crops)
