"""Scans for tests of augmentation: every field set, every point named by its instance."""

import dataclasses
from pathlib import Path

import numpy as np
from pc_data import Boxes, Camera, Scan
from pc_data.augment import pixels_of

FORWARD = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
BACKWARD = FORWARD @ np.diag([-1.0, -1, 1, 1])


def camera(name="FRONT", from_scan=FORWARD, size=(64, 48)):
    matrix = np.array([[40.0, 0, size[0] / 2], [0, 40, size[1] / 2], [0, 0, 1]])
    return Camera(
        name=name,
        image_file=Path("none.png"),
        image_size=size,
        intrinsics=matrix,
        from_scan=from_scan.copy(),
    )


def scan_of(n=200, *, seed=0, extent=10.0, **changes):
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=(n, 3)).astype(np.float32)
    fields = {
        "name": "test/0",
        "xyz": rng.uniform(-extent, extent, (n, 3)).astype(np.float32),
        "intensity": rng.random(n, np.float32),
        "color": rng.random((n, 3), np.float32),
        "normal": normal / np.linalg.norm(normal, axis=1, keepdims=True),
        "labels": rng.integers(-1, 4, n),
        "instance": np.arange(n),
        "cameras": (camera(), camera("BACK", BACKWARD)),
        "pose": np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]),
    }
    return Scan(**(fields | changes))


def bare(scan):
    """Points alone."""
    return Scan(name=scan.name, xyz=scan.xyz)


def boxes_of(k=20, seed=5):
    rng = np.random.default_rng(seed)
    cuboid = np.column_stack(
        [rng.uniform(-8, 8, (k, 3)), rng.uniform(1, 6, (k, 3)), rng.uniform(-4, 4, k)]
    )
    return Boxes(cuboid=cuboid, labels=np.arange(k), track=("",) * k)


def arrays_of(scan):
    """All arrays of a scan, by name."""
    arrays = {}
    for field in dataclasses.fields(Scan):
        value = getattr(scan, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
    for which in scan.cameras:
        arrays[f"{which.name}.from_scan"] = which.from_scan
    if scan.boxes is not None:
        arrays["boxes"] = scan.boxes.cuboid
    return arrays


def copied(scan):
    return {name: array.copy() for name, array in arrays_of(scan).items()}


def assert_same(scan, other):
    """Two scans, or a scan and `copied`, have equal arrays of equal types."""
    a = arrays_of(scan)
    b = other if isinstance(other, dict) else arrays_of(other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_rows_follow(out, source, index):
    """What is known of each point beside its place came along."""
    for name in ("intensity", "labels", "instance"):
        np.testing.assert_array_equal(getattr(out, name), getattr(source, name)[index])


def assert_pixels_kept(moved, scan, index=slice(None), atol=0.02):
    for before, after in zip(scan.cameras, moved.cameras, strict=True):
        depth = scan.xyz @ before.from_scan[2, :3] + before.from_scan[2, 3]
        clear = depth[index] > 0.5  # nearer, a rounding error of a coordinate is many pixels
        np.testing.assert_allclose(
            pixels_of(moved, after)[clear], pixels_of(scan, before)[index][clear], atol=atol
        )


def in_world(scan):
    return scan.xyz @ scan.pose[:3, :3].T + scan.pose[:3, 3]
