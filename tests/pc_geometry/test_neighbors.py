import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry import knn
from pc_geometry.kdtree import MOST_SORTED
from scipy.spatial import cKDTree

from tests.lanes import compiled_only, unchecked_only
from tests.pc_geometry.clouds import KINDS, cloud
from tests.real_data import REAL_DATA, needs_real_data


def naive_knn(query, points, k):
    """All distances, sorted by (float32 distance, index)."""
    difference = points[None] - query[:, None]  # [m n d]
    squared = difference[..., 0] ** 2
    for axis in range(1, points.shape[1]):
        squared = squared + difference[..., axis] ** 2
    squared = squared.astype(np.float32)
    index = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squared, index, axis=1)), index


def assert_same(query, points, k, **kwargs):
    distance, index = knn(query, points, k, **kwargs)
    expected_distance, expected_index = naive_knn(query, points, k)
    assert distance.dtype == np.float32
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_array_equal(distance, expected_distance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [2, 3])
def test_equals_all_pairs(kind, dtype, d):
    rng = np.random.default_rng(0)
    points = cloud(rng, kind, 150, d).astype(dtype)
    query = np.concatenate([points[:10], cloud(rng, "random", 10, d).astype(dtype)])
    assert_same(query, points, 7)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 32, 33])
def test_tiny_clouds_and_every_k(n):
    points = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    for k in {1, (n + 1) // 2, n}:
        assert_same(points[:6], points, k)


@pytest.mark.parametrize("n", [*range(17, 130, 16), 250])
def test_equal_points_give_the_lowest_indices(n):
    points = np.ones((n, 3), np.float32)
    for k in range(1, 17):
        assert knn(points[:1], points, k)[1].tolist() == [list(range(k))]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), d=st.integers(2, 3), n=st.integers(1, 70))
def test_ties_go_to_the_lowest_index(data, d, n):
    lattice = hnp.arrays(np.float32, (n, d), elements=st.integers(-2, 2).map(float))
    points = data.draw(lattice)
    assert_same(points[:5], points, data.draw(st.integers(1, n)))


def test_far_from_the_origin_float64_keeps_its_precision():
    points = np.random.default_rng(0).normal(size=(100, 3)) + np.array([5e5, 5e6, 0])
    assert_same(points[:10], points, 5)


def test_mixed_precision_is_computed_in_the_higher_one():
    points = np.random.default_rng(0).normal(size=(40, 3)) + 1e5
    query = points[:5].astype(np.float32)
    expected = naive_knn(query.astype(np.float64), points, 3)
    np.testing.assert_array_equal(knn(query, points, 3)[1], expected[1])
    fine, coarse = points[:20], points.astype(np.float32)
    expected = naive_knn(fine, coarse.astype(np.float64), 3)
    for ours, right in zip(knn(fine, coarse, 3), expected, strict=True):
        np.testing.assert_array_equal(ours, right)


@unchecked_only
def test_integers_count_as_numbers():
    distance, index = knn(np.array([[0, 0]]), np.array([[3, 4], [0, 1]]), 2)
    assert distance.tolist() == [[1.0, 5.0]]
    assert index.tolist() == [[1, 0]]


@compiled_only
def test_distances_beyond_float32_are_infinite_but_ordered_by_index():
    points = np.float32([[3e38, 0, 0], [0, 3e38, 0], [0, 0, 1]])
    distance, index = knn(points[2:], points, 3)
    assert index.tolist() == [[2, 0, 1]]
    assert distance.tolist() == [[0.0, np.inf, np.inf]]


def test_strided_input_and_no_query():
    scan = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    assert_same(scan[::3, :3], scan[:, :3], 4)
    distance, index = knn(np.empty((0, 3), np.float32), scan[:, :3], 4)
    assert distance.shape == index.shape == (0, 4)


@pytest.mark.parametrize("num_queries", [1, 3, 50])
def test_threads_change_nothing(num_queries):
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    assert_same(points[:num_queries], points, 4, num_threads=3)


