"""A tiny backbone and the words of a command that probes it."""

import pytest
from pc_data.features import LIDAR_FEATURES
from pc_train.networks import new_backbone, save_model


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A run folder with random weights; read only."""
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("backbone")
    network = new_backbone(
        "waffleiron_6_64",
        len(LIDAR_FEATURES),
        num_neighbors=4,
        grids=[[32, 32], [32, 8], [32, 8]],
    )
    save_model(folder, network, card={})
    return folder


@pytest.fixture
def probe_words(street_world, backbone):
    """Makes the words of `pc-train probe` for an output folder; later flags win."""

    def words(out, *more):
        return [
            "probe",
            f"--backbone={backbone}",
            f"--data.root={street_world}",
            "--batch_size=1",
            "--max_steps=3",
            "--max_points=400",
            "--voxel_size=0.5",
            "--hardware.num_workers=0",
            "--hardware.accelerator=cpu",
            f"--out={out}",
            *more,
        ]

    return words
