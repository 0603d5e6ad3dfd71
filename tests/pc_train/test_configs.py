"""What the settings refuse."""

from pathlib import Path

import pytest
from pc_data.datasets import DataConfig
from pc_train.configs import FeaturesConfig, FineTuneConfig

WHERE = {"backbone": Path("b"), "data": DataConfig(root=Path("d")), "out": Path("o")}


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
        ({"max_points": -1}, "max_points must be 0 or more, got -1"),
        ({"reach": -1.0}, "reach must be 0 or more, got -1.0"),
        ({"head_lr": -1.0}, "head_lr must be 0 or more, got -1.0"),
        ({"every_scene": 0}, "every_scene must be positive, got 0"),
        ({"num_scores": 0}, "num_scores must be positive, got 0"),
        ({"mean_of_last": 1.0}, r"mean_of_last must be in \[0, 1\), got 1.0"),
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_scans": 0}, "num_scans must be positive, got 0"),
        ({"num_neighbors": 0}, "num_neighbors must be positive, got 0"),
        ({"voxel_size": -0.1}, "voxel_size must be 0 or more, got -0.1"),
        ({"val_split": "train"}, "data.split and val_split must differ, got 'train' twice"),
    ],
)
def test_limits_of_features(changes, said):
    with pytest.raises(ValueError, match=said):
        FeaturesConfig(**WHERE, **changes)