@compiled_only
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_scipy_on_large_clouds(kind):
    points = cloud(np.random.default_rng(1), kind, 20_000, 3).astype(np.float32)
    distance, index = knn(points, points, 16)
    expected, _ = cKDTree(points.astype(np.float64)).query(points, 16)
    np.testing.assert_allclose(distance, expected, rtol=1e-6, atol=1e-12)
    found = np.linalg.norm(points[index].astype(np.float64) - points[:, None], axis=-1)
    np.testing.assert_allclose(found, distance, rtol=1e-6, atol=1e-12)
    assert (np.diff(np.sort(index, axis=1), axis=1) > 0).all()


@compiled_only
@needs_real_data
def test_agrees_with_scipy_on_a_real_scan():
    file = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)[:, :3]
    distance, _ = knn(points, points, 17)
    expected, _ = cKDTree(points).query(points, 17)
    np.testing.assert_allclose(distance, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [0, 4, -1])
def test_k_out_of_range(k):
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=f"k must be from 1 to 3, got {k}"):
        knn(points, points, k)


def test_no_points():
    with pytest.raises(ValueError, match="k must be from 1 to 0, got 1"):
        knn(np.zeros((3, 3), np.float32), np.zeros((0, 3), np.float32), 1)


def test_not_finite_tells_how_many():
    points = np.zeros((5, 3), np.float32)
    points[1] = np.nan
    points[4, 2] = np.inf
    with pytest.raises(ValueError, match="points must be finite, got 2 of 5 points"):
        knn(points[:1], points, 1)
    with pytest.raises(ValueError, match="query must be finite, got 1 of 1 points"):
        knn(points[1:2], points[:1], 1)


def test_no_threads():
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        knn(points, points, 1, num_threads=0)


@unchecked_only
def test_wrong_shapes():
    flat, solid = np.zeros((3, 2), np.float32), np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match="the same dimension, got 2 and 3"):
        knn(flat, solid, 1)
    with pytest.raises(ValueError, match=r"d = 2 or 3, got \(3, 4\)"):
        knn(solid, np.zeros((3, 4), np.float32), 1)
    with pytest.raises(ValueError, match=r"query must have shape \[n d\]"):
        knn(solid[0], solid, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_neighbours_equal_all_pairs(kind, dtype):
    points = cloud(np.random.default_rng(3), kind, 220, 3).astype(dtype)
    for k in (MOST_SORTED, MOST_SORTED + 1, 100, 219, 220):
        assert_same(points[::20], points, k)


def test_many_equal_points_give_the_lowest_indices():
    points = np.ones((300, 3), np.float32)
    for k in (MOST_SORTED + 1, 60, 299):
        assert knn(points[:2], points, k)[1].tolist() == [list(range(k))] * 2
    assert_same(points[:9], points, 60, num_threads=2)


@compiled_only
def test_many_neighbours_agree_with_scipy():
    points = cloud(np.random.default_rng(1), "two_scales", 20_000, 3)
    distance, index = knn(points[::50], points, 700, num_threads=2)
    expected, _ = cKDTree(points).query(points[::50], 700)
    np.testing.assert_allclose(distance, expected, rtol=1e-6, atol=1e-12)
    assert (np.diff(np.sort(index, axis=1), axis=1) > 0).all()


@unchecked_only
@pytest.mark.parametrize("integer", [np.uint8, np.int8, np.int16, np.int64])
def test_counts_in_small_integers(integer):
    points = cloud(np.random.default_rng(0), "random", 150, 3)
    assert_same(points[:20], points, integer(100), num_threads=integer(2))
    assert_same(points, points, 5, num_threads=integer(64))


@unchecked_only
def test_a_count_is_an_integer():
    points = np.zeros((3, 3), np.float32)
    with pytest.raises(ValueError, match=r"k must be an integer from 1 to 3, got 2.0"):
        knn(points, points, 2.0)
    with pytest.raises(ValueError, match=r"num_threads must be an integer at least 1, got 2.0"):
        knn(points, points, 1, num_threads=2.0)
