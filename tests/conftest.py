"""Fixtures that several packages' tests share, and how the processes that run them share cores."""

import os

import pytest

from tests.fork_server import start_with_apps

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch and numba are imported
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(max(share, 1)))


def pytest_collection_finish(session):
    """Slow tests run apps in processes of their own."""
    if any(item.get_closest_marker("slow") for item in session.items):
        start_with_apps()


@pytest.fixture(scope="session")
def street_world(tmp_path_factory):
    """A synthetic nuScenes: one training and one validation scene of two keyframes; read only."""
    from pc_data.synthetic import make_street_nuscenes

    root = tmp_path_factory.mktemp("streets") / "world"
    make_street_nuscenes(root, num_scenes=2, seed=3, frames_per_scene=2, image_size=(224, 126))
    return root


@pytest.fixture(scope="session")
def rooms(tmp_path_factory):
    """A synthetic ScanNet of three training rooms and one to validate on; read only."""
    from pc_data.synthetic.scannet import make_room_scannet

    root = tmp_path_factory.mktemp("rooms") / "world"
    make_room_scannet(root, num_scenes=4, seed=3, num_frames=0, voxel_size=0.06)
    return root
