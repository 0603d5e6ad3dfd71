"""Fixtures that several packages' tests share."""

import pytest


@pytest.fixture(scope="session")
def street_world(tmp_path_factory):
    """A synthetic nuScenes: one training and one validation scene of two keyframes; read only."""
    from pc_data.synthetic import make_street_nuscenes

    root = tmp_path_factory.mktemp("streets") / "world"
    make_street_nuscenes(root, num_scenes=2, seed=3, frames_per_scene=2, image_size=(224, 126))
    return root
