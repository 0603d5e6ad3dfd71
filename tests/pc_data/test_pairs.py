"""Pairs name the same point and the same spot of the world's image whatever is cut away."""

import numpy as np
import pytest
import torch
from pc_data.augment.image_crops import (
    ImageCrop,
    crop_image,
    crop_map,
    crop_pixels,
    draw_crop,
    whole_image,
)
from pc_data.augment.pairs import (
    PixelPairs,
    crop_paired,
    drop_cuboid_paired,
    pair_pixels,
    resize_paired,
)
from pc_data.images import resize_image
from pc_geometry import project_points

from tests.pc_data.scans import assert_same, copied, scan_of


def pairs_equal(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("point", "image_index", "pixel")
    )


def test_pair_pixels_lists_every_camera():
    scan = scan_of(400)
    pairs = pair_pixels(scan)
    expected = []
    for index, camera in enumerate(scan.cameras):
        pixel, depth = project_points(scan.xyz, camera.from_scan, camera.intrinsics)
        for point, ((u, v), z) in enumerate(zip(pixel, depth, strict=True)):
            if z > 1 and 0 < u < 63 and 0 < v < 47:
                expected.append((point, index, u, v))
    got = np.column_stack([pairs.point, pairs.image_index, pairs.pixel])
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert set(pairs.image_index) == {0, 1}
    assert pairs.pixel.dtype == np.float32


def test_no_cameras_no_pairs():
    pairs = pair_pixels(scan_of(5, cameras=()))
    assert len(pairs) == 0
    assert len(resize_paired(pairs, [])) == 0
    out, crops = crop_paired(pairs, [], np.random.default_rng(0))
    assert (len(out), crops) == (0, ())


@pytest.mark.parametrize("as_mask", [True, False])
def test_pairs_follow_their_points(as_mask):
    scan = scan_of(300)
    pairs = pair_pixels(scan)
    rng = np.random.default_rng(1)
    kept = rng.random(300) < 0.5 if as_mask else rng.permutation(300)[:140]
    out, after = scan.select(kept), pairs.follow(kept)
    remaining = np.isin(pairs.point, np.flatnonzero(kept) if as_mask else kept)
    assert 0 < len(after) == remaining.sum() < len(pairs)
    np.testing.assert_array_equal(out.instance[after.point], pairs.point[remaining])
    np.testing.assert_array_equal(after.pixel, pairs.pixel[remaining])
    assert len(pairs.follow(np.zeros(300, bool))) == 0


def test_drop_cuboid_drops_with_its_pairs():
    scan = scan_of(2000)
    pairs, before = pair_pixels(scan), copied(scan)
    dropped = 0
    for seed in range(20):
        out, after = drop_cuboid_paired(
            scan, pairs, np.random.default_rng(seed), side=(0.6, 0.6), min_pairs=5
        )
        dropped += len(out) < 2000
        expected = pairs.follow(np.isin(np.arange(2000), out.instance))
        assert pairs_equal(after, expected)
        again, _ = drop_cuboid_paired(
            scan, pairs, np.random.default_rng(seed), side=(0.6, 0.6), min_pairs=5
        )
        assert_same(again, out)
    assert dropped == 20
    assert_same(scan, before)


def test_drop_cuboid_leaves_enough_pairs_in_every_image():
    scan = scan_of(2000)
    pairs = pair_pixels(scan)
    fewest = np.bincount(pairs.image_index).min()
    outcomes = set()
    for seed in range(60):
        out, after = drop_cuboid_paired(
            scan, pairs, np.random.default_rng(seed), side=(0.5, 0.5), min_pairs=int(fewest) - 5
        )
        assert np.bincount(after.image_index, minlength=2).min() >= fewest - 5
        assert (out is scan) == (after is pairs)
        outcomes.add(out is scan)
    assert outcomes == {True, False}
    # SLidR's 1024, which this scan never has:
    assert drop_cuboid_paired(scan, pairs, np.random.default_rng(0))[0] is scan
    # An image that shows nothing counts too.
    none_ahead = pairs.select(pairs.image_index == 1)
    kept, _ = drop_cuboid_paired(scan, none_ahead, np.random.default_rng(0), min_pairs=1)
    assert kept is scan


@pytest.mark.parametrize("image_size", [(1600, 900), (64, 48), (10, 500)])
def test_draw_crop(image_size):
    rng, columns, rows = np.random.default_rng(2), *image_size
    crops = [draw_crop(image_size, rng) for _ in range(300)]
    for crop in crops:
        assert 0 <= crop.left <= crop.left + crop.width <= columns
        assert 0 <= crop.top <= crop.top + crop.height <= rows
        assert min(crop.width, crop.height) > 0
    share = np.array([crop.width * crop.height / (columns * rows) for crop in crops])
    shape = np.array([crop.width / crop.height for crop in crops])
    if image_size == (1600, 900):
        assert 0.29 < share.min() < 0.33
        assert 0.95 < share.max() <= 1
        assert 14 / 9 - 0.01 < shape.min() < shape.max() < 17 / 9 + 0.01
        assert np.mean([crop.mirrored for crop in crops]) == pytest.approx(0.5, abs=0.1)
        assert len({crop.left for crop in crops}) > 100
    if image_size == (10, 500):  # nothing of that shape is large enough: the middle
        assert {(crop.left, crop.top, crop.width, crop.height) for crop in crops} == {
            (0, 247, 10, 6)
        }


