"""Moves carry along all that a scan knows, by the right amounts and as often as they should."""

from functools import partial

import numpy as np
import pytest
from pc_data.augment import spatial
from pc_geometry.boxes import points_in_boxes

from tests.pc_data.scans import (
    assert_pixels_kept,
    assert_rows_follow,
    assert_same,
    bare,
    boxes_of,
    copied,
    in_world,
    scan_of,
)

RIGID = {
    "rotate": spatial.rotate,
    "rotate x about the centre": partial(spatial.rotate, axis="x", about_center=True),
    "rotate y a little": partial(spatial.rotate, axis="y", max_angle=np.pi / 64),
    "rotate_any_axis": spatial.rotate_any_axis,
    "flip_axes": partial(spatial.flip_axes, axes=("x", "y", "z"), probability=1.0),
    "center_shift": spatial.center_shift,
    "center_mean": spatial.center_mean,
    "translate": spatial.translate,
    "shift_grid": spatial.shift_grid,
}
AFFINE = RIGID | {"shear": spatial.shear}
ALL = AFFINE | {"jitter": spatial.jitter}


def distances(xyz):
    return np.linalg.norm(xyz[:, None] - xyz[None], axis=2)


@pytest.mark.parametrize("name", RIGID)
def test_rigid_moves_keep_distances(name):
    scan = scan_of(60)
    moved = RIGID[name](scan, np.random.default_rng(1))
    assert np.abs(moved.xyz - scan.xyz).max() > 1e-3
    np.testing.assert_allclose(distances(moved.xyz), distances(scan.xyz), atol=1e-4)


@pytest.mark.parametrize("name", AFFINE)
def test_affine_moves_keep_pixels_and_place_in_the_world(name):
    scan = scan_of()
    moved = AFFINE[name](scan, np.random.default_rng(2))
    assert_pixels_kept(moved, scan)
    np.testing.assert_allclose(in_world(moved), in_world(scan), atol=1e-4)
    assert_rows_follow(moved, scan, slice(None))


@pytest.mark.parametrize("name", AFFINE)
def test_normals_turn_with_the_points(name):
    rng = np.random.default_rng(3)
    normal = np.array([0.6, 0.48, 0.64])
    xyz = rng.normal(size=(20, 3))
    xyz -= (xyz @ normal)[:, None] * normal
    scan = scan_of(20, xyz=xyz.astype(np.float32), normal=np.float32(np.tile(normal, (20, 1))))
    moved = AFFINE[name](scan, rng)
    between = moved.xyz[:, None] - moved.xyz[None]
    np.testing.assert_allclose((between * moved.normal[:, None]).sum(2), 0, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(moved.normal, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_pure_and_reproducible(name, n):
    for scan in (scan_of(n), bare(scan_of(n))):
        before = copied(scan)
        first = ALL[name](scan, np.random.default_rng(4))
        assert_same(first, ALL[name](scan, np.random.default_rng(4)))
        assert_same(scan, before)
        assert len(first) == n
        assert first.xyz.dtype == np.float32


@pytest.mark.parametrize("name", ["rotate", "flip_axes", "center_shift", "translate"])
def test_boxes_hold_the_same_points(name):
    move = {"flip_axes": partial(spatial.flip_axes, probability=1.0)}.get(name, RIGID[name])
    scan = scan_of(500, boxes=boxes_of())
    moved = move(scan, np.random.default_rng(2))
    assert not np.allclose(moved.boxes.cuboid, scan.boxes.cuboid)
    before = points_in_boxes(scan.xyz, scan.boxes.cuboid)
    after = points_in_boxes(moved.xyz, moved.boxes.cuboid)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("axis", "start", "end"),
    [(0, (0, 1, 0), (0, 0, 1)), (1, (0, 0, 1), (1, 0, 0)), (2, (1, 0, 0), (0, 1, 0))],
)
def test_rotation_about_is_counter_clockwise(axis, start, end):
    quarter = spatial.rotation_about(axis, np.pi / 2)
    np.testing.assert_allclose(quarter @ start, end, atol=1e-12)
    np.testing.assert_allclose(quarter @ np.eye(3)[axis], np.eye(3)[axis], atol=1e-12)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
@pytest.mark.parametrize("about_center", [False, True])
def test_rotate_turns_about_the_axis_and_the_point(axis, about_center):
    scan = scan_of(30)
    for seed in range(20):
        moved = spatial.rotate(
            scan, np.random.default_rng(seed), axis=axis, max_angle=0.3, about_center=about_center
        )
        center = (scan.xyz.min(0) + scan.xyz.max(0)) / 2 if about_center else np.zeros(3)
        a, b = scan.xyz - center, moved.xyz - center
        along = "xyz".index(axis)
        np.testing.assert_allclose(a[:, along], b[:, along], atol=1e-4)
        rotation = np.linalg.lstsq(a, b, rcond=None)[0].T
        assert abs(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))) <= 0.3 + 1e-4
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)


