import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pc_geometry import transform_points
from pc_geometry.rigid import (
    invert_rigid,
    is_rotation,
    make_transform,
    quaternion_from_rotation,
    rotation_from_quaternion,
    rotation_z,
)
from scipy.spatial.transform import Rotation

from tests.lanes import unchecked_only

quaternions = hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 1e-6
)
translations = hnp.arrays(np.float64, 3, elements=st.floats(-1e4, 1e4))


@settings(max_examples=50, deadline=None)
@given(quaternion=quaternions)
def test_rotation_agrees_with_scipy(quaternion):
    expected = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()
    np.testing.assert_allclose(rotation_from_quaternion(quaternion), expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(quaternion=quaternions)
def test_quaternion_round_trip(quaternion):
    unit = quaternion / np.linalg.norm(quaternion)
    back = quaternion_from_rotation(rotation_from_quaternion(quaternion))
    assert back[0] >= 0
    assert abs(back @ unit) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(np.linalg.norm(back), 1, atol=1e-12)


def test_is_rotation():
    turns = Rotation.random(100, rng=0).as_matrix()
    assert is_rotation(turns).all()
    assert is_rotation(turns.reshape(4, 25, 3, 3)).shape == (4, 25)
    assert not is_rotation(-turns).any()  # mirrors
    assert not is_rotation(1.001 * turns).any()
    assert is_rotation(1.001 * turns, tolerance=3e-3).all()
    assert is_rotation(np.zeros((0, 3, 3))).shape == (0,)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300, -1e300])
def test_no_entry_of_a_rotation_is_huge_or_missing(wrong):
    matrix = np.eye(3)
    matrix[1, 1] = wrong
    assert not is_rotation(matrix)
    assert not is_rotation(np.full((3, 3), wrong))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_have_no_singularity(axis):
    quaternion = np.zeros(4)
    quaternion[axis + 1] = 1
    back = quaternion_from_rotation(rotation_from_quaternion(quaternion))
    np.testing.assert_allclose(np.abs(back), quaternion, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1e300])
def test_any_norm_is_normalised(scale):
    rotation = rotation_from_quaternion(np.array([1.0, 2.0, -3.0, 4.0]) * scale)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(quaternion=quaternions, translation=translations)
def test_inverse_undoes(quaternion, translation):
    transform = make_transform(rotation_from_quaternion(quaternion), translation)
    np.testing.assert_allclose(invert_rigid(transform), np.linalg.inv(transform), atol=1e-7)
    points = np.array([[0.0, 0, 0], [1, 2, 3], [-50, 20, 1]])
    back = transform_points(invert_rigid(transform), transform_points(transform, points))
    np.testing.assert_allclose(back, points, atol=1e-8)


def test_reflection_is_inverted_too():
    flip = make_transform(np.diag([1.0, -1.0, 1.0]), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(invert_rigid(flip) @ flip, np.eye(4), atol=1e-12)


def test_rotation_z_turns_x_towards_y():
    np.testing.assert_allclose(rotation_z(np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    expected = Rotation.from_euler("z", 0.3).as_matrix()
    np.testing.assert_allclose(rotation_z(0.3), expected, atol=1e-12)


@pytest.mark.parametrize("digits", [5, 7, 15])
def test_inverse_of_a_rounded_rotation_far_from_the_origin(digits):
    rotation = rotation_from_quaternion(np.array([0.9, 0.1, -0.3, 0.2])).round(digits)
    transform = make_transform(rotation, np.array([6.5e5, 4.8e6, 300.0]))
    inverse = invert_rigid(transform)
    np.testing.assert_allclose(transform @ inverse, np.eye(4), atol=1e-8)
    assert inverse[3].tolist() == [0, 0, 0, 1]


def test_rounded_calibration_is_rigid_within_the_tolerance():
    for error, is_rigid in ((4e-5, True), (1.2e-4, False), (4e-3, False)):
        transform = make_transform(rotation_z(0.3) * (1 + error / 2), np.zeros(3))
        if is_rigid:
            np.testing.assert_allclose(invert_rigid(transform) @ transform, np.eye(4), atol=1e-12)
            continue
        with pytest.raises(ValueError, match=r"within 0\.0001 of the identity\), got an error of"):
            invert_rigid(transform)


@unchecked_only
@pytest.mark.parametrize(
    ("given", "kept"),
    [(np.float16, np.float32), (np.int64, np.float64), (np.uint8, np.float64)],
)
def test_integers_and_halves_are_not_truncated(given, kept):
    moved = transform_points(
        make_transform(rotation_z(np.pi / 4), np.zeros(3)), np.array([[10, 0, 0]], given)
    )
    assert moved.dtype == kept
    np.testing.assert_allclose(moved, [[50**0.5, 50**0.5, 0]], rtol=1e-7)


def test_points_must_be_finite():
    points = np.zeros((3, 3))
    points[1, 2] = np.nan
    with pytest.raises(ValueError, match="points must be finite, got 1 of 3 points"):
        transform_points(np.eye(4), points)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_points_keep_their_type_and_take_affine(dtype):
    transform = make_transform(np.diag([2.0, -1.0, 1.0]), np.array([1.0, 0.0, -1.0]))
    points = np.array([[1, 2, 3], [0, 0, 0]], dtype)
    moved = transform_points(transform, points)
    assert moved.dtype == dtype
    assert moved.tolist() == [[3.0, -2.0, 2.0], [1.0, 0.0, -1.0]]


def test_float32_survives_map_coordinates():
    there = make_transform(rotation_z(0.4), np.array([6.5e5, 4.8e6, 300.0]))
    points = np.float32([[10.25, -3.5, 1.125]])
    moved = transform_points(invert_rigid(there) @ there, points)
    np.testing.assert_allclose(moved, points, atol=1e-6)


def test_no_points():
    assert transform_points(np.eye(4), np.empty((0, 3), np.float32)).shape == (0, 3)


def test_zero_quaternion():
    with pytest.raises(ValueError, match="quaternion must have a norm above 0"):
        rotation_from_quaternion(np.zeros(4))


def test_not_finite():
    with pytest.raises(ValueError, match=r"quaternion must be finite numbers .* with 1 not finite"):
        rotation_from_quaternion(np.array([1.0, np.nan, 0.0, 0.0]))
    with pytest.raises(ValueError, match="translation must be finite"):
        make_transform(np.eye(3), np.array([np.inf, 0.0, 0.0]))


def test_scale_is_not_rigid():
    scaled = make_transform(1.1 * np.eye(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"orthonormal rotation .* got an error of 0.21"):
        invert_rigid(scaled)
    with pytest.raises(ValueError, match="rotation must have an orthonormal"):
        quaternion_from_rotation(scaled[:3, :3])


def test_reflection_has_no_quaternion():
    with pytest.raises(ValueError, match="got a reflection"):
        quaternion_from_rotation(np.diag([1.0, 1.0, -1.0]))


def test_projective_matrix_is_refused():
    matrix = np.eye(4)
    matrix[3, 2] = 1
    with pytest.raises(ValueError, match=r"transform must have the last row \(0, 0, 0, 1\)"):
        transform_points(matrix, np.zeros((1, 3)))


@unchecked_only
def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"must have shape \[n d\] with d = 3, got \(1, 4\)"):
        transform_points(np.eye(4), np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"of shape \(4, 4\), got shape \(3, 4\)"):
        transform_points(np.eye(4)[:3], np.zeros((1, 3)))
