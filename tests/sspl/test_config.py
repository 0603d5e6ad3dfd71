"""The defaults are the paper's section 3.4 and 5: SSPL (Zhang et al., NeurIPS 2022)."""

from pathlib import Path

import pytest
from pc_data.datasets import DataConfig
from sspl.config import Config
from sspl.presets import PRESETS

PAPER = {
    "level": "volume",
    "local": "info_nce",
    "across": "clusters",
    "negatives": "other",
    "max_volumes": 400,
    "local_share": 0.1,
    "global_share": 0.5,
    "temperature": 0.1,
    "ema": 0.999,
    "ema_to_one": False,
    "queue_size": 300_000,
    "num_clusters": 64,
    "num_negatives": 20_000,
    "epochs": 500,
    "batch_size": 96,
    "lr": 0.06,
    "min_lr": 0.00006,
    "momentum": 0.9,
}


@pytest.mark.parametrize("name", ["scannet", "semantickitti", "waymo"])
def test_presets_of_the_paper(name):
    config = PRESETS[name]()
    # Of Waymo all frames are taken, where the paper has 24,000: as many steps in fewer epochs.
    paper = PAPER | ({"epochs": 76} if name == "waymo" else {})
    assert {key: getattr(config, key) for key in PAPER} == paper


def test_rooms_are_votenets():
    config = PRESETS["scannet"]()
    assert (config.backbone, config.features) == ("pointnet2_votenet", ("height",))
    assert (config.max_points, config.data.align, config.indoor) == (50_000, True, True)


@pytest.mark.parametrize("name", ["semantickitti", "waymo"])
def test_streets_are_js3c_nets(name):
    """Its input is the remission alone: places would tell volumes apart."""
    config = PRESETS[name]()
    assert (config.backbone, config.features) == ("spunet_js3c", ("intensity",))
    assert (config.voxel_size, config.volume_size, config.max_points) == (0.1, 4.0, 0)
    assert not config.indoor


def test_baselines_differ_in_what_they_contrast_alone():
    """Same data, network and optimiser, as section 4.1 compares them; their rooms tilt."""
    changed = {
        name: {
            key: value
            for key, value in vars(PRESETS[name]()).items()
            if value != getattr(PRESETS[of](), key)
        }
        for name, of in (
            ("byol", "scannet"),
            ("byol_lidar", "semantickitti"),
            ("depthcontrast", "scannet"),
            ("depthcontrast_lidar", "semantickitti"),
        )
    }
    byol = {"level": "scan", "local": "byol", "across": "none", "ema": 0.996, "ema_to_one": True}
    moco = {"level": "scan", "local": "none", "across": "queue"}
    assert changed == {
        "byol": byol | {"features": ()},
        "byol_lidar": byol,
        "depthcontrast": moco | {"features": (), "queue_size": 131_072},
        "depthcontrast_lidar": moco | {"queue_size": 65_536},
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"local": "none"},
        {"across": "none"},
        {"across": "queue"},
        {"across": "classification", "local": "byol"},
        {"negatives": "hard"},
        {"level": "scan", "local": "byol", "across": "queue"},
    ],
)
def test_what_goes_together(changes):
    Config(data=DataConfig(root=Path("x")), **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"local_share": 1.5}, "local_share must be at most 1, got 1.5"),
        ({"global_share": 0}, "global_share must be positive, got 0"),
        ({"ema": 1.1}, "ema must be at most 1, got 1.1"),
        ({"volume_size": 0}, "volume_size must be positive, got 0"),
        ({"temperature": -1}, "temperature must be positive, got -1"),
        ({"max_points": -1}, "max_points must be 0 or more, got -1"),
        ({"num_clusters": 1}, "num_clusters must be at least 2, got 1"),
        ({"features": ("heigth",)}, "no feature is called 'heigth'; the nearest are: height"),
        (
            {"view_points": 5000},
            "view_points 5000 is of level scan; at level volume pass max_points",
        ),
        (
            {"level": "scan", "local": "byol", "across": "none", "view_points": 2},
            "view_points must be 0 or at least 4, got 2",
        ),
        ({"local": "none", "across": "none"}, "leave nothing to learn; choose one"),
        ({"level": "scan"}, "local info_nce needs the other volumes of a scan, which level scan"),
        ({"level": "scan", "local": "byol"}, "across clusters is of volumes, which level scan"),
        ({"across": "queue", "negatives": "hard"}, "negatives hard are those of across clusters"),
        ({"queue_size": 10}, "queue_size 10 is below num_clusters 64; a cluster needs a feature"),
    ],
)
def test_limits(changes, match):
    with pytest.raises(ValueError, match=match):
        Config(data=DataConfig(root=Path("x")), **changes)
