import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry.pillars import pillar_grid, pillarize, points_in_pillars

from tests.lanes import compiled_only, unchecked_only
from tests.real_data import REAL_DATA, needs_real_data

SCAN = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
BOUNDS = (-8.0, -4.0, -1.0, 8.0, 4.0, 3.0)


def naive_pillarize(points, size, bounds, order, max_points, max_pillars):
    """Points one after the other into a dictionary of pillars."""
    low, high = np.array(bounds[:3]), np.array(bounds[3:])
    grid = np.round((high - low)[:2] / size)
    pillars = {}
    for i in order:
        column, row = np.floor((points[i, :2].astype(np.float64) - low[:2]) / size)
        if not ((low <= points[i]) & (points[i] < high)).all():
            continue
        assert 0 <= column < grid[0]
        assert 0 <= row < grid[1]
        if (row, column) not in pillars and len(pillars) == max_pillars:
            continue
        held = pillars.setdefault((row, column), [])
        if len(held) < max_points:
            held.append(i)
    kept = sorted((i, number) for number, held in enumerate(pillars.values()) for i in held)
    return [i for i, _ in kept], [number for _, number in kept], [list(cell) for cell in pillars]


def assert_same(points, size, bounds, max_points=None, max_pillars=None):
    got = pillarize(points, size, bounds=bounds, max_points=max_points, max_pillars=max_pillars)
    order = range(len(points))
    limits = max_points or len(points), max_pillars or len(points)
    expected = naive_pillarize(points, size, bounds, order, *limits)
    assert [part.dtype for part in got] == [np.int64] * 3
    assert [part.tolist() for part in got] == list(expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("limits", [(None, None), (2, None), (None, 5), (1, 1), (3, 20)])
@pytest.mark.parametrize("kind", ["random", "duplicates", "lattice", "clustered"])
def test_equals_the_dictionary(dtype, limits, kind):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 3)) * np.array([5, 3, 1])
    if kind == "duplicates":
        points[150:] = points[:150]
    if kind == "lattice":
        points = np.floor(points) / 2
    if kind == "clustered":
        points = points[:2].repeat(150, axis=0) + rng.normal(size=(300, 3)) * 0.1
    for size in (0.5, 2.0, 8.0):
        assert_same(points.astype(dtype), size, BOUNDS, *limits)


def test_bounds_are_half_open():
    points = np.float32([[-8, -4, -1], [8, 0, 0], [0, 4, 0], [0, 0, 3], [7.999, 3.999, 2.999]])
    indices, pillar, cells = pillarize(points, 1.0, bounds=BOUNDS)
    assert (indices.tolist(), pillar.tolist()) == ([0, 4], [0, 1])
    assert cells.tolist() == [[0, 0], [7, 15]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "upper"), [(0.1, 0.3), (0.1, 0.7), (0.32, 74.88), (0.3, 0.9)])
def test_no_rounding_at_the_upper_bound(dtype, size, upper):
    """Whatever the quotient by the size rounds to."""
    low = -upper if upper > 1 else 0.0
    bounds = (low, low, -1.0, upper, upper, 1.0)
    edge = np.array([np.nextafter(dtype(upper), dtype(0)), upper, 0], dtype)
    edge[2] = np.nextafter(edge[1], dtype(99))
    for axis in (0, 1):
        points = np.zeros((3, 3), dtype)
        points[:, axis] = edge
        indices, _, cells = pillarize(points, size, bounds=bounds)
        assert indices.tolist() == np.flatnonzero(edge.astype(float) < upper).tolist()
        assert (cells[:, 1 - axis] == pillar_grid(size, bounds)[axis] - 1).all()


def test_pillars_of_a_millimetre_over_a_city():
    bounds = (-1e5, -1e5, -1.0, 1e5, 1e5, 1.0)
    points = np.full((7, 3), 99_999.0)
    points[:, 0] += np.arange(7) * 1e-3 + 5e-4
    points[:, 2] = 0
    indices, pillar, cells = pillarize(points, 1e-3, bounds=bounds)
    assert indices.tolist() == pillar.tolist() == list(range(7))
    assert np.diff(cells[:, 1]).tolist() == [1] * 6
    assert len(np.unique(cells[:, 0])) == 1


def test_more_pillars_than_can_be_numbered():
    bounds = (-1e10, -1e10, -1.0, 1e10, 1e10, 1.0)
    with pytest.raises(ValueError, match=r"hold at most 4611686018427387904 pillars, got 2000000"):
        pillar_grid(1e-3, bounds)


