"""Geometry beside its oracles on samples of other sensors: cars, aircraft, drones and rooms."""

import numpy as np
import pytest
from pc_geometry import farthest_point_sample, knn, segment_ground, segment_ground_zones
from scipy.spatial import cKDTree

from tests.lanes import compiled_only
from tests.pc_geometry.test_ground import naive_ground
from tests.pc_geometry.test_ground_zones import naive_zones
from tests.pc_geometry.test_neighbors import naive_knn
from tests.pc_geometry.test_sampling import naive_sample
from tests.real_data import REAL_DATA, needs_real_data

pytestmark = [compiled_only, needs_real_data]

AIRBORNE = ("11", "31", "42")
SENSOR_HEIGHTS = {"KITTI": 1.73, "nuScenes": 1.84, "HDL-32E": 1.8, "PandaSet": 0.0}
FILES = {
    "KITTI": ("kitti/training/velodyne/*.bin", 4),
    "nuScenes": ("nuscenes/samples/LIDAR_TOP/*.bin", 5),
    "ScanNet": ("scannet/mmdet3d_scene0000_00/points/*.bin", 6),
    "SensatUrban": ("sensaturban/train/points/*.bin", 6),
}
SAMPLES = [*FILES, "HDL-32E", "PandaSet", *(f"ISPRS {number}" for number in AIRBORNE)]


def load(name):
    """Positions [n 3] in float32."""
    if name == "HDL-32E":
        file = REAL_DATA / "lidar_scans_unlabelled/koide3_outdoor_pair/251370668.pcd"
        content = file.read_bytes().split(b"DATA binary\n", 1)[1]
        return np.frombuffer(content, np.float32).reshape(-1, 4)[:, :3]
    if name == "PandaSet":  # the spinning sensor; its frame lies on the ground
        frames = pytest.importorskip("pc_data.files.frames", reason="pickled frames need pc-data")
        table = frames.read_frame(REAL_DATA / "pandaset/002/lidar/00.pkl.gz")
        points = np.stack([table[axis] for axis in "xyz"], axis=1)
        return points[table["d"] == 0].astype(np.float32)
    if name.startswith("ISPRS"):
        return load_airborne(name.split()[1])[0]
    pattern, columns = FILES[name]
    return np.fromfile(min(REAL_DATA.glob(pattern)), np.float32).reshape(-1, columns)[:, :3]


def load_airborne(number):
    """Positions about their middle, and which are ground returns."""
    with np.load(REAL_DATA / f"isprs_als_ground/samp{number}.npz") as sample:
        xyz, is_ground = sample["xyz"], sample["is_ground"]
    return (xyz - xyz.mean(axis=0, dtype=np.float64)).astype(np.float32), is_ground


@pytest.mark.parametrize("name", SAMPLES)
def test_farthest_points(name):
    points = load(name)
    assert len(points) > 10_000
    for cloud in (points, points[:, :2]):
        np.testing.assert_array_equal(farthest_point_sample(cloud, 128), naive_sample(cloud, 128))


@pytest.mark.parametrize("name", SAMPLES)
def test_nearest_neighbors(name):
    points = load(name)
    distance, index = knn(points, points, 16)
    expected, _ = cKDTree(points.astype(np.float64)).query(points, 16)
    np.testing.assert_allclose(distance, expected, rtol=1e-6, atol=1e-12)
    some = np.arange(0, len(points), len(points) // 40)
    naive_distance, naive_index = naive_knn(points[some], points, 16)
    np.testing.assert_array_equal(index[some], naive_index)
    np.testing.assert_array_equal(distance[some], naive_distance)


@pytest.mark.parametrize("name", SENSOR_HEIGHTS)
def test_ground_around_a_car(name):
    points, height = load(name)[::8], SENSOR_HEIGHTS[name]
    lines = segment_ground(points, sensor_height=height)
    np.testing.assert_array_equal(lines, naive_ground(points, sensor_height=height))
    planes = segment_ground_zones(points, sensor_height=height)
    np.testing.assert_array_equal(planes, naive_zones(points, sensor_height=height))
    assert 0.15 < lines.mean() < 0.8
    assert 0.15 < planes.mean() < 0.8


@pytest.mark.parametrize("number", AIRBORNE)
def test_ground_under_an_aircraft(number):
    """Not what these functions are for, but slopes, trains and roofs that streets do not have."""
    points, is_ground = (values[::4] for values in load_airborne(number))
    height = -float(np.median(points[is_ground, 2]))
    for find, naive in ((segment_ground, naive_ground), (segment_ground_zones, naive_zones)):
        found = find(points, sensor_height=height)
        np.testing.assert_array_equal(found, naive(points, sensor_height=height))
        assert found.any()
