import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry import project_points
from pc_geometry.cameras import visible_points
from pc_geometry.rigid import make_transform, rotation_z

from tests.lanes import unchecked_only

INTRINSICS = np.array([[1000.0, 0.0, 800.0], [0.0, 1200.0, 450.0], [0.0, 0.0, 1.0]])
# A camera that looks along the x axis of the vehicle, 1.5 m above its origin.
FRONT = np.array([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0], [0, 0, 0, 1]])


def naive_pixel(point, camera_from_points, intrinsics):
    x, y, z = (camera_from_points @ [*point, 1])[:3]
    u, v, w = intrinsics @ [x / z, y / z, 1]
    assert w == 1
    return u, v, z


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hand_computed_pixels(dtype):
    points = np.array([[10, 0, 1.5], [10, 1, 1.5], [20, 0, 0]], dtype)
    pixel, depth = project_points(points, FRONT, INTRINSICS)
    assert pixel.dtype == depth.dtype == dtype
    assert pixel.tolist() == [[800, 450], [700, 450], [800, 540]]
    assert depth.tolist() == [10, 10, 20]


def test_equals_one_point_at_a_time():
    rng = np.random.default_rng(0)
    skewed = INTRINSICS + np.array([[0.0, 2.5, 0], [0, 0, 0], [0, 0, 0]])
    affine = FRONT @ make_transform(rotation_z(0.2) * 1.1, np.array([0.1, -0.2, 0.3]))
    points = np.abs(rng.normal(size=(50, 3))) * 10 + [5, 0, 0]
    pixel, depth = project_points(points, affine, skewed)
    for point, (u, v), z in zip(points, pixel, depth, strict=True):
        np.testing.assert_allclose((u, v, z), naive_pixel(point, affine, skewed), rtol=1e-9)


def test_behind_the_camera_is_silent_and_never_visible():
    points = np.float32([[-10, 0, 0], [0, 0, 0], [0, 5, 5], [1e-30, 5, 5], [5, 0, 1.5]])
    pixel, depth = project_points(points, FRONT, INTRINSICS)
    assert np.isnan(pixel[:3]).all()
    assert visible_points(pixel, depth, (1600, 900), min_depth=0.0).tolist() == [False] * 4 + [True]


def test_border_and_depth_are_strict():
    inside = [10.0, 10.0, 1.001]
    cases = {
        (0.0, 10.0, 5.0): False,
        (0.001, 10.0, 5.0): True,
        (99.0, 10.0, 5.0): False,
        (98.999, 10.0, 5.0): True,
        (10.0, 0.0, 5.0): False,
        (10.0, 49.0, 5.0): False,
        (10.0, 48.999, 5.0): True,
        (10.0, 10.0, 1.0): False,
        (np.nan, np.nan, 5.0): False,
        (10.0, 10.0, np.nan): False,
        tuple(inside): True,
    }
    table = np.array(list(cases))
    visible = visible_points(table[:, :2], table[:, 2], (100, 50))
    assert visible.tolist() == list(cases.values())


@settings(max_examples=40, deadline=None)
@given(
    pixel=hnp.arrays(np.float64, 2, elements=st.floats(1, 1500)),
    depth=st.floats(1.01, 200),
)
def test_projection_undoes_back_projection(pixel, depth):
    in_camera = np.linalg.inv(INTRINSICS) @ [*pixel, 1] * depth
    point = np.linalg.inv(FRONT) @ [*in_camera, 1]
    again, again_depth = project_points(point[None, :3], FRONT, INTRINSICS)
    np.testing.assert_allclose(again[0], pixel, atol=1e-6)
    np.testing.assert_allclose(again_depth, depth, rtol=1e-9)


def test_no_points():
    pixel, depth = project_points(np.empty((0, 3), np.float32), FRONT, INTRINSICS)
    assert pixel.shape == (0, 2)
    assert visible_points(pixel, depth, (10, 10)).shape == (0,)


def test_intrinsics_must_be_a_camera_matrix():
    points = np.zeros((1, 3))
    with pytest.raises(ValueError, match=r"intrinsics must have the last row \(0, 0, 1\)"):
        project_points(points, FRONT, 2 * INTRINSICS)
    with pytest.raises(ValueError, match="intrinsics must be a finite"):
        project_points(points, FRONT, INTRINSICS * np.nan)
    with pytest.raises(ValueError, match="camera_from_points must have the last row"):
        project_points(points, 2 * FRONT, INTRINSICS)


def test_image_and_depth_limits():
    pixel, depth = np.zeros((2, 2)), np.ones(2)
    with pytest.raises(ValueError, match="a side of image_size must be at least 1, got 0"):
        visible_points(pixel, depth, (0, 5))
    with pytest.raises(ValueError, match="min_depth must be at least 0, got -1"):
        visible_points(pixel, depth, (5, 5), min_depth=-1.0)


@unchecked_only
@pytest.mark.parametrize(
    ("given", "kept"),
    [(np.float16, np.float32), (np.int64, np.float64), (np.uint8, np.float64)],
)
def test_integers_and_halves_are_not_truncated(given, kept):
    pixel, depth = project_points(np.array([[16, 1, 0], [0, 0, 0]], given), FRONT, INTRINSICS)
    assert pixel.dtype == depth.dtype == kept
    assert pixel[0].tolist() == [737.5, 562.5]
    assert np.isnan(pixel[1]).all()
    assert depth.tolist() == [16, 0]


def test_points_must_be_finite():
    points = np.zeros((3, 3), np.float32)
    points[1:, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"points must be finite, got 2 of 3 .* first at index 1"):
        project_points(points, FRONT, INTRINSICS)


@unchecked_only
def test_an_image_of_half_a_pixel():
    with pytest.raises(ValueError, match=r"image_size must be an integer at least 1, got 1600\.5"):
        visible_points(np.zeros((2, 2)), np.ones(2), (1600.5, 900))
    pixel = np.array([[200.0, 5.0]])
    assert visible_points(pixel, np.array([2.0]), (np.uint8(255), np.uint8(9))).all()


@unchecked_only
def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2,\)"):
        visible_points(np.zeros((2, 3)), np.ones(2), (5, 5))
    with pytest.raises(ValueError, match=r"must have shape \[n d\] with d = 3, got \(2, 2\)"):
        project_points(np.zeros((2, 2)), FRONT, INTRINSICS)