def test_sides_are_multiples_within_a_thousandth():
    assert pillar_grid(1.0, (0.0, 0.0, 0.0, 10.0005, 3.9995, 1.0)) == (4, 10)
    for upper in (10.002, 10.05, 9.95, 10.5):
        with pytest.raises(ValueError, match="bounds must span a whole number of pillars"):
            pillar_grid(1.0, (0.0, 0.0, 0.0, upper, 4.0, 1.0))
        with pytest.raises(ValueError, match="bounds must span a whole number of pillars"):
            pillar_grid(1.0, (0.0, 0.0, 0.0, 4.0, upper, 1.0))


def test_pillars_have_no_end():
    points = np.array([[0, 0, 1e30], [0, 0, -1e30], [0, 0, 6e5], [2, 0, 0]])
    indices, splits = points_in_pillars(points, np.zeros((1, 2)), 1.0)
    assert (indices.tolist(), splits.tolist()) == ([0, 1, 2], [0, 3])


def test_no_points_and_one_point():
    for n in (0, 1):
        indices, pillar, cells = pillarize(np.zeros((n, 3), np.float32), 1.0, bounds=BOUNDS)
        assert indices.tolist() == pillar.tolist() == [0] * n
        assert cells.tolist() == [[4, 8]] * n
    outside = np.full((1, 3), 99, np.float32)
    rng = np.random.default_rng(0)
    for limits in ({}, {"max_points": 2, "max_pillars": 2}):
        indices, pillar, cells = pillarize(outside, 1.0, bounds=BOUNDS, rng=rng, **limits)
        assert indices.shape == pillar.shape == (0,)
        assert cells.shape == (0, 2)


def test_random_order_is_that_of_the_generator():
    points = np.random.default_rng(0).uniform(-3, 3, size=(200, 3)).astype(np.float32)
    options = {"bounds": (-2.0, -2.0, -9.0, 2.0, 2.0, 9.0), "max_points": 4, "max_pillars": 9}
    got = pillarize(points, 1.0, rng=np.random.default_rng(5), **options)
    inside = np.flatnonzero((np.abs(points[:, :2]) < 2).all(axis=1))
    order = np.random.default_rng(5).permutation(inside)
    expected = naive_pillarize(points, 1.0, options["bounds"], order, 4, 9)
    assert [part.tolist() for part in got] == list(expected)
    other = pillarize(points, 1.0, rng=np.random.default_rng(6), **options)
    assert other[0].tolist() != got[0].tolist()


def test_random_points_of_a_pillar_are_drawn_uniformly():
    points, rng = np.zeros((8, 3), np.float32), np.random.default_rng(0)
    draws = [pillarize(points, 1.0, bounds=BOUNDS, max_points=2, rng=rng)[0] for _ in range(2000)]
    counts = np.bincount(np.concatenate(draws), minlength=8)
    # Binomial(2000, 1/4) has a standard deviation of 19.4; five of them.
    assert np.abs(counts - 500).max() < 97


@compiled_only
@needs_real_data
def test_a_real_scan_has_as_many_pillars_as_unique_counts():
    points = np.fromfile(SCAN, np.float32).reshape(-1, 4)[:, :3]
    bounds = (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)
    indices, pillar, cells = pillarize(points, 0.32, bounds=bounds)
    position = points[indices].astype(np.float64)
    cell = np.floor((position[:, 1::-1] + 74.88) / 0.32).astype(np.int64)
    np.testing.assert_array_equal(cells[pillar], cell)
    assert len(np.unique(cell, axis=0)) == len(cells) == pillar.max() + 1
    assert (cells < 468).all()
    kept, limited, same_cells = pillarize(points, 0.32, bounds=bounds, max_points=20)
    np.testing.assert_array_equal(same_cells, cells)
    np.testing.assert_array_equal(np.bincount(limited), np.minimum(np.bincount(pillar), 20))
    assert np.isin(kept, indices).all()


def naive_members(points, centers, size):
    points, centers = points.astype(np.float64), centers.astype(np.float64)
    return [
        np.flatnonzero((np.abs(points[:, :2] - center) <= size / 2).all(axis=1)).tolist()
        for center in centers
    ]


