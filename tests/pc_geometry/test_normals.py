import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_geometry.neighbors import knn
from pc_geometry.normals import estimate_normals

from tests.lanes import compiled_only, unchecked_only
from tests.pc_geometry.clouds import KINDS, cloud
from tests.real_data import REAL_DATA, needs_real_data


def scatter(points, k):
    """The matrix whose least eigenvector is the normal, for every point [n 3 3]."""
    near = points[knn(points, points, min(k, len(points)))[1]].astype(np.float64)
    near = near - near.mean(axis=1, keepdims=True)
    return near.transpose(0, 2, 1) @ near


def assert_normals(points, k, normals):
    """Unit length, and as little variance along them as there can be; equal where unique."""
    assert normals.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=2e-7)
    matrix = scatter(points, k)
    values, vectors = np.linalg.eigh(matrix)
    along = np.einsum("ni,nij,nj->n", normals, matrix, normals, dtype=np.float64)
    assert (along <= values[:, 0] + 1e-6 * values[:, 1] + 2e-12 * values[:, 2]).all()
    unique = values[:, 1] - values[:, 0] > 1e-6 * values[:, 2]
    agreement = np.abs((vectors[:, :, 0] * normals).sum(axis=1))
    assert (agreement[unique] > 1 - 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [3, 8])
def test_is_the_direction_of_least_variance(kind, dtype, k):
    points = cloud(np.random.default_rng(0), kind, 80, 3).astype(dtype)
    assert_normals(points, k, estimate_normals(points, k))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), exponents=st.tuples(*[st.integers(-6, 3)] * 3))
def test_any_shape_and_scale_of_neighbourhood(seed, exponents):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    points = rng.normal(size=(12, 3)) * 10.0 ** np.array(exponents) @ turn
    assert_normals(points, 12, estimate_normals(points, 12))


def test_exact_planes():
    rng = np.random.default_rng(0)
    for axis in range(3):
        points = rng.uniform(-5, 5, (50, 3)).astype(np.float32)
        points[:, axis] = 7
        expected = np.eye(3)[axis]
        np.testing.assert_array_equal(estimate_normals(points, 10), np.tile(expected, (50, 1)))


def test_far_from_the_origin():
    rng = np.random.default_rng(0)
    points = rng.uniform(-5, 5, (60, 3))
    points[:, 2] = 0.3 * points[:, 0]
    normals = estimate_normals(points + np.array([5e5, 5e6, 100]), 10)
    np.testing.assert_allclose(normals[:, 0] / normals[:, 2], -0.3, atol=1e-6)


