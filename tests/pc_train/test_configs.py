"""The defaults are ScaLR's (Puy et al., CVPR 2024): its released downstream configurations."""

from pathlib import Path

import pytest
from pc_data.datasets import DataConfig
from pc_train.configs import FineTuneConfig, ProbeConfig, few_labels

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
    assert (config.batch_size, config.voxel_size, config.max_points) == (8, 0.1, 20_000)


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
    ],
)
def test_limits(changes, said):
    with pytest.raises(ValueError, match=said):
        FineTuneConfig(**WHERE, **changes)
