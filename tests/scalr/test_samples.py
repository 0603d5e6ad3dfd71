"""ScaLR's input pipeline."""

from functools import partial

import numpy as np
import pytest
import torch
from pc_data import Camera, DataError, NuScenes, Scan
from pc_data.augment import pixels_of, see_one_camera, thin
from pc_data.loading import sample_rng
from scalr.samples import make_pair

BOX = ((-64.0, -64.0, -8.0), (64.0, 64.0, 8.0))
MAKE = partial(
    make_pair, intensity_mean=18.7, intensity_std=22.0, min_depth=1.0, min_x=-np.inf, box=BOX
)


def test_sample_of_the_synthetic_world(street_world):
    scan = NuScenes(street_world)[0]
    sample = MAKE(scan, sample_rng(0, 0, 0))
    assert sample.images.shape == (1, 3, 224, 448)
    assert 0 <= sample.images.min() <= sample.images.max() <= 1
    assert sample.neighbors.shape == (len(sample.xyz), 16)
    u, v = sample.pixel.T
    assert torch.equal(sample.pixel, sample.pixel.floor())
    assert 0 <= u.min() <= u.max() < 448
    assert 0 <= v.min() <= v.max() < 224
    torch.testing.assert_close(sample.feat[:, 1:4], sample.xyz)
    torch.testing.assert_close(sample.feat[:, 4], sample.xyz.norm(dim=1))


def test_augmented_points_keep_their_pixels(street_world):
    """The sample's pixels are those of the points before augmentation."""
    scan = NuScenes(street_world)[0]
    everywhere = ((-300.0, -300.0, -300.0), (300.0, 300.0, 300.0))
    sample = MAKE(scan, sample_rng(0, 0, 5), box=everywhere)
    rng = sample_rng(0, 0, 5)
    seen = see_one_camera(thin(scan, rng), rng, min_depth=1.0)
    (camera,) = seen.cameras
    scale = np.array([448 / camera.image_size[0], 224 / camera.image_size[1]])
    expected = np.floor(pixels_of(seen, camera) * scale)
    assert len(sample.pixel) == len(seen)
    assert np.mean(np.abs(sample.pixel.numpy() - expected).max(1) <= 1) > 0.999
    assert np.mean(sample.pixel.numpy() == expected) > 0.995


def test_limits(street_world):
    scan = NuScenes(street_world)[0]
    sample = MAKE(scan, sample_rng(0, 0, 0), max_points=200, image_size=(112, 224))
    assert len(sample.xyz) == 200
    assert sample.images.shape == (1, 3, 112, 224)


def test_seeds(street_world):
    scan = NuScenes(street_world)[0]
    first, again, other = (MAKE(scan, sample_rng(0, 0, index)) for index in (1, 1, 2))
    assert torch.equal(first.feat, again.feat)
    assert first.feat.shape != other.feat.shape or not torch.equal(first.feat, other.feat)


def test_no_point_visible():
    away = np.diag([1.0, 1.0, -1.0, 1.0])
    camera = Camera(
        name="CAM",
        image_file=None,
        image_size=(100, 80),
        intrinsics=np.array([[50, 0, 50], [0, 50, 40], [0, 0, 1.0]]),
        from_scan=away,
    )
    scan = Scan(name="s", xyz=np.float32([[0, 0, 5], [1, 1, 9]]), cameras=(camera,))
    with pytest.raises(DataError, match=r"scan s: no point is visible in any camera \(CAM\)"):
        MAKE(scan, sample_rng(0, 0, 0))
    with pytest.raises(DataError, match="no point is visible in any camera"):
        MAKE(Scan(name="s", xyz=scan.xyz), sample_rng(0, 0, 0))
