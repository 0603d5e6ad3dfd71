"""The augmentations of the papers: their steps in order, with their parameters.

A preset is a tuple of transforms `(scan, rng) -> scan`; `run` applies it. A method of one's own
starts from one: `(*MSC_VIEW[:5], my_step)`. Where a paper is silent, the docstring says whose
parameters these are.
"""

from collections.abc import Sequence
from functools import partial
from math import pi, radians

import numpy as np
from pc_geometry.arrays import require_count

from pc_data.augment.basic import Box, Transform, crop_nearest, scale
from pc_data.augment.elastic import elastic_distortion
from pc_data.augment.photometric import adjust_color, jitter_color, shift_color, stretch_contrast
from pc_data.augment.sampling import (
    clip_range,
    crop_cuboid,
    drop_cuboid,
    drop_points,
    grid_sample,
    resample,
    resample_near,
    resample_one_of,
    shuffle,
    sphere_crop,
    subsample,
)
from pc_data.augment.spatial import (
    center_mean,
    center_shift,
    flip_axes,
    jitter,
    rotate,
    rotate_any_axis,
    shear,
    shift_grid,
    translate,
)
from pc_data.scan import Scan

Steps = tuple[Transform, ...]


def run(steps: Sequence[Transform], scan: Scan, rng: np.random.Generator) -> Scan:
    """Apply transforms one after the other; `functools.partial(run, steps)` is one itself."""
    for step in steps:
        scan = step(scan, rng)
    return scan


# Rooms: Masked Scene Contrast

MSC_SHARED: Steps = (center_shift, partial(scale, low=0.9, high=1.1))
"""What both views of MSC have in common. Source: released code; Table 4 lists no scaling."""


def msc_view(*, voxel_size: float = 0.02, crop: float = 0.6) -> Steps:
    """One view of MSC, its voxel size in metres and the share of points that its crop keeps.

    Source: MSC (Wu et al., CVPR 2023, Table 4), in the order of its released code.
    """
    return (
        partial(rotate, axis="z", max_angle=pi),
        partial(rotate, axis="x", max_angle=pi / 64, about_center=True),
        partial(rotate, axis="y", max_angle=pi / 64, about_center=True),
        partial(flip_axes, axes=("x", "y"), probability=0.5),
        partial(jitter, std=0.005, limit=0.02),
        partial(
            adjust_color, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.02, probability=0.8
        ),
        partial(jitter_color, std=0.05, probability=0.95),
        partial(grid_sample, voxel_size=voxel_size),
        partial(sphere_crop, rate=crop),
        partial(center_shift, floor=False, voxel_size=voxel_size),
    )


MSC_VIEW: Steps = msc_view()
"""The same with the paper's 0.02 m and 0.6."""

_ROOM_MOVES: Steps = (
    partial(rotate, axis="z", max_angle=pi, probability=0.5),
    partial(rotate, axis="x", max_angle=pi / 64, about_center=True, probability=0.5),
    partial(rotate, axis="y", max_angle=pi / 64, about_center=True, probability=0.5),
    partial(scale, low=0.9, high=1.1),
    partial(flip_axes, axes=("x", "y"), probability=0.5),
    partial(jitter, std=0.005, limit=0.02),
    partial(elastic_distortion, scales=((0.2, 0.4), (0.8, 1.6)), probability=0.95),
    partial(stretch_contrast, probability=0.2),
)


