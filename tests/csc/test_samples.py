"""Samples: what joins points, pixels and superpixels stays true through crops and batches."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from csc.pictures import picture_of_batch
from csc.samples import SuperpixelBatch, make_pairs, number_superpixels
from pc_data import DataError, NuScenes
from pc_data.augment.pairs import PixelPairs, pair_pixels
from pc_data.loading import sample_rng
from pc_data.superpixel_files import open_superpixels
from PIL import Image

SIZE = (64, 128)
BLOCKS = (2, 4)  # rows and columns of rectangles that an image is divided into
PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
MAKE = partial(
    make_pairs, features=("intensity",), intensity_mean=0.0, intensity_std=1.0, image_size=SIZE
)


def _blocks(scan, camera):
    """Rectangles, of which some say none, and some have the number of another one."""
    width, height = camera.image_size
    numbers = np.random.default_rng(sum(camera.name.encode())).integers(-1, 4, BLOCKS)
    rows = np.arange(height) * BLOCKS[0] // height
    columns = np.arange(width) * BLOCKS[1] // width
    return numbers[rows[:, None], columns].astype(np.int32)


def _none(scan, camera):
    return np.full(camera.image_size[::-1], -1, np.int32)


@pytest.fixture(scope="module")
def scan(street_world):
    return NuScenes(street_world)[0]


@pytest.fixture(scope="module")
def painted(scan, tmp_path_factory):
    """The scan with pictures in the colours of `_blocks`, and points that carry their number."""
    folder = tmp_path_factory.mktemp("painted")
    cameras = []
    for camera in scan.cameras:
        file = folder / f"{camera.name}.png"
        Image.fromarray(PALETTE[_blocks(scan, camera) + 1]).save(file)
        cameras.append(dataclasses.replace(camera, image_file=file))
    number = np.arange(len(scan), dtype=np.float32)
    return dataclasses.replace(scan, cameras=tuple(cameras), intensity=number)


def _read(sample):
    """Superpixel of the pixel of each pair."""
    column, row = sample.pixel.long().T
    return sample.superpixel[sample.image_index, row, column]


def _is_whole(sample):
    """Each superpixel has points and pixels, of one image; pairs lie where they say."""
    numbers = torch.arange(len(sample.superpixel_class))
    assert torch.equal(sample.pair_superpixel.unique(), numbers)
    found = sample.superpixel.unique()
    assert torch.equal(found[found >= 0].long(), numbers)
    images = [sample.superpixel.eq(number).any(dim=(1, 2)).sum() for number in numbers]
    assert images == [1] * len(numbers)
    assert torch.equal(_read(sample).long(), sample.pair_superpixel)
    assert sample.pair_point.min() >= 0
    assert sample.pair_point.max() < len(sample.points.xyz)
    assert sample.superpixel.dtype == torch.int32
    assert {sample.pair_point.dtype, sample.superpixel_class.dtype} == {torch.int64}


@pytest.mark.parametrize("augmented", [True, False])
def test_draws_are_whole(scan, semantic_run, augmented):
    files = open_superpixels(semantic_run / "superpixels")
    for draw in range(12 if augmented else 1):
        sample = MAKE(
            scan, sample_rng(0, 0, draw), read_superpixels=files.read, augmented=augmented
        )
        _is_whole(sample)
        assert sample.images.shape == (6, 3, *SIZE)
        assert sample.superpixel.shape == (6, *SIZE)
        assert ((sample.superpixel_class >= 0) & (sample.superpixel_class < 8)).all()


def test_crops_and_superpixels_show_the_same(painted):
    """A superpixel's pixels have the colour of its class, and its points were there."""
    pairs = pair_pixels(painted)
    uv = dict(zip(zip(pairs.image_index, pairs.point, strict=True), pairs.pixel, strict=True))
    maps = [_blocks(painted, camera) for camera in painted.cameras]
    inner = [_away_from_edges(one, 2) for one in maps]
    mirrored, counted = 0, 0
    for draw in range(20):
        sample = MAKE(painted, sample_rng(0, 0, draw), read_superpixels=_blocks)
        _is_whole(sample)
        for number, cls in enumerate(sample.superpixel_class):
            image, row, column = (sample.superpixel == number).nonzero().T
            color = sample.images[image, :, row, column].median(dim=0).values
            np.testing.assert_allclose(color, PALETTE[cls + 1] / 255, atol=0.02)
        source = sample.points.feat[sample.pair_point, 0].long().numpy()
        cls = sample.superpixel_class[sample.pair_superpixel].numpy()
        seen = set()
        for image, point, mine in zip(sample.image_index.numpy(), source, cls, strict=True):
            column, row = np.round(uv[image, point]).astype(int)
            assert maps[image][row, column] >= 0  # pairs on none are gone
            if inner[image][row, column]:
                assert mine == maps[image][row, column]
                seen.add((image, point))
        counted += len(seen)
        mirrored += _mirrors(sample, source, uv)
    assert counted > 20 * 1000
    assert 20 < mirrored < 100  # of 120 crops


