"""The defaults are the paper's: ScaLR (Puy et al., CVPR 2024) and its released configurations."""

from pathlib import Path

import pytest
from pc_data.datasets import DataConfig
from scalr.config import Config
from scalr.presets import PRESETS

PAPER = {
    "teachers": ("dinov2_vit_l14",),
    "backbone": "waffleiron_48_768",
    "grids": ((256, 256), (256, 32), (256, 32)),
    "fov": ((-64.0, -64.0, -8.0), (64.0, 64.0, 8.0)),
    "num_neighbors": 16,
    "image_size": (224, 448),
    "antialias": False,
    "voxel_size": 0.1,
    "max_points": 20_000,
    "epochs": 25,
    "batch_size": 8,
    "lr": 2e-3,
    "min_lr": 1e-5,
    "weight_decay": 0.03,
    "warmup_steps": 3500,
}


@pytest.mark.parametrize("name", ["nuscenes", "semantickitti", "merged"])
def test_presets_of_the_paper(name):
    config = PRESETS[name]()
    assert {key: getattr(config, key) for key in PAPER} == PAPER


def test_datasets_of_the_presets():
    names = {
        name: [data.name for data in (make().data, *make().more_data)]
        for name, make in PRESETS.items()
    }
    assert names == {
        "nuscenes": ["nuscenes"],
        "semantickitti": ["semantickitti"],
        "merged": ["nuscenes", "semantickitti", "pandaset", "pandaset"],
        "small": ["nuscenes"],
    }


@pytest.mark.parametrize("hidden", [0, -1])
def test_limits_hold_in_python_too(hidden):
    with pytest.raises(ValueError, match=f"hidden_dim must be positive, got {hidden}"):
        Config(data=DataConfig(root=Path("x")), hidden_dim=hidden)
