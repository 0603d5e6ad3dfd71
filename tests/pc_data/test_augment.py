"""Augmentations move points and cameras together, and nothing else."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_data import Boxes, Camera, DataError, Scan
from pc_data.augment import (
    crop_nearest,
    flip,
    inside_box,
    pixels_of,
    rotate_z,
    scale,
    see_one_camera,
    thin,
)
from pc_geometry.boxes import points_in_boxes

FORWARD = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
BACKWARD = FORWARD @ np.diag([-1.0, -1, 1, 1])
BOX = ((-5.0, -5.0, -2.0), (5.0, 5.0, 2.0))


def camera(name="FRONT", from_scan=FORWARD, size=(64, 48)):
    matrix = np.array([[40.0, 0, size[0] / 2], [0, 40, size[1] / 2], [0, 0, 1]])
    return Camera(
        name=name,
        image_file=Path("none.png"),
        image_size=size,
        intrinsics=matrix,
        from_scan=from_scan.copy(),
    )


def scan_of(n=200, *, seed=0, **changes):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(n, 3)).astype(np.float32)
    fields = {
        "name": "test/0",
        "xyz": rng.uniform(-10, 10, (n, 3)).astype(np.float32),
        "intensity": rng.random(n, np.float32),
        "color": rng.random((n, 3), np.float32),
        "normal": normal / np.linalg.norm(normal, axis=1, keepdims=True),
        "labels": rng.integers(-1, 4, n),
        "instance": np.arange(n),  # names the points
        "cameras": (camera(), camera("BACK", BACKWARD)),
        "pose": np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]),
    }
    return Scan(**(fields | changes))


def every_transform():
    return {
        "thin": lambda scan, rng: thin(scan, rng, voxel_size=3.0),
        "crop_nearest": lambda scan, rng: crop_nearest(scan, rng, max_points=50),
        "rotate_z": rotate_z,
        "flip": lambda scan, rng: flip(scan, rng, probability=1.0),
        "scale": scale,
        "see_one_camera": see_one_camera,
    }


MOVING = {name: every_transform()[name] for name in ("rotate_z", "flip", "scale")}


def same(a, b):
    """Compare all fields of two scans."""
    for field in dataclasses.fields(Scan):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "cameras":
            assert [c.name for c in one] == [c.name for c in other]
            for mine, theirs in zip(one, other, strict=True):
                np.testing.assert_array_equal(mine.from_scan, theirs.from_scan)
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", every_transform())
def test_pure(name):
    """The input stays as it was; the same rng gives the same result, dtypes stay."""
    scan = scan_of()
    before = copy.deepcopy(scan)
    first = every_transform()[name](scan, np.random.default_rng(1))
    second = every_transform()[name](scan, np.random.default_rng(1))
    same(scan, before)
    same(first, second)
    for field in ("xyz", "intensity", "color", "normal", "labels", "instance"):
        value = getattr(first, field)
        assert value.dtype == getattr(scan, field).dtype, field
        assert len(value) == len(first)


@pytest.mark.parametrize("name", every_transform())
def test_per_point_values_follow_their_point(name):
    scan = scan_of()
    out = every_transform()[name](scan, np.random.default_rng(2))
    for field in ("intensity", "color", "labels"):
        np.testing.assert_array_equal(getattr(out, field), getattr(scan, field)[out.instance])


@pytest.mark.parametrize("name", every_transform())
def test_bare_scan(name):
    """Nothing but points (and, where it must be, a camera)."""
    scan = Scan(name="bare", xyz=scan_of().xyz)
    if name == "see_one_camera":
        scan = dataclasses.replace(scan, cameras=(camera(),))
    out = every_transform()[name](scan, np.random.default_rng(0))
    assert out.normal is None
    assert out.labels is None
    assert out.pose is None


@pytest.mark.parametrize("name", MOVING)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_points_keep_their_pixels(name, seed):
    scan = scan_of(50)
    moved = MOVING[name](scan, np.random.default_rng(seed))
    assert np.abs(moved.xyz - scan.xyz).max() > 0
    for before, after in zip(scan.cameras, moved.cameras, strict=True):
        depth = scan.xyz @ before.from_scan[2, :3] + before.from_scan[2, 3]
        clear = depth > 0.5  # nearer, a rounding error of a coordinate is many pixels
        np.testing.assert_allclose(
            pixels_of(moved, after)[clear], pixels_of(scan, before)[clear], atol=0.02
        )


@pytest.mark.parametrize("name", MOVING)
def test_points_keep_their_place_in_the_world(name):
    scan = scan_of()
    moved = MOVING[name](scan, np.random.default_rng(3))
    np.testing.assert_allclose(
        moved.xyz @ moved.pose[:3, :3].T + moved.pose[:3, 3],
        scan.xyz @ scan.pose[:3, :3].T + scan.pose[:3, 3],
        atol=1e-4,
    )


@pytest.mark.parametrize("name", MOVING)
def test_normals_stay_normal(name):
    """A plane's points stay orthogonal to its normal, which keeps length one."""
    rng = np.random.default_rng(4)
    normal = np.array([0.6, 0.0, 0.8])
    xyz = rng.normal(size=(20, 3))
    xyz -= (xyz @ normal)[:, None] * normal
    scan = Scan(
        name="plane", xyz=xyz.astype(np.float32), normal=np.tile(normal, (20, 1)).astype(np.float32)
    )
    moved = MOVING[name](scan, rng)
    np.testing.assert_allclose((moved.xyz * moved.normal).sum(1), 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(moved.normal, axis=1), 1, atol=1e-6)


