"""Input features by name."""

import dataclasses

import numpy as np
import pytest
from pc_data import DataError, Scan
from pc_data.features import LIDAR_FEATURES, ROOM_FEATURES, point_features, require_features

from tests.pc_data.scans import bare, scan_of


def test_lidar_by_hand():
    scan = Scan(
        name="a",
        xyz=np.float32([[3, 4, 12], [0, 0, 0]]),
        intensity=np.float32([30, 10]),
    )
    feat = point_features(scan, intensity_mean=20.0, intensity_std=5.0)
    assert feat.dtype == np.float32
    assert feat.shape[1] == len(LIDAR_FEATURES)
    np.testing.assert_allclose(feat, [[2, 3, 4, 12, 13], [-2, 0, 0, 0, 0]], rtol=1e-6)


def test_lidar_is_bitwise_what_concatenation_gives():
    scan = scan_of(300)
    standard = ((scan.intensity - 0.3) / 0.7)[:, None]
    radius = np.linalg.norm(scan.xyz, axis=1, keepdims=True)
    wanted = np.concatenate([standard, scan.xyz, radius], axis=1, dtype=np.float32)
    found = point_features(scan, intensity_mean=0.3, intensity_std=0.7)
    assert np.array_equal(found, wanted)


def test_raw_intensity_is_as_recorded():
    scan = Scan(name="s", xyz=np.zeros((2, 3), np.float32), intensity=np.float32([3, 200]))
    feat = point_features(scan, ("raw_intensity",), intensity_mean=20.0, intensity_std=5.0)
    assert feat[:, 0].tolist() == [3, 200]
    unknown = dataclasses.replace(scan, intensity=None)
    feat = point_features(unknown, ("raw_intensity",), intensity_mean=20.0, intensity_std=5.0)
    assert feat[:, 0].tolist() == [20, 20]


def test_missing_intensity_counts_as_mean():
    scan = Scan(name="a", xyz=np.float32([[3, 4, 12]]))
    feat = point_features(scan, intensity_mean=20.0, intensity_std=5.0)
    assert feat.tolist() == [[0, 3, 4, 12, 13]]


def test_rooms():
    scan = scan_of(50)
    feat = point_features(scan, ROOM_FEATURES)
    np.testing.assert_array_equal(feat[:, :3], 2 * scan.color - 1)
    np.testing.assert_array_equal(feat[:, 3:], scan.normal)
    ends = dataclasses.replace(scan, color=np.tile(np.float32([0, 0.5, 1]), (50, 1)))
    assert point_features(ends, ROOM_FEATURES)[0, :3].tolist() == [-1, 0, 1]


def test_height_is_above_votenets_floor():
    """The floor has 0.99% of the points below it, between two points if need be."""
    xyz = np.zeros((1001, 3), np.float32)
    xyz[:, 2] = np.random.default_rng(0).permutation(1001) - 500.0
    height = point_features(Scan(name="a", xyz=xyz), ("height", "z"))
    np.testing.assert_allclose(height[:, 0], xyz[:, 2] + 500 - 9.9, atol=1e-4)
    np.testing.assert_array_equal(height[:, 1], xyz[:, 2])
    moved = dataclasses.replace(scan_of(200), xyz=scan_of(200).xyz + np.float32([0, 0, 7]))
    still = point_features(scan_of(200), ("height",))
    np.testing.assert_allclose(point_features(moved, ("height",)), still, atol=1e-5)
    assert point_features(scan_of(1), ("height",)).tolist() == [[0]]
    assert point_features(scan_of(1).select(np.empty(0, np.int64)), ("height",)).shape == (0, 1)


def test_names_decide_order_and_number():
    scan = scan_of(20)
    feat = point_features(scan, ("z", "blue", "intensity"), intensity_std=2.0)
    wanted = np.stack([scan.xyz[:, 2], 2 * scan.color[:, 2] - 1, scan.intensity / 2], axis=1)
    np.testing.assert_allclose(feat, wanted)


def test_no_points():
    none = scan_of(5).select(np.empty(0, np.int64))
    assert point_features(none, ROOM_FEATURES).shape == (0, 6)


@pytest.mark.parametrize(
    ("name", "near"),
    [("normal_w", "normal_x"), ("intensty", "intensity"), ("reed", "red"), ("hight", "height")],
)
def test_unknown_name(name, near):
    with pytest.raises(
        ValueError, match=f"no feature is called '{name}'; the nearest are: .*{near}"
    ):
        point_features(scan_of(3), ("x", name))


def test_no_name():
    with pytest.raises(
        ValueError, match="features must name at least one of intensity, raw_intensity, radius"
    ):
        require_features(())


def test_scan_without_colour():
    with pytest.raises(
        DataError,
        match=r"scan test/0 has no color, which the features red, green, blue are; open data with "
        r"colour, or use a backbone with features among intensity, raw_intensity, radius, "
        "height, x, y, z$",
    ):
        point_features(bare(scan_of(3)), ROOM_FEATURES)


def test_scan_without_normals():
    scan = dataclasses.replace(scan_of(3), normal=None)
    with pytest.raises(DataError, match="no normal, which the features normal_z are; estimate"):
        point_features(scan, ("red", "normal_z"))
