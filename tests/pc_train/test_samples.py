"""From labelled scans to samples."""

from functools import partial

import numpy as np
import pytest
from pc_data import DataError, Scan, augment
from pc_data.features import ROOM_FEATURES, point_features
from pc_train.samples import (
    AUGMENTATIONS,
    augment_lidar,
    augment_room,
    evaluation_sample,
    training_sample,
)

from tests.pc_data.scans import scan_of

BOX = ((-8.0, -8.0, -4.0), (8.0, 8.0, 4.0))
STATS = {"intensity_mean": 2.0, "intensity_std": 0.5, "box": BOX}
ROOM = {
    "features": ROOM_FEATURES,
    "intensity_mean": 0.0,
    "intensity_std": 1.0,
    "box": None,
    "num_neighbors": 0,
}


def _scan(n=500, reach=7.0, labels=True):
    rng = np.random.default_rng(0)
    return Scan(
        name="s",
        xyz=rng.uniform(-reach, reach, (n, 3)).astype(np.float32) * [1, 1, 0.3],
        intensity=rng.uniform(0, 9, n).astype(np.float32),
        labels=rng.integers(-1, 4, n) if labels else None,
    )


def _float(scan):
    return Scan(**{**vars(scan), "xyz": scan.xyz.astype(np.float32)})


def test_geometry_and_features_are_augmented_independently():
    sample = training_sample(_float(_scan()), np.random.default_rng(1), **STATS)
    seen, felt = sample.xyz.numpy(), sample.feat.numpy()[:, 1:4]
    radius_ratio = np.linalg.norm(felt, axis=1) / np.linalg.norm(seen, axis=1)
    assert 0.9 <= radius_ratio[0] <= 1.1
    np.testing.assert_allclose(radius_ratio, radius_ratio[0], rtol=1e-4)  # one scale for all
    np.testing.assert_allclose(felt[:, 2], seen[:, 2] * radius_ratio[0], rtol=1e-3, atol=1e-5)
    assert np.abs(felt[:, :2] - seen[:, :2]).max() > 1  # rotated by another angle
    assert sample.labels is not None
    assert len(sample.labels) == len(sample.xyz)


def test_training_limits():
    rng = np.random.default_rng(0)
    limited = partial(augment_lidar, max_points=100, voxel_size=0.5)
    sample = training_sample(_float(_scan()), rng, augment=limited, **STATS)
    assert len(sample.xyz) == 100


def test_lidar_samples_are_bitwise_those_of_the_steps_by_hand():
    scan, rng = _float(_scan()), np.random.default_rng(7)
    kept = augment.crop_nearest(augment.thin(scan, rng, voxel_size=0.4), rng, max_points=300)
    seen = augment.flip(augment.rotate_z(kept, rng), rng)
    felt = augment.scale(augment.rotate_z(kept, rng), rng)
    inside = augment.inside_box(seen, BOX)
    feat = point_features(felt, intensity_mean=2.0, intensity_std=0.5)[inside]
    made = training_sample(
        scan,
        np.random.default_rng(7),
        augment=partial(augment_lidar, max_points=300, voxel_size=0.4),
        **STATS,
    )
    assert np.array_equal(made.xyz, seen.xyz[inside])
    assert np.array_equal(made.feat, feat)
    assert np.array_equal(made.labels, seen.labels[inside])
    assert made.neighbors.shape[1] == 16