@pytest.mark.parametrize("mirrored", [False, True])
def test_pixels_stay_on_what_they_show(mirrored):
    """At whole factors, a pixel of the crop shows what the original pixel showed."""
    image = np.arange(40 * 60).reshape(40, 60)
    crop = ImageCrop(left=12, top=8, width=30, height=20, mirrored=mirrored)
    cut = crop_map(image, crop, (40, 60))
    v, u = np.mgrid[0:40, 0:60].reshape(2, -1)
    pixel, inside = crop_pixels(np.column_stack([u, v]).astype(np.float32), crop, (40, 60))
    expected = (u >= 12) & (u < 42) & (v >= 8) & (v < 28)
    np.testing.assert_array_equal(inside, expected)
    moved = pixel[inside].astype(int)
    shown = cut[moved[:, 1], moved[:, 0]]
    original = image.reshape(-1)[inside]
    if mirrored:  # the mirror image of the left one of two equal columns is the right one
        assert (moved[:, 0] % 2 == 1).all()
    np.testing.assert_array_equal(shown, original)


def test_rounding_as_slidr():
    crop = ImageCrop(left=100, top=50, width=832, height=448)
    pixel, inside = crop_pixels(np.float32([[100.6, 50.4], [931.4, 497.0]]), crop, (224, 416))
    assert pixel.tolist() == [[0.0, 0.0], [416.0, 224.0]]  # 0.5 and 223.5 to the even number
    assert inside.tolist() == [True, False]


@pytest.mark.parametrize("mirrored", [False, True])
def test_crop_image(mirrored):
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    crop = ImageCrop(left=5, top=7, width=32, height=20, mirrored=mirrored)
    cut = resize_image(crop_image(image, crop), (33, 50))
    expected = resize_image(image[7:27, 5:37], (33, 50))
    expected = expected.flip(2) if mirrored else expected
    torch.testing.assert_close(cut, expected)


def test_crop_map_is_nearest():
    numbers = np.random.default_rng(4).integers(0, 150, (90, 160), dtype=np.uint8)
    for size in ((224, 416), (30, 50)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(numbers)[None, None].float(), size=size, mode="nearest"
        )
        got = crop_map(numbers, whole_image((160, 90)), size)
        np.testing.assert_array_equal(got, expected[0, 0].numpy())
        assert got.dtype == np.uint8


SIZES = [(64, 48), (64, 48)]


def test_crop_paired():
    scan = scan_of(3000)
    pairs = pair_pixels(scan)
    for seed in range(15):
        out, crops = crop_paired(
            pairs, SIZES, np.random.default_rng(seed), size=(24, 40), min_pairs=50, min_share=0.9
        )
        again, _ = crop_paired(
            pairs, SIZES, np.random.default_rng(seed), size=(24, 40), min_pairs=50, min_share=0.9
        )
        assert pairs_equal(out, again)
        assert (out.pixel >= 0).all()
        assert (out.pixel < (40, 24)).all()
        np.testing.assert_array_equal(out.pixel, np.round(out.pixel))
        for index, crop in enumerate(crops):
            part = pairs.select(pairs.image_index == index)
            pixel, inside = crop_pixels(part.pixel, crop, (24, 40))
            kept = out.select(out.image_index == index)
            np.testing.assert_array_equal(kept.pixel, pixel[inside])
            np.testing.assert_array_equal(kept.point, part.point[inside])
            assert len(kept) > 50 or len(kept) > 0.9 * len(part)


def test_crops_are_drawn_until_enough_pairs_are_left():
    """All pairs in one corner: small crops miss it; the guard makes them hit it."""
    corner = PixelPairs(
        point=np.arange(20),
        image_index=np.zeros(20, int),
        pixel=np.random.default_rng(5).uniform(1, 6, (20, 2)).astype(np.float32),
    )
    rng = np.random.default_rng(6)
    free = [len(crop_paired(corner, SIZES[:1], rng, min_pairs=0)[0]) for _ in range(60)]
    assert min(free) < 20
    guarded = [len(crop_paired(corner, SIZES[:1], rng)[0]) for _ in range(60)]
    assert min(guarded) > 15
    # No crop of a tenth keeps all that is spread out: after 100 draws, the whole image.
    spread = pair_pixels(scan_of(3000))
    out, crops = crop_paired(spread, SIZES, rng, area=(0.1, 0.1), min_share=0.999)
    assert {(crop.left, crop.top, crop.width, crop.height) for crop in crops} == {(0, 0, 64, 48)}
    assert len(out) > 0.95 * len(spread)


def test_resize_paired_loses_none():
    pairs = pair_pixels(scan_of(500))
    out = resize_paired(pairs, SIZES, size=(24, 32))
    assert len(out) == len(pairs)
    order = np.argsort(pairs.image_index, kind="stable")
    expected = np.round(np.round(pairs.pixel[order]) / 2).clip(0, (31, 23))
    np.testing.assert_array_equal(out.pixel, expected)
    np.testing.assert_array_equal(out.point, pairs.point[order])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"area": (0.0, 1.0)}, r"area must be two finite numbers in order"),
        ({"ratio": (2.0, 1.0)}, r"ratio must be two finite numbers in order"),
        ({"mirror_probability": 2.0}, r"probability must be in \[0, 1\], got 2.0"),
        ({"min_pairs": -1}, r"min_pairs must be at least 0"),
        ({"min_share": 1.5}, r"min_share must be in \[0, 1\]"),
    ],
)
def test_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        crop_paired(pair_pixels(scan_of(50)), SIZES, np.random.default_rng(0), **parameters)


def test_drop_parameters_are_checked():
    scan = scan_of(5)
    with pytest.raises(ValueError, match="min_pairs must be at least 0, got -2"):
        drop_cuboid_paired(scan, pair_pixels(scan), np.random.default_rng(0), min_pairs=-2)
    with pytest.raises(ValueError, match="side must be two finite numbers"):
        drop_cuboid_paired(scan, pair_pixels(scan), np.random.default_rng(0), side=(0.0, 3.0))