def room_segmentation(
    *, voxel_size: float = 0.02, max_points: int = 100_000, keep_labelled: bool = False
) -> Steps:
    """MSC's fine-tuning for semantic segmentation; `mixing.mix3d` then overlays two rooms.

    Args:
        voxel_size: Metres.
        max_points: The nearest to a random point stay.
        keep_labelled: Neither the drop nor the grid takes a point whose label is not -1, for
            training on few labelled points.

    Source: released code of MSC (Wu et al., CVPR 2023).
    """
    return (
        center_shift,
        partial(drop_points, ratio=0.2, probability=0.2, keep_labelled=keep_labelled),
        *_ROOM_MOVES,
        partial(shift_color, ratio=0.05, probability=0.95),
        partial(jitter_color, std=0.05, probability=0.95),
        partial(grid_sample, voxel_size=voxel_size, keep_labelled=keep_labelled),
        partial(crop_nearest, max_points=max_points),
        partial(center_shift, floor=False, voxel_size=voxel_size),
        shuffle,
    )


ROOM_SEGMENTATION: Steps = room_segmentation()
"""The same with the paper's 0.02 m and 100,000 points."""

ROOM_INSTANCES: Steps = (
    center_shift,
    partial(drop_points, ratio=0.2, probability=0.5),
    *_ROOM_MOVES,
    partial(shift_color, ratio=0.1, probability=0.95),
    partial(jitter_color, std=0.05, probability=0.95),
    partial(grid_sample, voxel_size=0.02),
    partial(sphere_crop, rate=0.8),
    shuffle,
)
"""MSC's fine-tuning for instance segmentation with PointGroup; nothing is mixed."""

# LiDAR and images: SLidR, CSC, cross-modal

SLIDR_CLOUD: Steps = (
    partial(rotate, axis="z", max_angle=pi),
    partial(flip_axes, axes=("x", "y"), probability=0.5),
)
"""SLidR (Sautier et al., CVPR 2022) and CSC (Chen et al., CVPR 2024), pre-training (its images and
cuboids: `pc_data.augment.views.slidr_view`) and fine-tuning."""


def crossmodal_view(*, low: float = 0.8, high: float = 1.25) -> Steps:
    """A cloud of the cross-modal contrastive units, scaled by a factor of that range.

    Source: Cai et al. (2024), Sec. II-A, which names rotation, scaling and flips; the ranges are
        those of ProposalContrast (Yin et al., ECCV 2022).
    """
    return (
        partial(rotate, axis="z", max_angle=pi),
        partial(scale, low=low, high=high),
        partial(flip_axes, axes=("x", "y"), probability=0.5),
    )


CROSSMODAL_PRETRAINING: Steps = crossmodal_view()
"""The same with ProposalContrast's range."""

WAYMO_DETECTION: Steps = (
    partial(flip_axes, axes=("x", "y"), probability=0.5),
    partial(rotate, axis="z", max_angle=pi / 4),
    partial(scale, low=0.95, high=1.05),
)
"""CenterPoint's fine-tuning on Waymo (Yin et al., CVPR 2021); no pasted objects."""

NUSCENES_DETECTION: Steps = (
    partial(flip_axes, axes=("x", "y"), probability=0.5),
    partial(rotate, axis="z", max_angle=0.3925),
    partial(scale, low=0.95, high=1.05),
)
"""CenterPoint's fine-tuning on nuScenes (Yin et al., CVPR 2021)."""

NUSCENES_DETECTION_FINE: Steps = (
    partial(flip_axes, axes=("x", "y"), probability=0.5),
    partial(rotate, axis="z", max_angle=0.785),
    partial(scale, low=0.9, high=1.1),
    partial(translate, std=0.5),
)
"""The same for CenterPoint's model with voxels of 0.075 m."""

# Volumes: SSPL and what it compares with

KITTI_RANGE: Box = ((0.0, -40.0, -3.0), (70.4, 40.0, 1.0))
"""Where DepthContrast (Zhang et al., ICCV 2021) keeps points of KITTI, in the LiDAR's frame."""

WAYMO_RANGE: Box = ((0.0, -75.0, -3.0), (75.0, 75.0, 3.0))
"""Where it keeps those of Waymo, in the vehicle's frame."""