def test_rooms_need_no_field_of_view_and_no_neighbours():
    room = partial(augment_room, voxel_size=0.5, max_points=150)
    sample = training_sample(scan_of(400), np.random.default_rng(0), augment=room, **ROOM)
    assert sample.neighbors is None
    assert sample.feat.shape == (150, 6)
    assert sample.feat[:, :3].abs().max() <= 1
    np.testing.assert_allclose(sample.feat[:, 3:].norm(dim=1), 1, atol=1e-5)
    cells = np.floor(sample.xyz.numpy() / 0.5 + 1e-4)
    assert len(np.unique(cells, axis=0)) > 140  # still about one a voxel, in its cell's border


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_labelled_points_survive(name):
    scan = scan_of(3000, extent=2.0)
    labels = np.full(3000, -1)
    labels[::100] = np.arange(30) % 4
    scan = Scan(**{**vars(scan), "labels": labels})
    for seed in range(8):  # drops a fifth of the points in a fifth of the cases
        augmented = AUGMENTATIONS[name](
            scan, np.random.default_rng(seed), voxel_size=1.0, keep_labelled=True
        )
        found = np.sort(augmented.seen.instance[augmented.seen.labels >= 0])
        assert np.array_equal(found, np.arange(0, 3000, 100))
        assert len(augmented.seen) < 400
    few = AUGMENTATIONS[name](scan, np.random.default_rng(0), voxel_size=1.0)
    assert (few.seen.labels >= 0).sum() < 30


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_augmentations_are_pure(name):
    scan = scan_of(300)
    first, second = (AUGMENTATIONS[name](scan, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.seen.xyz, second.seen.xyz)
    assert np.array_equal(first.felt.xyz, second.felt.xyz)
    assert (first.seen is first.felt) == (name != "lidar")


def test_sheared_scans():
    from pc_data.scan import Boxes

    scan = _float(_scan())
    boxes = Boxes(cuboid=np.zeros((1, 7)), labels=np.zeros(1, np.int64), track=("",))
    boxed = Scan(**{**vars(scan), "boxes": boxes})  # which no shear leaves boxes
    augmented = AUGMENTATIONS["sheared"](boxed, np.random.default_rng(0), voxel_size=1e-3)
    assert augmented.seen is augmented.felt
    moved = augmented.seen.xyz.astype(np.float64)
    linear = np.linalg.lstsq(np.c_[scan.xyz, np.ones(len(scan))], moved, rcond=None)[0]
    np.testing.assert_allclose(np.c_[scan.xyz, np.ones(len(scan))] @ linear, moved, atol=1e-4)
    assert np.abs(linear[3]).max() <= 0.1  # of a voxel; the frame stays the sensor's
    turn = linear[:3] @ linear[:3].T
    assert 0.01 < np.abs(turn - np.eye(3)).max() < 1  # no rotation


def test_same_rng_same_sample():
    first, second = (
        training_sample(_float(_scan()), np.random.default_rng(4), **STATS) for _ in range(2)
    )
    assert np.array_equal(first.feat, second.feat)


def test_every_original_point_is_answered_by_its_nearest():
    scan = _float(_scan(reach=12.0))  # some points lie outside the box
    sample = evaluation_sample(scan, np.random.default_rng(0), **STATS, voxel_size=0.8)
    assert len(sample.xyz) < len(scan) == len(sample.nearest) == len(sample.all_labels)
    squared = np.square(scan.xyz[:, None] - sample.xyz.numpy()).sum(-1)
    chosen = squared[np.arange(len(scan)), sample.nearest]
    np.testing.assert_allclose(chosen, squared.min(1), rtol=1e-5)
    assert np.array_equal(sample.all_labels, scan.labels)


def test_voxels_from_the_origin():
    """As the cells of a sparse network: one point of each, the first in file order."""
    scan = _float(_scan(2000))
    sample = evaluation_sample(
        scan, np.random.default_rng(0), **STATS | {"box": None}, voxel_size=1.0, from_origin=True
    )
    cells = np.floor(scan.xyz / np.float64(1.0)).astype(int)
    first = np.sort(np.unique(cells, axis=0, return_index=True)[1])
    assert np.array_equal(sample.xyz, scan.xyz[first])
    kept = np.floor(sample.xyz.numpy())
    assert len(np.unique(kept, axis=0)) == len(kept)


def test_rooms_without_labels_can_be_seen():
    scan = Scan(**{**vars(scan_of(60)), "labels": None})
    sample = evaluation_sample(scan, np.random.default_rng(0), **ROOM, voxel_size=1.0)
    assert sample.all_labels.tolist() == [-1] * 60
    assert sample.feat.shape[1] == 6


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_labels_are_needed_by_all(name):
    with pytest.raises(DataError, match="scan s has no labels; probing and fine-tuning need them"):
        AUGMENTATIONS[name](_float(_scan(labels=False)), np.random.default_rng(0))


def test_labels_are_needed():
    with pytest.raises(DataError, match="scan s has no labels"):
        training_sample(_float(_scan(labels=False)), np.random.default_rng(0), **STATS)


def test_nothing_in_the_box():
    far = _float(_scan())
    far = Scan(**{**vars(far), "xyz": far.xyz + 1000})
    with pytest.raises(DataError, match="none of its 500 points lies in the field of view"):
        evaluation_sample(far, np.random.default_rng(0), **STATS)
