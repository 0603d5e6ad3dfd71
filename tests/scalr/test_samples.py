"""ScaLR's input pipeline."""

from functools import partial

import numpy as np
import pytest
import torch
from pc_data import Camera, DataError, NuScenes, Scan
from pc_data.augment import pixels_of, see_one_camera, thin
from pc_data.loading import sample_rng
from PIL import Image
from scalr.pictures import picture_of_batch
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
    expected = np.floor(np.floor(pixels_of(seen, camera)) * scale)
    np.testing.assert_array_equal(sample.pixel.numpy(), expected)


def test_point_at_the_edge_of_the_image_stays_in_it(tmp_path):
    """Augmentation moves points and cameras; rounding must not push a pixel off the image."""
    intrinsics = np.array([[50, 0, 0], [0, 50, 0], [0, 0, 1.0]])
    camera = Camera(
        name="CAM",
        image_file=tmp_path / "image.png",
        image_size=(100, 80),
        intrinsics=intrinsics,
        from_scan=np.array([[0, -1.0, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    )
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(camera.image_file)
    depth = np.linspace(2, 50, 500)
    xyz = np.stack([depth, np.full(500, -1e-9), np.full(500, -1.0)], 1).astype(np.float32)
    scan = Scan(name="s", xyz=xyz, intensity=np.zeros(500, np.float32), cameras=(camera,))
    for index in range(20):
        pixel = MAKE(scan, sample_rng(0, 0, index)).pixel
        assert pixel.min() >= 0


def test_no_point_in_the_field_of_view(street_world):
    scan = NuScenes(street_world)[0]
    far = ((900.0, 900.0, 900.0), (901.0, 901.0, 901.0))
    with pytest.raises(DataError, match=rf"scan {scan.name}: in 10 draws no camera saw a point in"):
        MAKE(scan, sample_rng(0, 0, 0), box=far)


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


def test_picture_of_the_first_batch(street_world):
    sample = MAKE(NuScenes(street_world)[0], sample_rng(0, 0, 0))
    image, cloud = picture_of_batch(sample).axes
    dots, points = (axes.collections[0] for axes in (image, cloud))
    np.testing.assert_array_equal(dots.get_offsets(), sample.pixel.numpy())
    order = np.argsort(sample.xyz[:, 2].numpy(), kind="stable")
    colors = np.asarray(dots.get_facecolors())
    np.testing.assert_array_equal(colors[order], points.get_facecolors())
    assert len(np.unique(colors, axis=0)) > 100