def sspl_view(*, indoor: bool) -> Steps:
    """A view of SSPL: "rotation and scaling".

    Args:
        indoor: A room may turn by any angle, and its points come in random order, as PointNet++
            looks at the first ones of a ball. A LiDAR scan turns by 45 degrees either way and is
            mirrored, as the left and the right of a street are alike.

    Source: SSPL (Zhang et al., NeurIPS 2022, Sec. 3.1), which prints no ranges: all but the room's
        rotation are those of DepthContrast (Zhang et al., ICCV 2021). DepthContrast turns rooms
        about a random axis, which takes the floor's height away.
    """
    if indoor:
        return (
            partial(rotate, axis="z", max_angle=pi),
            partial(scale, low=0.8, high=1.2),
            shuffle,
        )
    return (
        partial(flip_axes, axes=("y",), probability=0.5),
        partial(rotate, axis="z", max_angle=pi / 4),
        partial(scale, low=0.95, high=1.05),
    )


def depthcontrast_view(
    *, indoor: bool, num_points: int | None = None, box: Box | None = None
) -> Steps:
    """A view of DepthContrast, which SSPL's baselines use (Sec. 4.1).

    Args:
        indoor: A room; else a LiDAR scan, of which columns are kept rather than boxes.
        num_points: How many points the view has. Of a room 20,000 by default, and the counts of
            the steps before follow in proportion. Of a LiDAR scan all that are left by default,
            for networks of voxels; networks of points take 16,384, far ones first.
        box: Where points are kept at all, in the scan's frame in metres: `KITTI_RANGE`,
            `WAYMO_RANGE`; by default everywhere.

    Raises:
        ValueError: If `num_points` is less than 4.

    Source: DepthContrast (Zhang et al., ICCV 2021), in the order of its released code.
    """
    if num_points is not None:
        require_count("num_points", num_points, least=4)
    clip = () if box is None else (partial(clip_range, box=box),)
    if not indoor:
        keep = () if num_points is None else (partial(resample_near, num_points=num_points),)
        return (
            *clip,
            partial(crop_cuboid, side=(0.5, 1.0), min_aspect=0.75, num_axes=2, min_points=10_000),
            partial(drop_cuboid, side=(0.2, 0.2)),
            *sspl_view(indoor=False),
            *keep,
        )
    most = 20_000 if num_points is None else num_points
    return (
        *clip,
        partial(subsample, max_points=5 * most // 2),
        partial(crop_cuboid, side=(0.5, 1.0), min_aspect=0.75, min_points=most // 2),
        partial(drop_cuboid, side=(0.2, 0.2)),
        partial(resample_one_of, counts=tuple(most * quarter // 4 for quarter in range(1, 5))),
        partial(flip_axes, axes=("x", "y"), probability=0.5),
        partial(rotate_any_axis, max_angle=pi),
        partial(scale, low=0.8, high=1.2),
        partial(resample, num_points=most),
    )


SCANNET_DETECTION: Steps = (
    partial(resample, num_points=40_000),
    partial(flip_axes, axes=("x", "y"), probability=0.5),
    partial(rotate, axis="z", max_angle=radians(5)),
)
"""VoteNet's training on ScanNet (Qi et al., ICCV 2019), with which SSPL fine-tunes."""

SUN_RGBD_DETECTION: Steps = (
    partial(resample, num_points=20_000),
    partial(flip_axes, axes=("x",), probability=0.5),
    partial(rotate, axis="z", max_angle=radians(30)),
    partial(scale, low=0.85, high=1.15),
)
"""VoteNet's training on SUN RGB-D (Qi et al., ICCV 2019)."""

JS3C_SEGMENTATION: Steps = (
    center_mean,
    partial(shear, std=0.1),
    partial(flip_axes, axes=("x",), probability=0.5),
    partial(rotate, axis="z", max_angle=pi),
    partial(shift_grid, voxel_size=0.1),
)
"""JS3C-Net's training on SemanticKITTI (Yan et al., AAAI 2021), with which SSPL fine-tunes."""