@pytest.mark.parametrize("k", [3, 6])
def test_points_to_the_side_of_the_viewpoint(k):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(100, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for viewpoint in (np.zeros(3), np.array([0.0, 0.0, 50.0])):
        normals = estimate_normals(points, k, viewpoint=viewpoint)
        assert ((normals * (viewpoint - points)).sum(axis=1) >= -1e-6).all()
        assert_normals(points, k, normals)


def test_without_a_viewpoint_the_last_component_is_positive():
    rng = np.random.default_rng(0)
    normals = estimate_normals(rng.normal(size=(100, 3)).astype(np.float32), 5)
    assert (normals[:, 2] >= 0).all()
    wall = np.float32([[0, 0, 0], [1, -2, 0], [0, 0, 1], [1, -2, 1]])
    np.testing.assert_allclose(estimate_normals(wall, 4)[0], np.float32([2, 1, 0]) / np.sqrt(5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("degrees", [0, 1, 30, 45, 90, 123, 180, 200, 270, 359])
def test_normals_of_a_wall_all_look_to_one_side(dtype, degrees):
    """Their z is rounding errors, or their y too: the next component decides."""
    rng = np.random.default_rng(degrees)
    along, height = rng.uniform(-4, 4, 300), rng.uniform(0, 3, 300)
    angle = np.radians(degrees)
    wall = np.stack([along * np.cos(angle), along * np.sin(angle), height], axis=1).astype(dtype)
    normals = estimate_normals(wall, 10)
    expected = np.array([-np.sin(angle), np.cos(angle), 0])
    expected *= np.sign(expected[1] if abs(expected[1]) > 1e-3 else expected[0])
    np.testing.assert_allclose(normals, np.tile(expected, (300, 1)), atol=1e-4)


@pytest.mark.parametrize("tilt", [3e-5, 1e-3])
def test_a_slope_of_a_wall_counts_if_it_is_no_rounding_error(tilt):
    y, z = (axis.ravel() for axis in np.meshgrid(np.arange(5.0), np.arange(5.0)))
    leaning = np.stack([tilt * z, y, z], axis=1)
    assert (estimate_normals(leaning, 6)[:, 2] > 0).all()
    assert (estimate_normals(leaning * [-1, 1, 1], 6)[:, 2] > 0).all()


def test_a_viewpoint_in_the_plane_changes_nothing():
    ground = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    normals = estimate_normals(ground, 4, viewpoint=np.array([9.0, 9.0, 0.0]))
    np.testing.assert_array_equal(normals, np.tile([0, 0, 1], (4, 1)))


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ((1, 0, 0), (0, 0, 1)),
        ((0, 0, 2), (1, 0, 0)),
        ((3, 0, 4), (-0.8, 0, 0.6)),
        ((0, -3, 4), (0, 0.8, 0.6)),
    ],
)
def test_on_a_line_the_normal_is_as_vertical_as_can_be(direction, expected):
    points = np.outer(np.arange(-4, 5), direction).astype(np.float32)
    np.testing.assert_allclose(estimate_normals(points, 5), np.tile(expected, (9, 1)), atol=1e-6)


@pytest.mark.parametrize("direction", [(0.1, 0.2, 0.3), (-0.3, 0.7, 0.1), (0.9, 0.7, -0.3)])
def test_on_a_rounded_line_too(direction):
    """Single precision moves the points off the line by a share of 1e-8 at most."""
    points = np.outer(np.arange(1, 30), direction).astype(np.float32)
    along = np.array(direction) / np.linalg.norm(direction)
    expected = np.array([0, 0, 1]) - along[2] * along
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(estimate_normals(points, 29), np.tile(expected, (29, 1)), atol=1e-5)


def test_on_a_line_that_is_vertical_but_for_rounding():
    points = np.zeros((9, 3))
    points[:, 2] = np.arange(9)
    points[:, :2] = np.outer(np.arange(9), [-1e-14, 3e-14])
    np.testing.assert_array_equal(estimate_normals(points, 9), np.tile([1, 0, 0], (9, 1)))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_or_equal_points(n):
    normals = estimate_normals(np.full((n, 3), 0.1, np.float32), 4)
    np.testing.assert_array_equal(normals, np.tile(np.float32([0, 0, 1]), (n, 1)))
    assert normals.shape == (n, 3)


def test_two_points():
    normals = estimate_normals(np.float32([[0, 0, 0], [3, 0, 4]]), 10)
    np.testing.assert_allclose(normals, np.tile([-0.8, 0, 0.6], (2, 1)), atol=1e-6)


def test_threads_change_nothing():
    points = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    viewpoint = np.array([1.0, 2.0, 3.0])
    one = estimate_normals(points, 6, viewpoint=viewpoint)
    three = estimate_normals(points, 6, viewpoint=viewpoint, num_threads=3)
    np.testing.assert_array_equal(one, three)


@compiled_only
@needs_real_data
def test_a_real_scan():
    file = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)[::4, :3]
    normals = estimate_normals(points, 16, viewpoint=np.zeros(3), num_threads=2)
    assert_normals(points, 16, normals)
    assert ((normals.astype(np.float64) * -points).sum(axis=1) >= -1e-4).all()
    labels = np.fromfile(file.parents[1] / "labels/000000.label", np.uint32)[::4] & 0xFFFF
    assert np.median(normals[labels == 40, 2]) > 0.99  # road, seen from above


def test_errors():
    points = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match="k must be at least 3, got 2"):
        estimate_normals(points, 2)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        estimate_normals(points, 3, num_threads=0)
    with pytest.raises(ValueError, match=r"viewpoint must be three finite numbers, got \[nan"):
        estimate_normals(points, 3, viewpoint=np.array([np.nan, 0, 0]))


@unchecked_only
def test_small_numpy_integers_but_no_floats():
    points = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    expected = estimate_normals(points, 9)
    normals = estimate_normals(points, np.uint8(9), num_threads=np.uint8(70))
    np.testing.assert_array_equal(normals, expected)
    with pytest.raises(ValueError, match=r"k must be an integer at least 3, got 9\.0"):
        estimate_normals(points, 9.0)
    with pytest.raises(ValueError, match=r"num_threads must be an integer at least 1, got 1\.5"):
        estimate_normals(points, 9, num_threads=1.5)


@unchecked_only
def test_flat_points_and_viewpoint():
    with pytest.raises(ValueError, match=r"d = 3, got \(4, 2\)"):
        estimate_normals(np.zeros((4, 2)), 3)
    with pytest.raises(ValueError, match="viewpoint must be three finite numbers"):
        estimate_normals(np.zeros((4, 3)), 3, viewpoint=np.zeros(2))