def test_rotation():
    scan = scan_of()
    rng = np.random.default_rng(5)
    angles = []
    for _ in range(200):
        moved = rotate_z(scan, rng)
        angles.append(np.arctan2(*(moved.xyz[0, :2] @ [[0, 1], [1, 0]])))
    np.testing.assert_allclose(moved.xyz[:, 2], scan.xyz[:, 2], atol=1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(moved.xyz, axis=1), np.linalg.norm(scan.xyz, axis=1), rtol=1e-5
    )
    quarter = np.histogram(angles, 4, (-np.pi, np.pi))[0]
    assert quarter.min() > 25  # of 50 expected in each


def test_flip_frequencies():
    scan, rng = scan_of(5), np.random.default_rng(6)
    signs = [tuple(np.sign(flip(scan, rng).xyz[0] / scan.xyz[0])) for _ in range(3000)]
    share = {sign: signs.count(sign) / 3000 for sign in set(signs)}
    assert set(share) == {(1, 1, 1), (-1, 1, 1), (1, -1, 1)}
    assert all(abs(value - 1 / 3) < 0.04 for value in share.values())


def test_flip_never():
    scan = scan_of(5)
    assert flip(scan, np.random.default_rng(0), probability=0.0) is scan


def test_scale_range():
    scan, rng = scan_of(5), np.random.default_rng(7)
    factors = [scale(scan, rng).xyz / scan.xyz for _ in range(300)]
    assert all(np.ptp(factor) < 1e-5 for factor in factors)
    means = [factor.mean() for factor in factors]
    assert 0.9 <= min(means) < 0.91
    assert 1.09 < max(means) <= 1.1
    fixed = scale(scan, rng, low=2.0, high=2.0)
    np.testing.assert_allclose(fixed.xyz, 2 * scan.xyz, rtol=1e-6)


def voxels(scan, size):
    return {tuple(v) for v in np.floor((scan.xyz - scan.xyz.min(0)) / size).astype(int)}


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_thin_keeps_one_point_a_voxel(seed):
    scan = scan_of(500)
    out = thin(scan, None if seed is None else np.random.default_rng(seed), voxel_size=4.0)
    corner = scan.xyz.min(0)
    kept = np.floor((out.xyz - corner) / 4.0).astype(int)
    assert len(np.unique(kept, axis=0)) == len(out) == len(voxels(scan, 4.0))


def test_thin_without_rng_keeps_the_first():
    scan = Scan(
        name="a", xyz=np.float32([[0, 0, 0], [5, 0, 0], [0.05, 0, 0]]), labels=np.array([3, 4, 5])
    )
    assert thin(scan, None).labels.tolist() == [3, 4]
    drawn = {thin(scan, np.random.default_rng(i)).labels[0] for i in range(20)}
    assert drawn == {3, 5}


@pytest.mark.parametrize("max_points", [1, 2, 37, 199])
def test_crop_nearest(max_points):
    scan = scan_of(200)
    out = crop_nearest(scan, np.random.default_rng(8), max_points=max_points)
    assert len(out) == max_points
    assert (np.diff(out.instance) > 0).all()  # in file order
    center = scan.xyz[np.random.default_rng(8).integers(200)]
    distance = np.linalg.norm(scan.xyz - center, axis=1)
    assert sorted(out.instance) == sorted(np.argsort(distance)[:max_points])


def test_crop_nearest_of_a_small_scan():
    scan = scan_of(200)
    assert crop_nearest(scan, np.random.default_rng(0), max_points=200) is scan


