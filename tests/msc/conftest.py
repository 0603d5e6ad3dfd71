"""Rooms that the app's tests share."""

import pytest


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """A synthetic ScanNet of three training rooms and one to validate on; read only."""
    from pc_data.synthetic.scannet import make_room_scannet

    root = tmp_path_factory.mktemp("rooms") / "world"
    make_room_scannet(root, num_scenes=4, seed=3, num_frames=0, voxel_size=0.06)
    return root
