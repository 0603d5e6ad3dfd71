"""The defaults are the paper's tables 3 to 5: MSC (Wu et al., CVPR 2023)."""

from pathlib import Path

import pytest
from msc.config import Config
from msc.presets import PRESETS
from pc_data.datasets import DataConfig
from pc_data.features import ROOM_FEATURES

PAPER = {
    "backbone": "spunet34_paper",
    "features": ROOM_FEATURES,
    "reconstruct": ("color", "normal"),
    "voxel_size": 0.02,
    "crop": 0.6,
    "mask_size": 0.15,
    "mask_rate": 0.3,
    "mix_probability": 0.8,
    "match_radius": 0.03,
    "max_pairs": 2048,  # of four scans a GPU: 8192
    "temperature": 0.4,
    "contrast_weight": 1.0,
    "reconstruct_weight": 1.0,
    "epochs": 600,
    "batch_size": 32,
    "lr": 0.1,
    "momentum": 0.8,
    "cycle_momentum": False,
    "weight_decay": 1e-4,
    "warmup_epochs": 6,
}
RELEASED = {
    "backbone": "spunet34",
    "reconstruct": ("color",),
    "mask_size": 0.1,
    "mask_rate": 0.4,
    "contrast_weight": 0.125,
    "cycle_momentum": True,
}


@pytest.mark.parametrize("name", ["scannet", "scannet_arkitscenes"])
def test_presets_of_the_paper(name):
    config = PRESETS[name]()
    assert {key: getattr(config, key) for key in PAPER} == PAPER


def test_released_differs_where_the_code_does():
    config = PRESETS["released"]()
    expected = PAPER | RELEASED
    assert {key: getattr(config, key) for key in expected} == expected
    assert config.data.split == "all"


@pytest.mark.parametrize("name", PRESETS)
def test_no_mixed_precision_as_in_the_released_code(name):
    assert PRESETS[name]().hardware.precision == "32"


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 1, "mix_probability": 0}, {"reconstruct": ()}, {"contrast_weight": 0}],
)
def test_what_is_left_out_may_be_left_out(changes):
    Config(data=DataConfig(root=Path("x")), **changes)


def test_datasets_of_the_presets():
    names = {
        name: [data.name for data in (make().data, *make().more_data)]
        for name, make in PRESETS.items()
    }
    assert names == {
        "scannet": ["scannet"],
        "scannet_arkitscenes": ["scannet", "arkitscenes"],
        "released": ["scannet"],
        "pointcontrast": ["scannet"],
        "lidar": ["nuscenes"],
        "small": ["scannet"],
    }


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mask_rate": 0.6}, "mask_rate must be at most 0.5, got 0.6"),
        ({"crop": 1.2}, "crop must be at most 1, got 1.2"),
        ({"mix_probability": 2}, "mix_probability must be at most 1, got 2"),
        ({"voxel_size": 0}, "voxel_size must be positive, got 0"),
        ({"mask_rate": -0.1}, "mask_rate must be 0 or more, got -0.1"),
        ({"mask_rate": 0}, "mask_rate 0 hides nothing to reconstruct color, normal from"),
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"batch_size": 1}, "batch_size 1 leaves no second scan to mix with; raise it"),
        (
            {"voxel_size": 0.05},
            "match_radius 0.03 is below voxel_size 0.05: two views hardly share",
        ),
        ({"features": ("red", "gren")}, "no feature is called 'gren'; the nearest are: green"),
        ({"features": ROOM_FEATURES[:3]}, "reconstruct normal needs normal_x, normal_y, normal_z"),
        ({"reconstruct": (), "contrast_weight": 0}, "leaves nothing to learn"),
        ({"reconstruct_weight": 0, "contrast_weight": 0}, "leaves nothing to learn"),
    ],
)
def test_limits(changes, match):
    with pytest.raises(ValueError, match=match):
        Config(data=DataConfig(root=Path("x")), **changes)
