"""From labelled scans to samples."""

import numpy as np
import pytest
from pc_data import DataError, Scan
from pc_train.samples import evaluation_sample, training_sample

BOX = ((-8.0, -8.0, -4.0), (8.0, 8.0, 4.0))
STATS = {"intensity_mean": 2.0, "intensity_std": 0.5, "box": BOX}


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
    sample = training_sample(_float(_scan()), rng, **STATS, max_points=100, voxel_size=0.5)
    assert len(sample.xyz) == 100


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


def test_labels_are_needed():
    with pytest.raises(DataError, match="scan s has no labels"):
        training_sample(_float(_scan(labels=False)), np.random.default_rng(0), **STATS)


def test_nothing_in_the_box():
    far = _float(_scan())
    far = Scan(**{**vars(far), "xyz": far.xyz + 1000})
    with pytest.raises(DataError, match="none of its 500 points lies in the field of view"):
        evaluation_sample(far, np.random.default_rng(0), **STATS)
