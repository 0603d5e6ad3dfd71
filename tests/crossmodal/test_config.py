"""Presets and limits of the settings."""

from pathlib import Path

import pytest
from crossmodal.config import Config
from crossmodal.presets import PRESETS
from pc_data.datasets import DataConfig


def test_presets_of_the_modality_study():
    """Table V: single, single +, cross and multi differ in nothing else."""
    nuscenes = PRESETS["nuscenes"]()
    changed = {
        name: {
            key for key, value in vars(PRESETS[name]()).items() if value != getattr(nuscenes, key)
        }
        for name in ("single", "single_units", "multi")
    }
    assert changed == {
        "single": {"modality", "instances"},
        "single_units": {"modality"},
        "multi": {"modality"},
    }


def test_paper_values():
    config = PRESETS["waymo"]()
    assert config.teacher == "moco_v3_resnet50"
    assert config.levels == (1, 2, 3)  # P2, P3, P4
    assert (config.sampling, config.context, config.instances) == ("farthest", "neighbors", True)
    assert config.modality == "cross"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"num_negatives": -1}, "num_negatives must be 0 or more, got -1"),
        ({"scale": (1.2, 0.8)}, "scale must be a lower and a higher factor"),
        ({"num_units": 0}, "num_units must be positive, got 0"),
        ({"modality": "single", "teacher_weights": Path("w.pth")}, "image network, got .* w.pth"),
        ({"modality": "single", "random_teacher": True}, "uses no image .*=True; leave them out"),
    ],
)
def test_limits(changes, match):
    with pytest.raises(ValueError, match=match):
        Config(data=DataConfig(root=Path("x")), **changes)
