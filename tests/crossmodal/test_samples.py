"""Units as batches: means over points and over cameras, packing, what is left out."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from crossmodal.samples import Bags, UnitBatch, make_units
from pc_data import DataError, NuScenes
from pc_data.augment.pairs import pair_pixels
from pc_data.images import resize_pixels
from pc_data.loading import sample_rng
from pc_geometry import segment_ground
from pc_geometry.units import contrastive_units

BOX = ((-51.2, -51.2, -5.0), (51.2, 51.2, 3.0))
FEATURES = ("x", "y", "z", "intensity")
FIND = partial(contrastive_units, num_units=40)
MAKE = partial(
    make_units,
    features=FEATURES,
    intensity_mean=18.0,
    intensity_std=22.0,
    box=BOX,
    find_units=FIND,
    sensor_height=1.84,
    image_size=(64, 128),
)


@pytest.fixture(scope="module")
def scan(street_world):
    return NuScenes(street_world)[0]


def test_sample(scan):
    sample = MAKE(scan, sample_rng(0, 0, 0), with_other=True)
    assert sample.images.shape == (6, 3, 64, 128)
    assert 0 < len(sample.unit_scan) <= 40
    assert len(sample.other.xyz) == len(sample.points.xyz)
    assert not torch.equal(sample.other.xyz, sample.points.xyz)
    torch.testing.assert_close(sample.points.feat[:, :3], sample.points.xyz)
    u, v = sample.pixel.T
    assert 0 <= u.min() <= u.max() < 128
    assert 0 <= v.min() <= v.max() < 64
    for bags in (sample.point_bags, sample.pixel_bags):
        ones = bags.mean(torch.ones(int(bags.rows.max()) + 1, 1))
        torch.testing.assert_close(ones, torch.ones(len(sample.unit_scan), 1))


def test_units_average_cameras_then_points(scan):
    """Against a loop over the units of the scan, whose points all stay in a large box."""
    wide = ((-999.0, -999.0, -999.0), (999.0, 999.0, 999.0))
    sample = MAKE(scan, sample_rng(0, 0, 0), box=wide)
    pairs = pair_pixels(scan)
    visible = np.zeros(len(scan), bool)
    visible[pairs.point] = True
    ground = segment_ground(scan.xyz, sensor_height=1.84)
    sizes = np.array([camera.image_size for camera in scan.cameras])
    moved = np.stack(
        [
            resize_pixels(pixel[None], tuple(sizes[index]), (64, 128))[0]
            for pixel, index in zip(pairs.pixel, pairs.image_index, strict=True)
        ]
    )
    reads = {}
    for point, index, pixel in zip(pairs.point, pairs.image_index, moved, strict=True):
        reads.setdefault(point, []).append([index, *pixel])
    found = torch.cat([sample.image_index[:, None], sample.pixel], dim=1)
    got = sample.pixel_bags.mean(found).numpy()
    candidates = {int(i) for i in np.flatnonzero(visible & ~ground)}
    splits = np.append(sample.point_bags.starts.numpy(), len(sample.point_bags.rows))
    for unit, (first, last) in enumerate(itertools.pairwise(splits)):
        rows = sample.point_bags.rows[first:last].tolist()
        assert set(rows) <= candidates
        weights = sample.point_bags.weight[first:last].numpy()
        expected = sum(
            w * np.mean(reads[row], axis=0) for row, w in zip(rows, weights, strict=True)
        )
        np.testing.assert_allclose(got[unit], expected, rtol=1e-4, atol=1e-3)


def test_sample_follows_from_its_key(scan):
    first, again, other = (MAKE(scan, sample_rng(0, 0, i)) for i in (0, 0, 1))
    assert torch.equal(first.points.xyz, again.points.xyz)
    assert torch.equal(first.point_bags.rows, again.point_bags.rows)
    assert not torch.equal(first.points.feat[:50], other.points.feat[:50])


def test_points_outside_the_box_are_in_no_unit(scan):
    near = ((-12.0, -12.0, -5.0), (12.0, 12.0, 3.0))
    sample = MAKE(scan, sample_rng(0, 0, 0), box=near, with_other=True)
    for cloud in (sample.points, sample.other):
        assert cloud.xyz.abs().max() < 12
    assert sample.point_bags.rows.max() < len(sample.points.xyz)


def test_pack_shifts_everything(scan):
    samples = [MAKE(scan, sample_rng(0, 0, i), with_other=True) for i in range(3)]
    packed = UnitBatch.pack(samples)
    assert len(packed) == 3
    assert packed.images.shape[0] == 18
    units = np.cumsum([0, *(len(sample.unit_scan) for sample in samples)])
    point = packed.point_bags.mean(packed.points.xyz)
    other = packed.point_bags.mean(packed.other.xyz)
    # An image's number is shifted by those before it: compare pixels with it as a column.
    pixel = packed.pixel_bags.mean(torch.cat([packed.pixel, packed.image_index[:, None]], 1))
    for number, sample in enumerate(samples):
        part = slice(units[number], units[number + 1])
        torch.testing.assert_close(point[part], sample.point_bags.mean(sample.points.xyz))
        torch.testing.assert_close(other[part], sample.point_bags.mean(sample.other.xyz))
        alone = torch.cat([sample.pixel, sample.image_index[:, None] + 6 * number], 1)
        torch.testing.assert_close(pixel[part], sample.pixel_bags.mean(alone), rtol=1e-4, atol=1e-4)
        assert (packed.unit_scan[part] == number).all()
    moved = packed.to("cpu")
    assert torch.equal(moved.pixel_bags.rows, packed.pixel_bags.rows)


def test_without_images(scan):
    sample = MAKE(scan, sample_rng(0, 0, 0), with_images=False)
    assert sample.images is None
    assert UnitBatch.pack([sample, sample]).images is None
    with pytest.raises(ValueError, match=r"the batch of scans .* has no images"):
        sample.need("images")


def test_bags_against_a_loop():
    bags = Bags(
        rows=torch.tensor([0, 2, 1]),
        weight=torch.tensor([0.25, 0.75, 1.0]),
        starts=torch.tensor([0, 2]),
    )
    values = torch.tensor([[1.0], [2.0], [5.0]])
    torch.testing.assert_close(bags.mean(values), torch.tensor([[4.0], [2.0]]))
    joined = Bags.join([bags, bags], [3, 3])
    torch.testing.assert_close(
        joined.mean(torch.cat([values, 10 * values])), torch.tensor([[4.0], [2.0], [40.0], [20.0]])
    )


def test_nothing_to_see(scan):
    with pytest.raises(DataError, match="no point off the ground is seen by a camera"):
        MAKE(scan, sample_rng(0, 0, 0), min_depth=1e6)
