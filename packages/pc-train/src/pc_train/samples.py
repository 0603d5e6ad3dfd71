"""From labelled scans to batches for probing, fine-tuning and evaluation."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from pc_data.augment import Box, crop_nearest, flip, inside_box, rotate_z, scale
from pc_data.augment.presets import JS3C_SEGMENTATION, SLIDR_CLOUD, room_segmentation, run
from pc_data.batch import PointBatch, to_batch
from pc_data.errors import DataError
from pc_data.features import LIDAR_FEATURES, point_features
from pc_data.scan import Scan
from pc_geometry import knn, occupied_volumes, voxel_subsample

# Without its first step, which centres: scans are evaluated in the sensor's frame.
_SHEARED = JS3C_SEGMENTATION[1:]


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """A scan after its augmentation.

    Attributes:
        seen: Where the network has the points: its cells and neighbours.
        felt: The same points as the input features tell of them; often the same scan.
    """

    seen: Scan
    felt: Scan


def augment_lidar(
    scan: Scan,
    rng: np.random.Generator,
    *,
    voxel_size: float = 0.1,
    max_points: int = 20_000,
    keep_labelled: bool = False,
) -> Augmented:
    """Augment geometry and input features independently.

    Geometry (cells and neighbours) is rotated and flipped; the coordinates among the features are
    rotated by another angle and scaled.

    Args:
        scan: A labelled scan.
        rng: Draws the augmentation.
        voxel_size: Metres; one random point of each voxel stays.
        max_points: The nearest to a random point stay.
        keep_labelled: All points whose label is not -1 survive the voxels, for training on few.

    Raises:
        DataError: If the scan has no labels.

    Source: the downstream training of ScaLR's released code (Puy et al., CVPR 2024).
    """
    scan = _thinned(scan, rng, voxel_size, max_points, keep_labelled)
    seen = flip(rotate_z(scan, rng), rng)
    felt = scale(rotate_z(scan, rng), rng)
    return Augmented(seen=seen, felt=felt)


def augment_cloud(
    scan: Scan,
    rng: np.random.Generator,
    *,
    voxel_size: float = 0.1,
    max_points: int = 20_000,
    keep_labelled: bool = False,
) -> Augmented:
    """Rotate and flip a LiDAR scan; input features tell of the points where they are.

    Args:
        scan: A labelled scan.
        rng: Draws the augmentation.
        voxel_size: Metres; one random point of each voxel stays.
        max_points: The nearest to a random point stay.
        keep_labelled: All points whose label is not -1 survive the voxels, for training on few.

    Raises:
        DataError: If the scan has no labels.

    Source: the downstream training of SLidR (Sautier et al., CVPR 2022) and CSC (Chen et al.,
        CVPR 2024), which keep all points; a budget is ours.
    """
    scan = run(SLIDR_CLOUD, _thinned(scan, rng, voxel_size, max_points, keep_labelled), rng)
    return Augmented(seen=scan, felt=scan)


def augment_sheared(
    scan: Scan,
    rng: np.random.Generator,
    *,
    voxel_size: float = 0.1,
    max_points: int = 20_000,
    keep_labelled: bool = False,
) -> Augmented:
    """Shear, mirror and rotate a LiDAR scan; input features tell of the moved points.

    Args:
        scan: A labelled scan.
        rng: Draws the augmentation.
        voxel_size: Metres; one random point of each voxel stays.
        max_points: The nearest to a random point stay.
        keep_labelled: All points whose label is not -1 survive the voxels, for training on few.

    Raises:
        DataError: If the scan has no labels.

    Source: JS3C-Net (Yan et al., AAAI 2021), whose settings SSPL largely follows (Zhang et al.,
        NeurIPS 2022, Sec. 4.3). It keeps all points; a budget is ours. It also centres scans, and
        does so when it evaluates.
    """
    bare = dataclasses.replace(scan, boxes=None)  # a shear does not leave them boxes
    moved = run(_SHEARED, _thinned(bare, rng, voxel_size, max_points, keep_labelled), rng)
    return Augmented(seen=moved, felt=moved)


def augment_room(
    scan: Scan,
    rng: np.random.Generator,
    *,
    voxel_size: float = 0.02,
    max_points: int = 100_000,
    keep_labelled: bool = False,
) -> Augmented:
    """Augment a room as MSC does, all at once.

    Args:
        scan: A labelled room with colour.
        rng: Draws the augmentation.
        voxel_size: Metres; one random point of each voxel stays.
        max_points: The nearest to a random point stay.
        keep_labelled: All points whose label is not -1 survive dropping and voxels, for training
            on few.

    Raises:
        DataError: If the scan has no labels.

    Source: the fine-tuning of MSC's released code (Wu et al., CVPR 2023).
    """
    _labels_of(scan)
    steps = room_segmentation(
        voxel_size=voxel_size, max_points=max_points, keep_labelled=keep_labelled
    )
    room = run(steps, scan, rng)
    return Augmented(seen=room, felt=room)


AUGMENTATIONS: dict[str, Callable[..., Augmented]] = {
    "lidar": augment_lidar,
    "cloud": augment_cloud,
    "sheared": augment_sheared,
    "rooms": augment_room,
}
"""By the name that settings give them."""


def _thinned(
    scan: Scan,
    rng: np.random.Generator,
    voxel_size: float,
    max_points: int,
    keep_labelled: bool,
) -> Scan:
    labels = _labels_of(scan)
    kept = voxel_subsample(scan.xyz, voxel_size, rng=rng)[0]
    scan = scan.select(np.union1d(kept, np.flatnonzero(labels >= 0)) if keep_labelled else kept)
    return crop_nearest(scan, rng, max_points=max_points)


def to_input(
    augmented: Augmented,
    *,
    features: Sequence[str] = LIDAR_FEATURES,
    intensity_mean: float,
    intensity_std: float,
    box: Box | None,
    num_neighbors: int,
) -> PointBatch:
    """Turn an augmented scan into the network's input.

    Args:
        augmented: The scan.
        features: Names of the network's inputs.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        box: Field of view: its lower and upper corner in metres; None for none.
        num_neighbors: For the backbone.

    Raises:
        DataError: If no point lies in the box, or the scan lacks what a feature needs.
    """
    feat = point_features(
        augmented.felt, features, intensity_mean=intensity_mean, intensity_std=intensity_std
    )
    scan = augmented.seen
    if box is not None:
        inside = _inside(scan, box)
        scan, feat = scan.select(inside), feat[inside]
    return to_batch(scan, feat, num_neighbors=num_neighbors)


def training_sample(
    scan: Scan,
    rng: np.random.Generator,
    *,
    augment: Callable[[Scan, np.random.Generator], Augmented] = augment_lidar,
    features: Sequence[str] = LIDAR_FEATURES,
    intensity_mean: float,
    intensity_std: float,
    box: Box | None,
    num_neighbors: int = 16,
) -> PointBatch:
    """Make an augmented sample.

    Args:
        scan: A labelled scan.
        rng: Draws the augmentation.
        augment: One of `AUGMENTATIONS`, its parameters fixed by `functools.partial`.
        features: Names of the network's inputs.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        box: Field of view: its lower and upper corner in metres; None for none.
        num_neighbors: For the backbone.

    Raises:
        DataError: If the scan has no labels, no point in the box, or lacks what a feature needs.
    """
    return to_input(
        augment(scan, rng),
        features=features,
        intensity_mean=intensity_mean,
        intensity_std=intensity_std,
        box=box,
        num_neighbors=num_neighbors,
    )


def evaluation_sample(
    scan: Scan,
    rng: np.random.Generator,  # noqa: ARG001 - samples are made by (scan, rng)
    *,
    features: Sequence[str] = LIDAR_FEATURES,
    intensity_mean: float,
    intensity_std: float,
    box: Box | None,
    voxel_size: float = 0.1,
    num_neighbors: int = 16,
    from_origin: bool = False,
) -> PointBatch:
    """Make a sample without randomness whose predictions reach every original point.

    The network sees one point a voxel, the first in file order; every original point, also one
    outside the box, takes the answer of the nearest of these (`nearest`, `all_labels`).

    Args:
        scan: Any scan; without labels all its points are ignored.
        rng: Not used.
        features: Names of the network's inputs.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        box: Field of view: its lower and upper corner in metres; None for none.
        voxel_size: Metres.
        num_neighbors: For the backbone.
        from_origin: Voxels start at the origin of the scan's frame, as those of sparse networks,
            instead of the scan's lower corner.

    Raises:
        DataError: If no point lies in the box, or the scan lacks what a feature needs.

    Source: the validation of ScaLR's released code (Puy et al., CVPR 2024). MSC's (Wu et al., CVPR
        2023) copies the answer of a voxel, here each point's nearest answers.
    """
    kept = scan.select(first_of_voxels(scan, voxel_size, from_origin=from_origin))
    sample = to_input(
        Augmented(seen=kept, felt=kept),
        features=features,
        intensity_mean=intensity_mean,
        intensity_std=intensity_std,
        box=box,
        num_neighbors=num_neighbors,
    )
    nearest = knn(scan.xyz, sample.xyz.numpy(), 1)[1][:, 0]
    labels = np.full(len(scan), -1, np.int64) if scan.labels is None else scan.labels
    return dataclasses.replace(
        sample, nearest=torch.from_numpy(nearest), all_labels=torch.from_numpy(labels)
    )


def _labels_of(scan: Scan) -> np.ndarray:
    if scan.labels is None:
        raise DataError(f"scan {scan.name} has no labels; probing and fine-tuning need them")
    return scan.labels


def first_of_voxels(scan: Scan, voxel_size: float, *, from_origin: bool) -> Int64[np.ndarray, " m"]:
    """The points that a network sees in evaluation: the first of each voxel, in file order.

    Args:
        scan: Any scan.
        voxel_size: Metres.
        from_origin: As for `evaluation_sample`.
    """
    if not from_origin:
        return voxel_subsample(scan.xyz, voxel_size)[0]
    voxel = occupied_volumes(scan.xyz, voxel_size, origin=np.zeros(3))
    return np.unique(voxel, return_index=True)[1]


def _inside(scan: Scan, box: Box) -> Bool[np.ndarray, " n"]:
    inside = inside_box(scan, box)
    if not inside.any():
        raise DataError(
            f"scan {scan.name}: none of its {len(scan)} points lies in the field of view "
            f"{box[0]} to {box[1]} m; check the units (metres) and the frame (sensor), or widen fov"
        )
    return inside