def _away_from_edges(map_, margin):
    """Pixels whose neighbours all have their number."""
    same = np.ones(map_.shape, bool)
    for dy in range(-margin, margin + 1):
        for dx in range(-margin, margin + 1):
            same &= np.roll(map_, (dy, dx), axis=(0, 1)) == map_
    return same


def _mirrors(sample, source, uv):
    """How many images have their columns the other way round."""
    count = 0
    for image in range(len(sample.images)):
        mine = (sample.image_index == image).numpy()
        before = [uv[image, point][0] for point in source[mine]]
        if mine.sum() > 2:
            count += np.corrcoef(before, sample.pixel[mine, 0])[0, 1] < 0
    return count


def test_as_they_are(painted):
    """For prototypes: every point, every pair that is on a superpixel, whole images."""
    first, second = (
        MAKE(painted, sample_rng(0, 0, i), read_superpixels=_blocks, augmented=False)
        for i in range(2)
    )
    for one, other in zip(vars(first).values(), vars(second).values(), strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other)
    np.testing.assert_array_equal(first.points.xyz, painted.xyz)
    pairs = pair_pixels(painted)
    sizes = np.array([camera.image_size for camera in painted.cameras])[pairs.image_index]
    expected = pairs.pixel * np.array(SIZE[::-1]) / sizes
    known = {
        (image, point): place
        for image, point, place in zip(pairs.image_index, pairs.point, expected, strict=True)
    }
    found = zip(first.image_index.tolist(), first.pair_point.tolist(), strict=True)
    places = np.array([known[key] for key in found])
    # Rounded in the image, and in the crop.
    assert np.abs(places - first.pixel.numpy()).max() <= 1.1
    maps = [_blocks(painted, camera) for camera in painted.cameras]
    whole = [_away_from_edges(one, 2) for one in maps]
    inner = sum(
        int(maps[i][y, x] >= 0 and whole[i][y, x])
        for i, (x, y) in zip(pairs.image_index, np.round(pairs.pixel).astype(int), strict=True)
    )
    assert inner <= len(first.pair_point) <= len(pairs)


def test_sample_follows_from_its_key(scan):
    first, again, other = (
        MAKE(scan, sample_rng(0, 0, i), read_superpixels=_blocks) for i in (0, 0, 1)
    )
    for key in ("superpixel", "pair_point", "pixel", "images", "superpixel_class"):
        assert torch.equal(getattr(first, key), getattr(again, key))
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.points.xyz[:50], other.points.xyz[:50])


def test_numbers_of_one_image_only(scan):
    """Without classes superpixels are known by their image alone."""
    sample = MAKE(scan, sample_rng(0, 0, 0), read_superpixels=_blocks, has_classes=False)
    _is_whole(sample)
    assert (sample.superpixel_class == -1).all()


@pytest.mark.parametrize("augmented", [True, False])
def test_box_of_a_network(painted, augmented):
    """Points outside go, and with them pairs and superpixels; the others keep their pixels."""
    near = ((-12.0, -12.0, -5.0), (12.0, 12.0, 5.0))
    make = partial(MAKE, painted, read_superpixels=_blocks, augmented=augmented)
    everything, sample = (make(sample_rng(0, 0, 3), box=box) for box in (None, near))
    _is_whole(sample)
    assert sample.points.xyz.abs().max() < 12
    assert len(sample.points.xyz) < len(everything.points.xyz)

    def described(one):
        source = one.points.feat[one.pair_point, 0].tolist()
        cls = one.superpixel_class[one.pair_superpixel].tolist()
        places = map(tuple, one.pixel.tolist())
        return set(zip(source, one.image_index.tolist(), places, cls, strict=True))

    inside = everything.points.xyz.abs().max(dim=1).values[everything.pair_point] < 12
    inside &= everything.points.xyz[everything.pair_point, 2].abs() < 5
    source = set(everything.points.feat[everything.pair_point[inside], 0].tolist())
    assert described(sample) == {one for one in described(everything) if one[0] in source}


