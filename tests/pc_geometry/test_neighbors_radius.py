import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry.kdtree import MOST_SORTED
from pc_geometry.neighbors import match_radius, radius_neighbors
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from tests.lanes import compiled_only, unchecked_only
from tests.pc_geometry.clouds import KINDS, cloud
from tests.real_data import REAL_DATA, needs_real_data


def squared_distances(a, b):
    """All of them [m n], in float64."""
    difference = a.astype(np.float64)[:, None] - b.astype(np.float64)
    squared = difference[..., 0] ** 2
    for axis in range(1, a.shape[1]):
        squared = squared + difference[..., axis] ** 2
    return squared


def assert_same(query, points, radius, **kwargs):
    indices, splits = radius_neighbors(query, points, radius, **kwargs)
    rows, expected = np.nonzero(squared_distances(query, points) <= radius * radius)
    assert indices.dtype == splits.dtype == np.int64
    assert splits[0] == 0
    np.testing.assert_array_equal(np.diff(splits), np.bincount(rows, minlength=len(query)))
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [2, 3])
def test_equals_all_pairs(kind, dtype, d):
    rng = np.random.default_rng(0)
    points = cloud(rng, kind, 120, d).astype(dtype)
    query = np.concatenate([points[:10], cloud(rng, "random", 10, d).astype(dtype)])
    for radius in (0.5, 3.0, 1000.0):
        assert_same(query, points, radius)
    assert_same(points, points, 3.0)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), d=st.integers(2, 3), n=st.integers(1, 40))
def test_a_point_exactly_at_the_radius_is_within(data, d, n):
    lattice = hnp.arrays(np.float64, (n, d), elements=st.integers(-3, 3).map(float))
    points = data.draw(lattice) * data.draw(st.sampled_from([1.0, 0.1, 1 / 3]))
    step = np.abs(points).max() or 1.0
    radius = data.draw(st.sampled_from([step, step / 2, step / 3, step * 5]))
    assert_same(points[: n // 2], points, radius)


@pytest.mark.parametrize("n", [1, 2])
def test_tiny(n):
    points = np.arange(3.0 * n).reshape(n, 3)
    assert_same(points, points, 0.1)
    assert_same(points, points, 10.0)


def test_nothing_to_search():
    points, nothing = np.ones((4, 3), np.float32), np.empty((0, 3), np.float32)
    for query, among in ((points, nothing), (nothing, points), (nothing, nothing)):
        indices, splits = radius_neighbors(query, among, 1.0)
        assert indices.shape == (0,)
        assert splits.tolist() == [0] * (len(query) + 1)


def test_memory_does_not_grow_with_the_volume():
    points = np.array([[0, 0, 0], [1e6, 1e6, 1e6], [1e6, 1e6, 1e6 + 1e-4], [-1e6, 0, 0]])
    assert_same(points, points, 1e-3)


def test_mixed_precision_and_strided_input():
    scan = np.random.default_rng(0).normal(size=(60, 4))
    assert_same(scan[::3, :3].astype(np.float32), scan[:, :3], 0.7)


@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_change_nothing(num_threads):
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    for n in (1, 2, 100):
        assert_same(points[:n], points, 0.8, num_threads=num_threads)
        assert_same(points, points[:n], 0.8, num_threads=num_threads)


@compiled_only
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_scipy_on_large_clouds(kind):
    points = cloud(np.random.default_rng(1), kind, 3000, 3)
    indices, splits = radius_neighbors(points, points, 1.0)
    expected = cKDTree(points).query_ball_point(points, 1.0, return_sorted=True)
    assert np.diff(splits).tolist() == [len(row) for row in expected]
    np.testing.assert_array_equal(indices, np.concatenate(expected))


@compiled_only
@needs_real_data
def test_agrees_with_scikit_learn_on_a_real_scan():
    file = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)[::3, :3].astype(np.float64)
    indices, splits = radius_neighbors(points, points, 0.2, num_threads=2)
    graph = NearestNeighbors(radius=0.2).fit(points).radius_neighbors_graph(points)
    graph.sort_indices()
    np.testing.assert_array_equal(splits, graph.indptr)
    np.testing.assert_array_equal(indices, graph.indices)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.inf, np.nan])
def test_radius_out_of_range(radius):
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=f"radius must be positive and finite, got {radius}"):
        radius_neighbors(points, points, radius)
    with pytest.raises(ValueError, match="radius must be positive"):
        match_radius(points, points, radius, max_neighbors=1, rng=np.random.default_rng())


def test_radius_too_small_for_the_extent():
    points = np.array([[0.0, 0, 0], [1e9, 0, 0]])
    with pytest.raises(ValueError, match=r"1e\+15 cells of .*take a larger one"):
        radius_neighbors(points, points, 1e-6)


def test_no_threads():
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        radius_neighbors(points, points, 1.0, num_threads=0)


@unchecked_only
def test_wrong_shapes():
    flat, solid = np.zeros((3, 2), np.float32), np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="query and points must have the same dimension"):
        radius_neighbors(flat, solid, 1.0)
    with pytest.raises(ValueError, match="a and b must have the same dimension, got 2 and 3"):
        match_radius(flat, solid, 1.0, max_neighbors=1, rng=np.random.default_rng())


