"""Volumes of a scene against dictionaries, and their crops against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry.volumes import crop_volumes, split_volumes

from tests.lanes import compiled_only, unchecked_only
from tests.real_data import REAL_DATA, needs_real_data

SCAN = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
ORIGIN = np.array([0.1, -3.0, 7.0])


def rng_of(seed=0):
    return np.random.default_rng(seed)


def scene(n=300, dtype=np.float32, seed=0):
    points = rng_of(seed).normal(size=(n, 3)).astype(dtype) * 2
    points[n // 2 : n // 2 + n // 4] = points[: n // 4]
    return points


def naive_split(points, size, min_points):
    """A dictionary from cell to number, of the cells that are full enough."""
    cells = [tuple(c) for c in np.floor((points.astype(float) - ORIGIN) / size).astype(int)]
    numbers = {}
    for cell in cells:
        if cells.count(cell) >= min_points:
            numbers.setdefault(cell, len(numbers))
    return [numbers.get(cell, -1) for cell in cells]


def is_crop_around(points, members, kept, center):
    """Whether the kept ones are the nearest to a member, ties to the lowest index."""
    distance = np.square(points[members].astype(float) - points[center].astype(float)).sum(1)
    order = np.argsort(distance, kind="stable")
    return set(members[order[: len(kept)]]) == set(kept)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0.7, 2.0, (1.0, 2.0, 4.0)])
@pytest.mark.parametrize("min_points", [1, 4, 1000])
def test_volumes_equal_the_dictionary(dtype, size, min_points):
    points = scene(dtype=dtype)
    volume = split_volumes(points, size=size, min_points=min_points, origin=ORIGIN, rng=rng_of())
    assert volume.dtype == np.int64
    assert volume.tolist() == naive_split(points, np.array(size), min_points)


@pytest.mark.parametrize("max_volumes", [1, 5, 30])
def test_random_volumes_stay_whole(max_volumes):
    points = scene()
    everything = np.array(naive_split(points, 1.0, 2))
    assert everything.max() >= 30
    few = split_volumes(
        points, size=1.0, min_points=2, max_volumes=max_volumes, origin=ORIGIN, rng=rng_of(1)
    )
    _, first = np.unique(few[few >= 0], return_index=True)
    assert len(first) == max_volumes
    assert (np.diff(first) > 0).all()  # numbered by first appearance
    for number in range(max_volumes):
        (whole,) = np.unique(everything[few == number])
        np.testing.assert_array_equal(few == number, everything == whole)


def test_each_volume_is_as_likely():
    points = np.arange(6, dtype=np.float32)[:, None] * np.float32([10, 0, 0])
    rng, chosen = rng_of(2), np.zeros(6)
    for _ in range(900):
        chosen += split_volumes(points, size=1.0, min_points=1, max_volumes=2, rng=rng) >= 0
    np.testing.assert_allclose(chosen / 900, 1 / 3, atol=0.07)


def test_borders_lie_elsewhere_each_time():
    pair = np.float32([[0, 0, 0], [0.5, 0, 0]])
    rng = rng_of(3)
    apart = [split_volumes(pair, size=1.0, min_points=1, rng=rng)[1] == 1 for _ in range(600)]
    assert np.mean(apart) == pytest.approx(0.5, abs=0.08)
    wide = [split_volumes(pair, size=(9.0, 1.0, 1.0), min_points=1, rng=rng)[1] for _ in range(600)]
    assert np.mean(wide) == pytest.approx(0.5 / 9, abs=0.04)


def test_tiny_scenes():
    for n in (0, 1, 2):
        same = np.ones((n, 3), np.float32)
        assert split_volumes(same, size=1.0, min_points=1, rng=rng_of()).tolist() == [0] * n
        assert split_volumes(same, size=1.0, min_points=3, rng=rng_of()).tolist() == [-1] * n
        assert crop_volumes(same, np.zeros(n, int), share=0.5, rng=rng_of()).sum() == min(n, 1)
        assert not crop_volumes(same, np.full(n, -1), share=1.0, rng=rng_of()).any()


def test_one_seed_gives_one_answer():
    points = scene()
    volume = split_volumes(points, size=1.0, max_volumes=9, min_points=1, rng=rng_of(4))
    again = split_volumes(points, size=1.0, max_volumes=9, min_points=1, rng=rng_of(4))
    np.testing.assert_array_equal(volume, again)
    first, second, other = (
        crop_volumes(points, volume, share=0.3, rng=rng_of(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_crops_are_the_nearest_to_a_member(dtype, share):
    points = scene(dtype=dtype)
    volume = rng_of(7).integers(-1, 6, len(points))
    volume[volume == 3] = 4  # a number that no point has
    kept = crop_volumes(points, volume, share=share, rng=rng_of(8))
    assert kept.dtype == bool
    assert not kept[volume < 0].any()
    for number in set(volume[volume >= 0]):
        members, inside = (
            np.flatnonzero(volume == number),
            np.flatnonzero(kept & (volume == number)),
        )
        assert len(inside) == max(1, np.ceil(round(share * len(members), 6)))
        assert any(is_crop_around(points, members, inside, center) for center in members)


def test_share_of_thirty_points_is_three():
    kept = crop_volumes(scene(30), np.zeros(30, int), share=0.1, rng=rng_of())
    assert kept.sum() == 3


def test_ties_go_to_the_lowest_index():
    same = np.ones((9, 3), np.float32)
    kept = crop_volumes(same, np.zeros(9, int), share=0.5, rng=rng_of())
    assert kept.tolist() == [True] * 5 + [False] * 4
    line = np.float32([[1, 0, 0], [0, 0, 0], [2, 0, 0]])
    seen = {
        tuple(crop_volumes(line, np.zeros(3, int), share=0.6, rng=rng_of(seed)).tolist())
        for seed in range(30)
    }
    assert seen == {(True, True, False), (True, False, True)}


def test_centres_are_uniform():
    points = np.arange(5, dtype=np.float32)[:, None] * np.float32([10, 0, 0])
    volume, rng, drawn = np.array([0, 1, 0, -1, 0]), rng_of(9), np.zeros(5)
    for _ in range(900):
        drawn += crop_volumes(points, volume, share=0.1, rng=rng)
    np.testing.assert_allclose(drawn / 900, [1 / 3, 1, 1 / 3, 0, 1 / 3], atol=0.07)


@settings(max_examples=40, deadline=None)
@given(
    points=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 40), st.just(3)),
        elements=st.floats(-1e3, 1e3, width=32),
    ),
    size=st.floats(0.1, 500),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_any_crop_keeps_a_share_of_every_volume(points, size, share, seed):
    rng = rng_of(seed)
    volume = split_volumes(points, size=size, max_volumes=7, min_points=2, rng=rng)
    kept = crop_volumes(points, volume, share=share, rng=rng)
    count = np.bincount(volume[volume >= 0])
    assert len(count) <= 7
    assert (count >= 2).all()
    number = np.bincount(volume[kept], minlength=len(count))
    assert (number >= np.maximum(share * count - 1e-6, 1)).all()
    assert (number <= share * count + 1).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"size": 0.0}, r"size must be positive and finite, got 0.0"),
        ({"size": (1.0, np.nan, 1.0)}, r"size must be positive and finite \(one number, or 3"),
        ({"max_volumes": 0}, r"max_volumes must be at least 1, got 0"),
        ({"min_points": 0}, r"min_points must be at least 1, got 0"),
        ({"origin": np.full(3, np.nan)}, r"origin must be 3 finite numbers"),
    ],
)
def test_parameters_of_the_split_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        split_volumes(scene(9), **({"size": 1.0, "rng": rng_of()} | parameters))


def test_points_must_be_finite():
    bad = np.full((2, 3), np.inf, np.float32)
    with pytest.raises(ValueError, match=r"xyz must be finite, got 2 of 2 points"):
        split_volumes(bad, size=1.0, rng=rng_of())
    with pytest.raises(ValueError, match=r"xyz must be finite, got 2 of 2 points"):
        crop_volumes(bad, np.zeros(2, int), share=0.5, rng=rng_of())


@pytest.mark.parametrize("share", [-0.1, 1.5, np.nan])
def test_share_is_checked(share):
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got"):
        crop_volumes(scene(4), np.zeros(4, int), share=share, rng=rng_of())


@pytest.mark.parametrize("volume", [[0, 4, 0, 0], [-2, 0, 0, 0]])
def test_numbers_of_volumes_are_checked(volume):
    with pytest.raises(
        ValueError, match=r"volume must be from -1 to 3 \(there are 4 points\), got"
    ):
        crop_volumes(scene(4), np.array(volume), share=0.5, rng=rng_of())


@unchecked_only
@pytest.mark.parametrize("volume", [np.zeros(3, int), np.zeros(4), np.zeros((4, 1), int)])
def test_there_is_one_volume_a_point(volume):
    with pytest.raises(ValueError, match=r"volume must be one integer a point, shape \(4,\), got"):
        crop_volumes(scene(4), volume, share=0.5, rng=rng_of())


@compiled_only
@needs_real_data
def test_a_street():
    points = np.fromfile(SCAN, np.float32).reshape(-1, 4)[:, :3]
    volume = split_volumes(points, size=2.0, rng=rng_of(10))
    count = np.bincount(volume[volume >= 0])
    assert len(count) == 400
    assert count.min() >= 8
    for share in (0.1, 0.5):
        kept = crop_volumes(points, volume, share=share, rng=rng_of(11))
        expected = np.ceil(np.round(share * count, 6))
        np.testing.assert_array_equal(np.bincount(volume[kept]), expected)