def test_crop_nearest_of_duplicates():
    scan = Scan(name="same", xyz=np.ones((9, 3), np.float32))
    assert len(crop_nearest(scan, np.random.default_rng(0), max_points=4)) == 4


def test_inside_box_is_strict():
    """A network that divides the box into cells takes every kept point."""
    low, high = np.float32(BOX)
    edges = [low, high, np.nextafter(low, high), np.nextafter(high, low)]
    rows = [[*edge[:axis], 0, *edge[axis + 1 :]] for edge in edges for axis in range(3)]
    inside = [low + 0.001, high - 0.001, (low + high) / 2]
    xyz = np.float32([*rows, *edges, *inside])
    assert inside_box(Scan(name="a", xyz=xyz), BOX).tolist() == [False] * 16 + [True] * 3
    nowhere = ((90.0, 90.0, 90.0), (91.0, 91.0, 91.0))
    assert not inside_box(scan_of(), nowhere).any()


def seen_by(scan, which, min_depth=1.0):
    """Visible points the long way."""
    seen = []
    for index, point in enumerate(scan.xyz.astype(float)):
        x, y, z = which.from_scan[:3, :3] @ point + which.from_scan[:3, 3]
        u, v, _ = which.intrinsics @ [x / z, y / z, 1]
        width, height = which.image_size
        if z > min_depth and 0 < u < width - 1 and 0 < v < height - 1:
            seen.append(index)
    return seen


@pytest.mark.parametrize("min_depth", [0.0, 1.0, 6.0])
def test_see_one_camera(min_depth):
    scan, rng = scan_of(), np.random.default_rng(9)
    chosen = set()
    for _ in range(20):
        out = see_one_camera(scan, rng, min_depth=min_depth)
        (which,) = out.cameras
        chosen.add(which.name)
        assert out.instance.tolist() == seen_by(scan, which, min_depth)
    assert chosen == {"FRONT", "BACK"}


def test_min_x():
    scan = scan_of()
    scan = dataclasses.replace(scan, cameras=scan.cameras[:1])
    out = see_one_camera(scan, np.random.default_rng(0), min_depth=0.0, min_x=5.0)
    expected = [i for i in seen_by(scan, scan.cameras[0], 0.0) if scan.xyz[i, 0] > 5]
    assert out.instance.tolist() == expected
    assert 0 < len(expected) < len(seen_by(scan, scan.cameras[0], 0.0))


def test_cameras_that_see_nothing_are_passed_over():
    xyz = scan_of().xyz
    ahead = scan_of(xyz=np.abs(xyz) * [1, 0.1, 0.1] + np.float32([2, 0, 0]))
    ahead = dataclasses.replace(ahead, xyz=ahead.xyz.astype(np.float32))
    for seed in range(10):
        out = see_one_camera(ahead, np.random.default_rng(seed))
        assert [which.name for which in out.cameras] == ["FRONT"]


@pytest.mark.parametrize(
    ("cameras", "names"), [((), "it has none"), ((camera(), camera("BACK", BACKWARD)), "FRONT, BA")]
)
def test_no_camera_sees_anything(cameras, names):
    above = Scan(name="sky/1", xyz=np.float32([[0, 0, 50], [0.1, 0, 60]]), cameras=cameras)
    with pytest.raises(DataError, match=rf"scan sky/1: no point is visible .*{names}.*calibration"):
        see_one_camera(above, np.random.default_rng(0))


def test_pixels_of():
    scan = Scan(name="a", xyz=np.float32([[4.7, 0.1, -0.2]]))
    assert pixels_of(scan, camera()) == pytest.approx(np.array([[32.0, 24.0]]), abs=1e-4)


@pytest.mark.parametrize("name", ["rotate_z", "flip", "scale"])
def test_boxes_hold_the_same_points(name):
    rng = np.random.default_rng(5)
    cuboid = np.column_stack(
        [rng.uniform(-8, 8, (20, 3)), rng.uniform(1, 6, (20, 3)), rng.uniform(-4, 4, 20)]
    )
    boxes = Boxes(cuboid=cuboid, labels=np.arange(20), track=("",) * 20)
    scan = scan_of(500, boxes=boxes)
    moved = every_transform()[name](scan, np.random.default_rng(2))
    assert not np.allclose(moved.boxes.cuboid, cuboid)
    for before, after in zip(
        points_in_boxes(scan.xyz, cuboid),
        points_in_boxes(moved.xyz, moved.boxes.cuboid),
        strict=True,
    ):
        np.testing.assert_array_equal(before, after)
