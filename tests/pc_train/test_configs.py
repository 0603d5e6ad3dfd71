"""The defaults are ScaLR's (Puy et al., CVPR 2024): its released downstream configurations.

The preset `rooms` is MSC's (Wu et al., CVPR 2023): Table 6 and its released configuration.
"""

from pathlib import Path

import pytest
from pc_data.datasets import DataConfig
from pc_train.configs import FineTuneConfig, ProbeConfig, few_labels, probe_rooms, rooms

WHERE = {"backbone": Path("b"), "data": DataConfig(root=Path("d")), "out": Path("o")}
RELEASED = [  # lr, weight decay, min lr, epochs, warm-up epochs
    (ProbeConfig(**WHERE), (1e-3, 0.003, 1e-5, 20, 2)),
    (FineTuneConfig(**WHERE), (2e-3, 0, 0, 25, 2)),
    (few_labels(), (2e-3, 0, 0, 45, 4)),
]


@pytest.mark.parametrize(("config", "released"), RELEASED)
def test_schedules(config, released):
    names = ("lr", "weight_decay", "min_lr", "epochs", "warmup_epochs")
    assert tuple(getattr(config, name) for name in names) == released
    assert (config.batch_size, config.voxel_size, config.max_points) == (8, 0, 20_000)
    assert (config.augmentation, config.optimizer, config.head) == ("lidar", "adamw", "norm_linear")
    assert (config.lovasz_weight, config.mix_probability) == (1, 0)
    assert not config.count_absent_classes
    assert not config.precise


def test_rooms():
    config = rooms()
    assert config.data.name == "scannet"
    assert (config.lr, config.weight_decay, config.epochs, config.warmup_epochs) == (
        *(0.05, 1e-4),
        *(800, 40),
    )
    assert config.min_lr == pytest.approx(config.lr / 10 / 1e4)
    assert (config.batch_size, config.max_points, config.mix_probability) == (48, 100_000, 0.8)
    assert (config.augmentation, config.optimizer, config.head) == ("rooms", "sgd", "linear")
    assert (config.lovasz_weight, config.layer_decay, config.drop_path) == (0, 1, 0)
    assert config.count_absent_classes
    assert config.voxel_size == 0  # the backbone's own


def test_probing_of_rooms():
    config = probe_rooms()
    assert (config.augmentation, config.max_points) == ("rooms", 100_000)
    assert config.mix_probability == 0
    assert config.lr == ProbeConfig(**WHERE).lr


def test_fine_tuning():
    assert (FineTuneConfig(**WHERE).layer_decay, FineTuneConfig(**WHERE).drop_path) == (0.99, 0.2)
    assert (few_labels().layer_decay, few_labels().drop_path) == (0.95, 0.2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"max_steps": -1}, "max_steps must be 0 or more, got -1"),
        ({"layer_decay": 0.0}, "layer_decay must be positive, got 0.0"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
        ({"voxel_size": -0.1}, "voxel_size must be 0 or more, got -0.1"),
        ({"lovasz_weight": -1.0}, "lovasz_weight must be 0 or more, got -1.0"),
        ({"points_per_scene": -1}, "points_per_scene must be 0 or more, got -1"),
        ({"mix_probability": 1.1}, r"mix_probability must be in \[0, 1\], got 1.1"),
        (
            {"mix_probability": 0.5, "batch_size": 3},
            "batch_size must be even to mix pairs of scans, got 3",
        ),
        (
            {"points_per_scene": 20, "points_file": Path("p")},
            "points_per_scene 20 and points_file p exclude each other",
        ),
    ],
)
def test_limits(changes, said):
    with pytest.raises(ValueError, match=said):
        FineTuneConfig(**WHERE, **changes)
