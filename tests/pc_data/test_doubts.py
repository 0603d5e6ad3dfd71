"""What is said of units and axes, and what is not."""

import numpy as np
import pytest
from pc_data.datasets import DataConfig, open_dataset
from pc_data.files.clouds import read_cloud
from pc_data.files.doubts import doubt_axis, doubt_unit
from pc_geometry import voxel_subsample

from tests.real_data import REAL_DATA, needs_real_data


def _lie_down(xyz):
    """As a file in which y points up."""
    return np.stack([xyz[:, 0], xyz[:, 2], -xyz[:, 1]]).T


def _real_clouds():
    kitti = REAL_DATA / "semantickitti/dataset/sequences/08/velodyne/000000.bin"
    nuscenes = next(REAL_DATA.glob("nuscenes/samples/LIDAR_TOP/*.bin"))
    room = next(REAL_DATA.glob("scannet/scans/*/*_vh_clean_2.ply"))
    yield read_cloud(kitti, columns=("x", "y", "z", "i")).xyz, 0.1
    yield read_cloud(nuscenes, columns=("x", "y", "z", "i", "_")).xyz, 0.1
    yield read_cloud(room, names={"label": ""}).xyz, 0.02
    for survey in sorted(REAL_DATA.glob("isprs_als_ground/*.pcd")):
        yield read_cloud(survey).xyz, 0.4


def test_streets_and_rooms_as_they_are(street_world, rooms):
    for name, root in (("nuscenes", street_world), ("scannet", rooms)):
        dataset = open_dataset(DataConfig(root=root, name=name, split="all"))
        for index in range(len(dataset)):
            xyz = dataset[index].xyz
            seen = xyz[voxel_subsample(xyz, 0.1)[0]]
            assert doubt_axis(xyz) == ""
            assert doubt_unit(xyz, seen, 0.1) == ""
            if name == "nuscenes":  # a room may have walls as large as its floor
                assert "the up axis may be another" in doubt_axis(_lie_down(xyz))


@needs_real_data
def test_real_clouds_as_they_are():
    for xyz, voxel_size in _real_clouds():
        seen = xyz[voxel_subsample(xyz, voxel_size)[0]]
        assert doubt_axis(xyz) == ""
        assert doubt_unit(xyz, seen, voxel_size) == ""


@needs_real_data
def test_real_street_and_room_that_lie_down():
    for xyz, _ in list(_real_clouds())[:3]:
        assert "the up axis may be another" in doubt_axis(_lie_down(xyz))


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1, ""), (100, "its unit may be smaller"), (0.001, "fall into 1 voxels of 0.02 m: its unit")],
)
def test_unit(factor, said):
    rng = np.random.default_rng(0)
    xyz = (factor * rng.uniform(0, [4, 3, 0.02], (20_000, 3))).astype(np.float32)
    seen = xyz[voxel_subsample(xyz, 0.02)[0]]
    doubt = doubt_unit(xyz, seen, 0.02)
    assert said in doubt
    assert bool(said) == bool(doubt)


def test_small_clouds_are_left_alone():
    xyz = np.zeros((3, 3), np.float32)
    assert doubt_axis(xyz) == doubt_unit(xyz, xyz[:1], 0.1) == ""
