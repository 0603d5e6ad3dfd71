"""The precise test: every point of a scan is predicted itself, many times, in turned copies of it.

A network that takes one point a voxel sees the scan in fragments, each with one point of every
voxel; as many fragments as the fullest voxel has points show it all of them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from pc_data import augment
from pc_data.augment.spatial import center_shift, rotation_about
from pc_data.batch import to_batch
from pc_data.errors import DataError
from pc_data.features import point_features
from pc_data.scan import Scan
from pc_geometry import occupied_volumes

from pc_train.segmentation import SegmentationModel

PASSES = tuple(
    (turn, scale, 2 if (turn, scale) == (2, 1.0) else 1)
    for scale in (1.0, 0.95, 1.05)
    for turn in range(4)
)
"""Quarter turns about z, scale, and how often the pass counts.

A mirror of both x and y, the thirteenth pass of the published protocol, is the half turn once more:
here that one counts twice instead.
"""


@torch.inference_mode()
def precise_scores(
    model: SegmentationModel,
    scan: Scan,
    *,
    features: Sequence[str],
    intensity_mean: float = 0.0,
    intensity_std: float = 1.0,
    voxel_size: float,
    device: torch.device | str,
    report: Callable[[int, int], None] | None = None,
) -> Float32[np.ndarray, "m k"]:
    """Sum the class probabilities of every point over 13 passes.

    The scan is put in the middle of its bounding box; each pass turns and scales it about there,
    normals included, and shows it to the network in `fragments`, one at a time: memory holds one
    fragment and the sum, however many points a voxel has; but the network runs 12 times as often
    as the fullest voxel has points. Nothing is random.

    A point is seen once a pass, or more often if another voxel has more points, so rows differ in
    their sums; the prediction is the argmax of each.

    Args:
        model: Goes to `device` and into eval mode.
        scan: One with points; needs no labels.
        features: Names of the network's inputs (`pc_data.features`), prepared as in training.
        intensity_mean: Of the dataset.
        intensity_std: Of the dataset.
        voxel_size: Metres; of the scan's scaled copies too.
        device: Where the network runs and the sum is kept.
        report: Called with the passes done and their number after each.

    Raises:
        DataError: If the scan has no points, lacks a feature, or leaves the network's field of view
            in a pass.
        ValueError: If `voxel_size` is not positive.

    Source: the testing of Pointcept, with which MSC was evaluated (Wu et al., CVPR 2023): released
        code and configuration of its fine-tuning on ScanNet. Differs in the order of the points of
        a voxel, by index here; and a fragment is not centred a second time, which would move it by
        less than a voxel.
    """
    if not len(scan):
        raise DataError(f"scan {scan.name} has no points to predict; leave it out")
    model.eval().to(device)
    centered = _centered(scan)
    scores = torch.empty(0)  # the first answer tells the number of classes
    for done, (turn, scale, weight) in enumerate(PASSES, start=1):
        seen = _moved(centered, turn, scale)
        _require_inside(seen, model.backbone.fov)
        feat = point_features(
            seen, features, intensity_mean=intensity_mean, intensity_std=intensity_std
        )
        for index in fragments(seen.xyz, voxel_size):
            part = Scan(name=scan.name, xyz=seen.xyz[index])
            batch = to_batch(part, feat[index], num_neighbors=model.backbone.num_neighbors)
            probability = model(batch.to(device)).float().softmax(1)
            if not len(scores):
                scores = probability.new_zeros(len(scan), probability.shape[1])
            scores[torch.from_numpy(index).to(device)] += weight * probability
        if report is not None:
            report(done, len(PASSES))
    return scores.cpu().numpy()


def fragments(
    xyz: Float[np.ndarray, "n 3"], voxel_size: float
) -> Iterator[Int64[np.ndarray, " v"]]:
    """Cut a cloud into parts with exactly one point of every voxel.

    Fragment i takes point i mod c of a voxel with c points, in order of their indices. There are as
    many fragments as the fullest voxel has points, so every point is in one at least. They are made
    one at a time: memory grows with the number of points, not with that of fragments.

    Args:
        xyz: Positions; voxels are those of a grid that starts at the origin.
        voxel_size: Side of a voxel, in the unit of `xyz`.

    Returns:
        Indices of the points of one fragment after the other, by voxel in order of the voxels'
        first appearance; nothing for no points.

    Raises:
        ValueError: If `voxel_size` is not positive or a coordinate is not finite.

    Source: GridSample in testing, of Pointcept's released code (MSC, Wu et al., CVPR 2023).

    >>> [part.tolist() for part in fragments(np.float32([[0, 0, 0], [9, 0, 0], [0, 0, 0]]), 0.1)]
    [[0, 1], [2, 1]]
    """
    voxel = occupied_volumes(xyz, voxel_size, origin=np.zeros(3))
    count = np.bincount(voxel)
    order = np.argsort(voxel, kind="stable")
    first = np.cumsum(count) - count
    return (order[first + i % count] for i in range(count.max(initial=0)))


def require_inside_passes(scan: Scan, fov: Float[torch.Tensor, "2 3"] | None) -> None:
    """Check that a scan stays in a network's field of view in every pass.

    Args:
        scan: Any scan.
        fov: Lower and upper corner in metres; None for none.

    Raises:
        DataError: If a point leaves it.
    """
    centered = _centered(scan)
    for turn, scale, _ in PASSES:
        _require_inside(_moved(centered, turn, scale), fov)


def _centered(scan: Scan) -> Scan:
    """What a network sees of a scan: there is nothing else to move twelve times."""
    bare = dataclasses.replace(
        scan, labels=None, instance=None, time=None, boxes=None, cameras=(), pose=None
    )
    return center_shift(bare, np.random.default_rng(0))  # draws nothing


def _moved(centered: Scan, turn: int, scale: float) -> Scan:
    return augment.move(centered, scale * np.round(rotation_about(2, turn * np.pi / 2)))


def _require_inside(seen: Scan, fov: Float[torch.Tensor, "2 3"] | None) -> None:
    if fov is None:
        return
    low, high = fov.tolist()
    num_outside = int((~augment.inside_box(seen, (tuple(low), tuple(high)))).sum())
    if num_outside:
        raise DataError(
            f"scan {seen.name}: {num_outside} of its {len(seen)} points leave the network's field "
            f"of view {low} to {high} m when the centred scan is turned and scaled; the precise "
            "test predicts every point itself, so take a network with a wider one or the plain test"
        )