def test_without_superpixels(painted):
    sample = MAKE(painted, sample_rng(0, 0, 0), read_superpixels=None)
    assert sample.superpixel.shape == (6, *SIZE)
    assert (sample.superpixel == -1).all()
    assert (sample.pair_superpixel == -1).all()
    assert sample.superpixel_class.shape == (0,)
    assert len(sample.pair_point) == len(sample.pixel) == len(sample.image_index) > 1000
    u, v = sample.pixel.T
    assert 0 <= u.min() <= u.max() < SIZE[1]
    assert 0 <= v.min() <= v.max() < SIZE[0]
    with_them = MAKE(painted, sample_rng(0, 0, 0), read_superpixels=_blocks, augmented=False)
    alone = MAKE(painted, sample_rng(0, 0, 0), read_superpixels=None, augmented=False)
    assert len(alone.pair_point) > len(with_them.pair_point)


@pytest.mark.parametrize("read_superpixels", [_blocks, None])
def test_pack_shifts_everything(painted, read_superpixels):
    """Each sample found again in the batch, from which its numbers are taken back."""
    front = dataclasses.replace(painted, cameras=painted.cameras[:2])
    samples = [
        MAKE(scan, sample_rng(0, 0, i), read_superpixels=read_superpixels)
        for i, scan in enumerate((painted, front, painted))
    ]
    packed = SuperpixelBatch.pack(samples)
    assert len(packed) == 3
    assert packed.names == (painted.name,) * 3
    assert packed.superpixel.dtype == torch.int32
    if read_superpixels is not None:
        _is_whole(packed)
    before = dict.fromkeys(("point", "image", "pair", "superpixel"), 0)
    for number, sample in enumerate(samples):
        after = {
            "point": before["point"] + len(sample.points.xyz),
            "image": before["image"] + len(sample.images),
            "pair": before["pair"] + len(sample.pair_point),
            "superpixel": before["superpixel"] + len(sample.superpixel_class),
        }
        point, image, pair, superpixel = (slice(before[key], after[key]) for key in before)
        assert torch.equal(packed.points.xyz[point], sample.points.xyz)
        assert (packed.points.batch[point] == number).all()
        assert torch.equal(packed.images[image], sample.images)
        assert torch.equal(packed.pixel[pair], sample.pixel)
        assert torch.equal(packed.pair_point[pair] - before["point"], sample.pair_point)
        assert torch.equal(packed.image_index[pair] - before["image"], sample.image_index)
        assert torch.equal(packed.superpixel_class[superpixel], sample.superpixel_class)
        for mine, alone in (
            (packed.superpixel[image], sample.superpixel),
            (packed.pair_superpixel[pair], sample.pair_superpixel),
        ):
            assert torch.equal(mine < 0, alone < 0)
            assert torch.equal(mine[mine >= 0] - before["superpixel"], alone[alone >= 0])
        before = after
    assert before["pair"] == len(packed.pair_point)
    moved = packed.to("cpu")
    assert torch.equal(moved.pair_superpixel, packed.pair_superpixel)
    alone = SuperpixelBatch.pack(samples[:1])
    assert torch.equal(alone.pair_superpixel, samples[0].pair_superpixel)