def test_angles_are_uniform():
    scan, rng = scan_of(3), np.random.default_rng(5)
    angles = []
    for _ in range(400):
        a, b = scan.xyz[0], spatial.rotate(scan, rng, max_angle=1.0).xyz[0]
        angles.append(np.arctan2(a[0] * b[1] - a[1] * b[0], a[0] * b[0] + a[1] * b[1]))
    assert np.histogram(angles, 4, (-1, 1))[0].min() > 65  # of 100 expected in each
    assert np.abs(angles).max() < 1.001


def share_of(function, times=600, seed=6):
    rng = np.random.default_rng(seed)
    return np.mean([function(rng) for _ in range(times)])


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_probability_of_rotating(probability):
    scan = scan_of(2)
    turned = share_of(lambda rng: spatial.rotate(scan, rng, probability=probability) is not scan)
    assert turned == pytest.approx(probability, abs=0.06 if 0 < probability < 1 else 0)


def test_axes_flip_independently():
    scan, rng = scan_of(4), np.random.default_rng(7)
    signs = [tuple(np.sign(spatial.flip_axes(scan, rng).xyz[0] / scan.xyz[0])) for _ in range(2000)]
    assert set(signs) == {(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, 1)}
    assert all(abs(signs.count(sign) / 2000 - 0.25) < 0.04 for sign in set(signs))
    assert spatial.flip_axes(scan, rng, probability=0.0) is scan
    only = spatial.flip_axes(scan, rng, axes=("y",), probability=1.0)
    np.testing.assert_allclose(only.xyz, scan.xyz * [1, -1, 1])


def test_axes_are_drawn_by_their_chances():
    scan, rng = scan_of(3), np.random.default_rng(8)
    count = np.zeros(3)
    for _ in range(2000):
        moved = spatial.rotate_any_axis(scan, rng)
        count[np.abs(moved.xyz - scan.xyz).max(0).argmin()] += 1
    np.testing.assert_allclose(count / 2000, [0.33, 0.4422, 0.2278], atol=0.04)


def test_center_shift():
    scan = scan_of(40)
    moved = spatial.center_shift(scan, np.random.default_rng(0))
    low, high = moved.xyz.min(0), moved.xyz.max(0)
    np.testing.assert_allclose((low + high)[:2], 0, atol=1e-5)
    assert low[2] == pytest.approx(0, abs=1e-6)
    flat = spatial.center_shift(scan, np.random.default_rng(0), floor=False)
    np.testing.assert_array_equal(flat.xyz[:, 2], scan.xyz[:, 2])
    np.testing.assert_allclose(flat.xyz[:, :2], moved.xyz[:, :2], atol=1e-6)


