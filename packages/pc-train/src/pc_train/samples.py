"""From labelled scans to batches for probing, fine-tuning and evaluation."""

import dataclasses

import numpy as np
import torch
from pc_data import augment
from pc_data.augment import Box
from pc_data.batch import PointBatch, point_features, to_batch
from pc_data.errors import DataError
from pc_data.scan import Scan
from pc_geometry import knn


def training_sample(
    scan: Scan,
    rng: np.random.Generator,
    *,
    intensity_mean: float,
    intensity_std: float,
    box: Box,
    voxel_size: float = 0.1,
    max_points: int = 20_000,
    num_neighbors: int = 16,
) -> PointBatch:
    """Make an augmented sample: geometry and input features are augmented independently.

    Geometry (cells and neighbours) is rotated and flipped; the coordinates among the features are
    rotated by another angle and scaled.

    Args:
        scan: A labelled scan.
        rng: Draws the augmentation.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        box: Field of view: its lower and upper corner in metres.
        voxel_size: Metres; one random point of each voxel stays.
        max_points: The nearest to a random point stay.
        num_neighbors: For the backbone.

    Raises:
        DataError: If the scan has no labels, or no point in the box.

    Source: the downstream training of ScaLR's released code (Puy et al., CVPR 2024).
    """
    if scan.labels is None:
        raise DataError(f"scan {scan.name} has no labels; probing and fine-tuning need them")
    scan = augment.thin(scan, rng, voxel_size=voxel_size)
    scan = augment.crop_nearest(scan, rng, max_points=max_points)
    seen = augment.flip(augment.rotate_z(scan, rng), rng)
    felt = augment.scale(augment.rotate_z(scan, rng), rng)
    inside = _inside(seen, box)
    feat = point_features(felt, intensity_mean=intensity_mean, intensity_std=intensity_std)
    return to_batch(seen.select(inside), feat[inside], num_neighbors=num_neighbors)


def evaluation_sample(
    scan: Scan,
    rng: np.random.Generator,  # noqa: ARG001 - samples are made by (scan, rng)
    *,
    intensity_mean: float,
    intensity_std: float,
    box: Box,
    voxel_size: float = 0.1,
    num_neighbors: int = 16,
) -> PointBatch:
    """Make a sample without randomness whose predictions reach every original point.

    The network sees one point a voxel, the first in file order; every original point, also one
    outside the box, takes the answer of the nearest of these (`nearest`, `all_labels`).

    Source: the validation of ScaLR's released code (Puy et al., CVPR 2024).
    """
    kept = augment.thin(scan, None, voxel_size=voxel_size)
    kept = kept.select(_inside(kept, box))
    feat = point_features(kept, intensity_mean=intensity_mean, intensity_std=intensity_std)
    sample = to_batch(kept, feat, num_neighbors=num_neighbors)
    nearest = knn(scan.xyz, kept.xyz, 1)[1][:, 0]
    labels = np.full(len(scan), -1, np.int64) if scan.labels is None else scan.labels
    return dataclasses.replace(
        sample, nearest=torch.from_numpy(nearest), all_labels=torch.from_numpy(labels)
    )


def _inside(scan: Scan, box: Box) -> np.ndarray:
    inside = augment.inside_box(scan, box)
    if not inside.any():
        raise DataError(
            f"scan {scan.name}: none of its {len(scan)} points lies in the field of view "
            f"{box[0]} to {box[1]} m; check the units (metres) and the frame (sensor), or widen fov"
        )
    return inside