def test_numbers_by_hand():
    maps = np.array([[[0, 0, 5], [5, -1, 3]], [[5, 5, 5], [0, -1, -1]]], np.int32)
    #                 the 3 of the first image and the 0 of the second have no point
    places = [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 1, 1), (1, 2, 0), (1, 0, 0)]
    image, u, v = np.array(places).T
    pairs = PixelPairs(
        point=np.arange(6), image_index=image, pixel=np.stack([u, v], 1).astype(np.float32)
    )
    number, kept, of_pair, cls = number_superpixels(maps, pairs)
    np.testing.assert_array_equal(kept.point, [0, 1, 2, 4, 5])  # one was on none
    np.testing.assert_array_equal(of_pair, [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(cls, [0, 5, 5])
    np.testing.assert_array_equal(number, [[[0, 0, 1], [1, -1, -1]], [[2, 2, 2], [-1, -1, -1]]])


def test_numbers_of_nothing():
    pairs = PixelPairs(
        point=np.zeros(1, np.int64),
        image_index=np.zeros(1, np.int64),
        pixel=np.zeros((1, 2), np.float32),
    )
    number, kept, of_pair, cls = number_superpixels(np.full((1, 2, 2), -1, np.int32), pairs)
    assert (number == -1).all()
    assert len(kept) == len(of_pair) == len(cls) == 0


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"read_superpixels": _none}, "no point falls on a superpixel in the field of view"),
        ({"min_depth": 1e6}, "no point falls on a superpixel"),
        ({"min_depth": 1e6, "read_superpixels": None}, "no point is seen by a camera in the field"),
        ({"box": ((90.0, 90.0, 90.0), (91.0, 91.0, 91.0))}, "no point falls on a superpixel"),
    ],
)
def test_nothing_to_see(scan, augmented, changes, match):
    settings = {"read_superpixels": _blocks, "augmented": augmented} | changes
    with pytest.raises(DataError, match=f"scan {scan.name}: {match}"):
        MAKE(scan, sample_rng(0, 0, 0), **settings)


@pytest.mark.parametrize("read_superpixels", [_blocks, None])
def test_no_cameras(scan, read_superpixels):
    blind = dataclasses.replace(scan, cameras=())
    with pytest.raises(DataError, match=r"no point (falls on|is seen)"):
        MAKE(blind, sample_rng(0, 0, 0), read_superpixels=read_superpixels)


def test_superpixels_too_small_for_the_crop(scan):
    """Points are on one, but no pixel of the crop, every seventh of the image, is any more."""

    def stripes(_, camera):
        width, height = camera.image_size
        return np.where(np.arange(width) % 7 == 3, 0, -1).astype(np.int32) * np.ones(
            (height, 1), np.int32
        )

    with pytest.raises(DataError, match="no point falls on a superpixel"):
        MAKE(
            scan,
            sample_rng(0, 0, 0),
            read_superpixels=stripes,
            image_size=(18, 32),
            augmented=False,
        )


def test_damaged_superpixels(scan, semantic_run, tmp_path):
    files = open_superpixels(semantic_run / "superpixels")
    other = dataclasses.replace(files, root=tmp_path)
    with pytest.raises(DataError, match=r"superpixels of .* are missing; prepare the dataset"):
        MAKE(scan, sample_rng(0, 0, 0), read_superpixels=other.read)


@pytest.mark.parametrize("with_superpixels", [True, False])
def test_picture_of_the_first_batch(scan, with_superpixels):
    sample = MAKE(scan, sample_rng(0, 0, 0), read_superpixels=_blocks if with_superpixels else None)
    *images, cloud = [axes for axes in picture_of_batch(sample).axes if axes.get_title()]
    assert len(images) == 6
    assert ("superpixels" in images[0].get_title()) == with_superpixels
    dots = [np.asarray(axes.collections[0].get_facecolors())[:, :3] for axes in images]
    order = np.argsort(sample.points.xyz[:, 2].numpy(), kind="stable")
    of_point = np.empty((len(order), 3))
    of_point[order] = np.asarray(cloud.collections[0].get_facecolors())[:, :3]
    for index, color in enumerate(dots):
        here = np.flatnonzero(sample.image_index.numpy() == index)
        assert len(here) == len(color)
        last = {int(point): color[k] for k, point in enumerate(sample.pair_point[here])}
        later = sample.pair_point[sample.image_index > index].tolist()
        for point in set(last) - set(later):  # of two images the later one
            np.testing.assert_allclose(of_point[point], last[point], atol=1e-6)
        if with_superpixels:
            found = len(sample.pair_superpixel[here].unique())
            assert f"{found} superpixels" in images[index].get_title()
            assert len(np.unique(color, axis=0)) == found
