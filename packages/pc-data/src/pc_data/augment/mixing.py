"""Augmentations that put points of one labelled scan into another.

Functions `(scan, other, rng) -> scan`. Two scans mix where they know the same of their points. The
result has the frame, pose and name of the first. It has no cameras, since no image shows it, and
boxes only by `mix3d` and `join`: elsewhere objects are cut or hidden.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from pc_geometry import voxel_subsample
from pc_geometry.arrays import require_count

from pc_data import augment
from pc_data.augment.draws import happens, require_least
from pc_data.augment.spatial import rotate, shift
from pc_data.errors import DataError
from pc_data.scan import Boxes, Scan

_FIELDS = ("intensity", "color", "normal", "labels", "instance", "time", "boxes")

KITTI_PASTED = (1, 2, 4, 5, 6)
"""SemanticKITTI's bicycle, motorcycle, other vehicle, person and bicyclist."""

KITTI_SURFACES = (8, 9, 10)
"""SemanticKITTI's road, parking and sidewalk."""


def mix3d(scan: Scan, other: Scan, rng: np.random.Generator, *, probability: float = 0.8) -> Scan:
    """Overlay two scenes, with their lower corners at the same place.

    Args:
        scan: A scene, augmented.
        other: Another one, augmented by other draws.
        rng: Draws whether to mix.
        probability: Of mixing.

    Raises:
        DataError: If one scan knows of its points what the other does not.
        ValueError: If the probability is not in [0, 1].

    Source: Mix3D (Nekrasov et al., 3DV 2021), which puts the middles together; the corners are
        those of MSC's released code (Wu et al., CVPR 2023): also its view mixing in pre-training,
        which merges neighbours in the batch and so overlays their grids.
    """
    if not happens(rng, probability) or not len(scan) or not len(other):
        return scan
    return join(scan, shift(other, (scan.xyz.min(0) - other.xyz.min(0)).astype(np.float64)))


def polar_mix(
    scan: Scan,
    other: Scan,
    rng: np.random.Generator,
    *,
    classes: Sequence[int] = KITTI_PASTED,
    swap_probability: float = 0.5,
    num_copies: int = 3,
) -> Scan:
    """Replace half of the turn around the sensor by that of another scan; paste its objects.

    Args:
        scan: In the sensor's frame.
        other: From the same kind of sensor.
        rng: Draws the sector and the turns.
        classes: Classes whose points are pasted.
        swap_probability: Of replacing the sector.
        num_copies: How often the points are pasted: once as they are, then turned about z by any
            angle.

    Raises:
        DataError: If a scan has no labels, or one knows of its points what the other does not.
        ValueError: If the probability is not in [0, 1] or `num_copies` is negative.

    Source: PolarMix (Xiao et al., NeurIPS 2022), with the classes, the two free turns and the
        chance of WaffleIron's training (Puy et al., ICCV 2023). Not part of ScaLR.
    """
    require_count("num_copies", num_copies, least=0)
    scan, other = (dataclasses.replace(part, boxes=None) for part in (scan, other))
    pasted = other.select(np.isin(_labels(other), classes))
    mixed = scan
    if happens(rng, swap_probability):
        start = rng.uniform(-np.pi, np.pi)
        mixed = join(
            scan.select(~_in_half_turn(scan, start)), other.select(_in_half_turn(other, start))
        )
    copies = [pasted if i == 0 else rotate(pasted, rng) for i in range(num_copies)]
    return join(mixed, *copies)


def cut_instances(
    scan: Scan, *, classes: Sequence[int] = KITTI_PASTED, min_points: int = 6
) -> dict[int, list[Scan]]:
    """Cut the objects out of a scan, each put on the origin by its mean x and y and its lowest z.

    Args:
        scan: With labels and instances.
        classes: Classes of the objects.
        min_points: Smaller objects are left out.

    Returns:
        The objects of each class; those of many scans together are the bank of `instance_cutmix`.

    Raises:
        DataError: If the scan has no labels or no instances.

    Source: instance CutMix of WaffleIron's released code (Puy et al., ICCV 2023).
    """
    labels = _labels(scan)
    if scan.instance is None:
        raise DataError(f"scan {scan.name} has no instances; cutting objects out needs them")
    bare = dataclasses.replace(scan, boxes=None, cameras=())
    bank: dict[int, list[Scan]] = {}
    for label in classes:
        member = labels == label
        bank[label] = []
        for instance in np.unique(scan.instance[member]):
            part = member & (scan.instance == instance)
            if instance == 0 or part.sum() < min_points:
                continue
            cut = bare.select(part)
            place = np.append(cut.xyz[:, :2].mean(0, dtype=np.float64), cut.xyz[:, 2].min())
            bank[label].append(shift(cut, -place))
    return bank