def rows_of(indices, splits):
    assert indices.dtype == splits.dtype == np.int64
    assert splits[0] == 0
    assert splits[-1] == len(indices)
    return [part.tolist() for part in np.split(indices, splits[1:-1])] if len(splits) > 1 else []


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    n=st.integers(0, 40),
    m=st.integers(0, 8),
    dtype=st.sampled_from([np.float32, np.float64]),
    size=st.sampled_from([0.5, 1.0, 2.0, 7.3]),
)
def test_members_equal_all_pairs_on_a_lattice(data, n, m, dtype, size):
    halves = st.integers(-8, 8).map(lambda number: number / 2)
    points = data.draw(hnp.arrays(dtype, (n, 3), elements=halves))
    centers = data.draw(hnp.arrays(dtype, (m, 2), elements=halves))
    assert rows_of(*points_in_pillars(points, centers, size)) == naive_members(
        points, centers, size
    )


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_members_of_clusters_and_far_from_the_origin(num_threads, shift):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(200, 3)), rng.normal(size=(50, 3)) * 30]) + shift
    centers = np.concatenate([points[::9, :2], [[1e3, 1e3]]])
    for size in (0.3, 5.0, 1e4):
        got = points_in_pillars(points, centers, size, num_threads=num_threads)
        assert rows_of(*got) == naive_members(points, centers, size)


@compiled_only
@needs_real_data
def test_members_on_a_real_scan():
    points = np.fromfile(SCAN, np.float32).reshape(-1, 4)[:, :3]
    centers = points[::1500, :2]
    indices, splits = points_in_pillars(points, centers, 1.0)
    assert rows_of(indices, splits) == naive_members(points, centers, 1.0)
    shared = points_in_pillars(points, centers, 1.0, num_threads=2)
    np.testing.assert_array_equal(shared[0], indices)
    np.testing.assert_array_equal(shared[1], splits)


def test_refuses():
    points = np.zeros((2, 3), np.float32)
    for size in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="pillar_size must be positive and finite, got"):
            pillarize(points, size, bounds=BOUNDS)
        with pytest.raises(ValueError, match="size must be positive and finite, got"):
            points_in_pillars(points, points[:, :2], size)
    for bounds in ((0.0, 0.0, 0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0, 1.0, np.inf)):
        with pytest.raises(ValueError, match="bounds must be finite lower x, y, z, then upper"):
            pillarize(points, 1.0, bounds=bounds)
    with pytest.raises(ValueError, match=r"whole number of pillars of 3.0 along x and y, got 5.33"):
        pillar_grid(3.0, BOUNDS)
    with pytest.raises(ValueError, match="max_points must be at least 1, got 0"):
        pillarize(points, 1.0, bounds=BOUNDS, max_points=0)
    with pytest.raises(ValueError, match="max_pillars must be at least 1, got -1"):
        pillarize(points, 1.0, bounds=BOUNDS, max_pillars=-1)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        points_in_pillars(points, points[:, :2], 1.0, num_threads=0)
    with pytest.raises(ValueError, match="centers must be finite, got 2 of 2"):
        points_in_pillars(points, points[:, :2] + np.float32(np.nan), 1.0)


@unchecked_only
def test_small_numpy_integers_but_no_floats():
    points = np.random.default_rng(0).normal(size=(2000, 3)).astype(np.float32) * 2
    limits = {"max_points": 200, "max_pillars": 100}
    small = {name: np.uint8(limit) for name, limit in limits.items()}
    expected = pillarize(points, 1.0, bounds=BOUNDS, **limits)
    for got, want in zip(pillarize(points, 1.0, bounds=BOUNDS, **small), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    for name in limits:
        with pytest.raises(ValueError, match=f"{name} must be an integer at least 1, got 2.0"):
            pillarize(points, 1.0, bounds=BOUNDS, **{name: 2.0})
    expected = points_in_pillars(points, points[:9, :2], 1.0)
    got = points_in_pillars(points, points[:9, :2], 1.0, num_threads=np.uint8(64))
    assert rows_of(*got) == rows_of(*expected)


@unchecked_only
def test_wrong_shapes():
    points = np.zeros((5, 3), np.float32)
    with pytest.raises(ValueError, match=r"points must have shape \[n d\] with d = 3"):
        pillarize(points[:, :2], 1.0, bounds=BOUNDS)
    with pytest.raises(ValueError, match=r"centers must have shape \[n d\] with d = 2"):
        points_in_pillars(points, points, 1.0)
    for length in (0, 4, 5, 7):
        with pytest.raises(ValueError, match="bounds must be finite lower x, y, z, then upper"):
            pillarize(points, 1.0, bounds=tuple(range(length)))