def test_center_shift_by_whole_voxels_keeps_the_grid():
    centres = np.random.default_rng(9).integers(-50, 90, (200, 3)) + 0.5
    scan = scan_of(200, xyz=np.float32(centres * 0.02))
    moved = spatial.center_shift(scan, np.random.default_rng(0), voxel_size=0.02)
    steps = np.unique(np.floor(moved.xyz / 0.02) - np.floor(scan.xyz / 0.02), axis=0)
    assert len(steps) == 1
    assert np.abs((moved.xyz.min(0) + moved.xyz.max(0))[:2] / 2).max() <= 0.01 + 1e-6


def test_center_mean():
    moved = spatial.center_mean(scan_of(40), np.random.default_rng(0))
    np.testing.assert_allclose(moved.xyz.mean(0), 0, atol=1e-5)


def test_jitter():
    scan = scan_of(20_000)
    noise = spatial.jitter(scan, np.random.default_rng(10), std=0.1, limit=0.2).xyz - scan.xyz
    assert np.abs(noise).max() == pytest.approx(0.2, abs=1e-5)
    assert np.mean(np.abs(noise) > 0.1999) == pytest.approx(0.0455, abs=0.005)
    assert np.mean(np.abs(noise) < 0.1) == pytest.approx(0.6827, abs=0.01)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.005)
    still = spatial.jitter(scan, np.random.default_rng(0), std=0.0)
    np.testing.assert_array_equal(still.xyz, scan.xyz)


def test_shear_is_the_identity_plus_noise():
    scan, rng, entries = scan_of(10), np.random.default_rng(11), []
    for _ in range(300):
        moved = spatial.shear(scan, rng, std=0.1)
        entries.append(np.linalg.lstsq(scan.xyz, moved.xyz, rcond=None)[0] - np.eye(3))
    assert np.std(entries) == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(np.mean(entries, 0), 0, atol=0.03)


def test_translate_and_shift_grid():
    scan, rng = scan_of(1), np.random.default_rng(12)
    far = [spatial.translate(scan, rng, std=0.5).xyz[0] - scan.xyz[0] for _ in range(800)]
    np.testing.assert_allclose(np.std(far, 0), 0.5, atol=0.05)
    near = [spatial.shift_grid(scan, rng, voxel_size=0.1).xyz[0] - scan.xyz[0] for _ in range(800)]
    assert np.min(near) >= -1e-5
    assert np.max(near) <= 0.1 + 1e-5
    np.testing.assert_allclose(np.mean(near, 0), 0.05, atol=0.005)


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [
        (spatial.rotate, {"axis": "Z"}, r"axis must be 'x', 'y' or 'z', got 'Z'"),
        (spatial.rotate, {"max_angle": -1.0}, r"max_angle must be finite and at least 0, got -1"),
        (spatial.rotate, {"probability": 1.5}, r"probability must be in \[0, 1\], got 1.5"),
        (spatial.rotate_any_axis, {"chances": (0.5, 0.5, 0.5)}, r"chances .* sum to 1"),
        (spatial.flip_axes, {"axes": ("w",)}, r"axis must be 'x', 'y' or 'z', got 'w'"),
        (spatial.flip_axes, {"probability": -0.1}, r"probability must be in \[0, 1\]"),
        (spatial.center_shift, {"voxel_size": 0.0}, r"voxel_size must be finite and above 0"),
        (spatial.jitter, {"std": -1.0}, r"std must be finite and at least 0"),
        (spatial.jitter, {"limit": 0.0}, r"limit must be finite and above 0, got 0"),
        (spatial.shear, {"std": np.nan}, r"std must be finite and at least 0, got nan"),
        (spatial.translate, {"std": -0.1}, r"std must be finite"),
        (spatial.shift_grid, {"voxel_size": -1.0}, r"voxel_size must be finite and above 0"),
    ],
)
def test_parameters_are_checked(function, parameters, message):
    with pytest.raises(ValueError, match=message):
        function(scan_of(3), np.random.default_rng(0), **parameters)


def test_boxes_do_not_survive_a_shear():
    with pytest.raises(ValueError, match=r"scan test/0 has boxes, .* remove them"):
        spatial.shear(scan_of(3, boxes=boxes_of(1)), np.random.default_rng(0))