def instance_cutmix(
    scan: Scan,
    bank: Mapping[int, Sequence[Scan]],
    rng: np.random.Generator,
    *,
    surfaces: Sequence[int] = KITTI_SURFACES,
    max_per_class: int = 40,
    spacing: float = 1.0,
) -> Scan:
    """Paste objects of rare classes onto the ground.

    Each object is mirrored in x or y, turned about z and scaled by 0.9 to 1.1.

    Args:
        scan: With labels.
        bank: Objects of each class, by `cut_instances`.
        rng: Draws the numbers, the objects, their places and turns.
        surfaces: Classes of points to put objects on.
        max_per_class: Of each class, fewer than so many are pasted, each number as likely; none
            once the places run out.
        spacing: Metres between places: one a voxel of that side.

    Raises:
        DataError: If the scan has no labels, or knows of its points what the objects do not.
        ValueError: If `max_per_class` or `spacing` is not positive.

    Source: instance CutMix of WaffleIron's released code (Puy et al., ICCV 2023), for SemanticKITTI
        after PolarMix. Not part of ScaLR.
    """
    require_count("max_per_class", max_per_class)
    require_least("spacing", spacing, above=True)
    one_each = voxel_subsample(scan.xyz, spacing, rng=rng)[0]
    places = one_each[np.isin(_labels(scan)[one_each], surfaces)]
    remaining = list(scan.xyz[rng.permutation(places)].astype(np.float64))
    pasted = []
    for objects in bank.values():
        number = min(int(rng.integers(max_per_class)), len(remaining))
        for _ in range(number if len(objects) else 0):
            copy = augment.flip(objects[int(rng.integers(len(objects)))], rng, probability=1.0)
            copy = augment.scale(augment.rotate_z(copy, rng), rng)
            pasted.append(shift(copy, remaining.pop()))
    return join(dataclasses.replace(scan, boxes=None), *pasted)


def join(scan: Scan, *others: Scan) -> Scan:
    """Put the points and boxes of scans into the first one's, whose frame they must be in.

    Objects stay apart: the instances of each further scan are numbered on.

    Raises:
        DataError: If one scan knows of its points what another does not, or only one has boxes.
    """
    scans = (scan, *others)
    joined: dict[str, Any] = {"xyz": np.concatenate([part.xyz for part in scans])}
    for name in _FIELDS:
        values = [getattr(part, name) for part in scans]
        has = [value is not None for value in values]
        if any(has) and not all(has):
            knows, lacks = scans[has.index(True)].name, scans[has.index(False)].name
            raise DataError(
                f"scan {knows} has {name} and scan {lacks} has none; mix scans of the same dataset"
            )
        if all(has):
            joined[name] = _JOIN.get(name, np.concatenate)(values)
    return dataclasses.replace(scan, **joined, cameras=())


def _join_boxes(parts: list[Boxes]) -> Boxes:
    return Boxes(
        cuboid=np.concatenate([part.cuboid for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        track=tuple(track for part in parts for track in part.track),
    )


def _number_on(parts: list[np.ndarray]) -> np.ndarray:
    numbered, highest = [], 0
    for part in parts:
        part = np.where(part > 0, part + highest, part)
        highest = max(highest, int(part.max(initial=0)))
        numbered.append(part)
    return np.concatenate(numbered)


_JOIN: dict[str, Callable[[list], Any]] = {"boxes": _join_boxes, "instance": _number_on}


def _in_half_turn(scan: Scan, start: float) -> Bool[np.ndarray, " n"]:
    angle = (np.arctan2(scan.xyz[:, 1], scan.xyz[:, 0]) - start) % (2 * np.pi)
    return (angle > 0) & (angle < np.pi)


def _labels(scan: Scan) -> Int64[np.ndarray, " n"]:
    if scan.labels is None:
        raise DataError(f"scan {scan.name} has no labels; mixing by class needs them")
    return scan.labels
