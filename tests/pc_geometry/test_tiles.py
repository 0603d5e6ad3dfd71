"""Tiles: every point in one core, everything near it in its tile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_geometry.tiles import cut_tiles

from tests.lanes import unchecked_only


def _clouds():
    rng = np.random.default_rng(0)
    even = rng.uniform(-50, 50, (3000, 2))
    return {
        "even": even,
        "dense": np.concatenate([even[:500], rng.normal(7, 5.0, (2500, 2))]),
        "line": np.column_stack([np.linspace(0, 9, 400), np.zeros(400)]),
        "grid": np.stack(np.meshgrid(np.arange(20.0), np.arange(30.0)), -1).reshape(-1, 2),
        "one": np.array([[3.0, 4.0]]),
        "two": np.array([[3.0, 4.0], [5.0, 4.0]]),
        "same": np.full((40, 2), 2.5),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("overlap", [0.0, 1.5])
@pytest.mark.parametrize("name", list(_clouds()))
def test_cores_share_out_the_points_and_rings_hold_what_is_near(name, overlap, dtype):
    xy = _clouds()[name].astype(dtype)
    tiles = cut_tiles(xy, overlap=overlap, max_points=600, max_size=40.0)
    answered = np.concatenate([tile.points[tile.core] for tile in tiles])
    np.testing.assert_array_equal(np.sort(answered), np.arange(len(xy)))
    for points, core in tiles:
        assert (np.diff(points) > 0).all()
        assert len(points) <= 600
        low, high = xy[points[core]].min(0), xy[points[core]].max(0)
        assert (high - low).max() <= 40
        near = ((xy >= low - overlap) & (xy <= high + overlap)).all(1)
        np.testing.assert_array_equal(points, np.flatnonzero(near))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_points_that_coincide(places):
    xy = np.array(places, np.float32)
    most = max(2, int(np.unique(xy, axis=0, return_counts=True)[1].max()))
    tiles = cut_tiles(xy, overlap=0.0, max_points=most)
    answered = np.concatenate([points[core] for points, core in tiles])
    assert sorted(answered.tolist()) == list(range(len(xy)))
    assert all(core.all() for _, core in tiles)


def test_neighbouring_floats_are_told_apart():
    x = np.float32(1e4)
    xy = np.array([[x, 0], [np.nextafter(x, np.float32(np.inf)), 0]], np.float32)
    assert [points.tolist() for points, _ in cut_tiles(xy, overlap=0.0, max_points=1)] == [[0], [1]]


def test_whole_cloud_that_fits():
    xy = _clouds()["even"]
    ((points, core),) = cut_tiles(xy, overlap=5.0, max_points=len(xy))
    assert points.tolist() == list(range(len(xy)))
    assert core.all()
    assert cut_tiles(np.empty((0, 2)), overlap=5.0, max_points=1) == []


def test_only_counted_points_count():
    xy = _clouds()["even"]
    counted = np.zeros(len(xy), bool)
    counted[:10] = True
    assert len(cut_tiles(xy, overlap=0.0, max_points=10, counted=counted)) == 1
    assert len(cut_tiles(xy, overlap=0.0, max_points=9, counted=counted)) > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"max_points": 0}, "max_points must be at least 1, got 0"),
        ({"overlap": -1.0}, "overlap must be finite and 0 or more"),
        ({"overlap": np.inf}, "overlap must be finite and 0 or more"),
        ({"max_size": 0.0}, "max_size positive, got 1.0 and 0.0"),
        ({}, "a tile of 0 and a ring of 1 around it hold 40 points, more than max_points 30"),
    ],
)
def test_refusals(arguments, said):
    with pytest.raises(ValueError, match=said):
        cut_tiles(_clouds()["same"], **{"overlap": 1.0, "max_points": 30, **arguments})


@unchecked_only
def test_flags_of_other_points():
    with pytest.raises(ValueError, match="one flag for each of 40 points"):
        cut_tiles(_clouds()["same"], overlap=1.0, max_points=30, counted=np.ones(3, bool))


def test_ring_that_alone_is_too_much():
    xy = _clouds()["grid"]
    with pytest.raises(ValueError, match="pass a larger max_points or a smaller overlap"):
        cut_tiles(xy, overlap=6.0, max_points=50)