def naive_candidates(a, b, radius, max_neighbors):
    """For each point of `a` the nearest points of `b` below the radius, ties by index."""
    squared = squared_distances(a, b)
    nearest = np.argsort(squared, axis=1, kind="stable")[:, :max_neighbors]
    return [
        [j for j in row if squared[i, j] < radius * radius]
        for i, row in enumerate(nearest.tolist())
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("max_neighbors", [1, 3, 1000])
def test_match_draws_by_number_from_the_nearest(kind, d, max_neighbors):
    rng = np.random.default_rng(2)
    a = cloud(rng, kind, 60, d).astype(np.float32)
    b = np.concatenate([a[::2], cloud(rng, "random", 30, d).astype(np.float32)])
    pairs = match_radius(
        a, b, 2.0, max_neighbors=max_neighbors, rng=np.random.default_rng(5), num_threads=2
    )
    draw = np.random.default_rng(5).random(len(a))
    expected = [
        [i, row[int(draw[i] * len(row))]]
        for i, row in enumerate(naive_candidates(a, b, 2.0, max_neighbors))
        if row
    ]
    assert pairs.dtype == np.int64
    assert pairs.tolist() == expected


def test_match_leaves_out_points_exactly_at_the_radius():
    a = np.array([[0.0, 0, 0], [5, 0, 0], [2, 0, 0]])
    b = np.array([[1.0, 0, 0], [2.5, 0, 0]])
    pairs = match_radius(a, b, 1.0, max_neighbors=8, rng=np.random.default_rng(0))
    assert pairs.tolist() == [[2, 1]]


def test_match_is_uniform_and_repeats_with_the_seed():
    a, b = np.zeros((3000, 3)), np.zeros((7, 3))
    b[:, 0] = np.linspace(0, 0.6, 7)
    pairs = match_radius(a, b, 0.45, max_neighbors=4, rng=np.random.default_rng(1))
    again = match_radius(a, b, 0.45, max_neighbors=4, rng=np.random.default_rng(1))
    other = match_radius(a, b, 0.45, max_neighbors=4, rng=np.random.default_rng(2))
    count = np.bincount(pairs[:, 1], minlength=7)
    assert (np.abs(count[:4] - 750) < 100).all()  # four standard deviations
    assert count[4:].sum() == 0
    np.testing.assert_array_equal(pairs, again)
    assert (pairs != other).any()


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_match_nothing(n, m):
    rng = np.random.default_rng(0)
    pairs = match_radius(np.zeros((n, 3)), np.zeros((m, 3)), 1.0, max_neighbors=8, rng=rng)
    assert pairs.shape == (0, 2)
    assert pairs.dtype == np.int64


def test_match_with_no_neighbours():
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="max_neighbors must be at least 1, got 0"):
        match_radius(points, points, 1.0, max_neighbors=0, rng=np.random.default_rng())


@compiled_only
@needs_real_data
def test_match_finds_the_positives_of_a_real_room():
    file = REAL_DATA / "scannet/mmdet3d_scene0000_00/points/scene0000_00.bin"
    room = np.fromfile(file, np.float32).reshape(-1, 6)[:, :3]
    a, b = room[::2], room[1::2]
    pairs = match_radius(a, b, 0.03, max_neighbors=8, rng=np.random.default_rng(0))
    distance, nearest = cKDTree(b.astype(np.float64)).query(a.astype(np.float64), 8)
    np.testing.assert_array_equal(pairs[:, 0], np.flatnonzero(distance[:, 0] < 0.03))
    among = nearest[pairs[:, 0]] == pairs[:, 1:]
    assert (among.sum(axis=1) == 1).all()
    assert (distance[pairs[:, 0]][among] < 0.03).all()


def test_queries_beside_the_points_find_those_just_within_the_radius():
    query = np.array([[0.9985, 0, 0]])  # cells of less than the radius would leave out the last
    points = np.array([[0.0, 0, 0], [1.9985, 0, 0]])
    assert_same(query, points, 1.0)
    assert radius_neighbors(query, points, 1.0)[0].tolist() == [0, 1]
    pairs = match_radius(query, points[1:], 1.0001, max_neighbors=1, rng=np.random.default_rng(0))
    assert pairs.tolist() == [[0, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_match_draws_from_many(kind):
    rng = np.random.default_rng(2)
    a = cloud(rng, kind, 40, 3)
    b = np.concatenate([a, cloud(rng, kind, 120, 3), a, a])
    for max_neighbors in (MOST_SORTED, MOST_SORTED + 1, 90, 1000):
        pairs = match_radius(a, b, 30.0, max_neighbors=max_neighbors, rng=np.random.default_rng(5))
        draw = np.random.default_rng(5).random(len(a))
        expected = [
            [i, row[int(draw[i] * len(row))]]
            for i, row in enumerate(naive_candidates(a, b, 30.0, max_neighbors))
            if row
        ]
        assert pairs.tolist() == expected


@unchecked_only
@pytest.mark.parametrize("integer", [np.uint8, np.int8])
def test_counts_in_small_integers(integer):
    points = cloud(np.random.default_rng(0), "random", 150, 3)
    assert_same(points, points, 9.0, num_threads=integer(100))
    pairs = [
        match_radius(
            points, points, 9.0, max_neighbors=k, rng=np.random.default_rng(0), num_threads=k
        )
        for k in (100, integer(100))
    ]
    np.testing.assert_array_equal(*pairs)


@unchecked_only
def test_a_count_is_an_integer():
    points, rng = np.zeros((3, 3), np.float32), np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"max_neighbors must be an integer at least 1, got 2.0"):
        match_radius(points, points, 1.0, max_neighbors=2.0, rng=rng)
    with pytest.raises(ValueError, match=r"num_threads must be an integer at least 1, got 2.0"):
        radius_neighbors(points, points, 1.0, num_threads=2.0)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_match_with_no_threads(n, m):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        match_radius(
            np.zeros((n, 3)), np.zeros((m, 3)), 1.0, max_neighbors=8, rng=rng, num_threads=0
        )


@compiled_only
def test_more_layers_than_one_integer_counts():
    diagonal = np.outer(np.arange(2_100_000.0), [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="radius is too small for points that lie in 209"):
        radius_neighbors(diagonal, diagonal, 1.0)
