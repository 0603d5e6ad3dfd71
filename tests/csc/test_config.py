"""Presets and limits of the settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from csc.config import Config
from csc.presets import PRESETS
from pc_2dteachers import list_teachers
from pc_backbones import list_backbones
from pc_data.commandline import run
from pc_data.datasets import DataConfig


def _changed(name, before):
    preset, before = PRESETS[name](), PRESETS[before]()
    return {key: value for key, value in vars(preset).items() if value != getattr(before, key)}


def test_table_5():
    """Each row of the paper's ablation differs from the one above it in what it names."""
    assert _changed("point_prototypes", "nuscenes") == {"prototypes": "point"}
    assert _changed("semantic", "nuscenes") == {"prototypes": "none"}
    # SLidR's own batch and its rate, which is as much for each scan.
    assert _changed("slidr", "semantic") == {"batch_size": 4, "lr": 0.5}
    slidr, csc = PRESETS["slidr"](), PRESETS["nuscenes"]()
    assert slidr.lr / slidr.batch_size == csc.lr / csc.batch_size
    assert _changed("st_slidr", "slidr") == {"contrast": "tolerant"}
    changed = _changed("ppkt", "slidr")
    assert changed == {"contrast": "pixel", "teacher": "moco_v2_resnet50", "teacher_level": -1}


def test_paper_values():
    config = PRESETS["nuscenes"]()
    assert config == Config(data=config.data)
    assert config.data.split == "slidr_train"
    assert (config.temperature, config.prototype_temperature, config.dim) == (0.07, 1.0, 64)
    assert (config.optimizer, config.lr, config.momentum, config.dampening) == (
        *("sgd", 2.0),
        *(0.9, 0.1),
    )
    assert (config.weight_decay, config.epochs, config.batch_size) == (1e-4, 50, 16)
    assert (config.image_size, config.prototype_epochs) == ((224, 416), 5)
    assert (config.absent_classes, config.average_losses, config.learn_heads) == (
        *(False, False),
        True,
    )


def test_what_the_released_code_does():
    changed = _changed("released", "nuscenes")
    assert changed.pop("data").split == "train"
    assert changed == {
        "features": ("raw_intensity",),
        "prototypes": "concat",
        "absent_classes": True,
        "average_losses": True,
    }
    changed = _changed("released_cylinder3d", "released")
    assert changed.pop("learn_heads") is False
    assert changed == {
        "backbone": "cylinder3d_csc",
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 0.0,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name, capsys):
    """Each names networks that exist, and can be run with the paths of a user."""
    preset = PRESETS[name]()
    assert preset.backbone in list_backbones()
    assert preset.teacher in list_teachers()
    seen = []

    def command(config: Config) -> None:
        """Pre-train.

        Args:
            config: The settings.
        """
        seen.append(config)

    words = ["pretrain", "--preset", name, "--data.root", "w", "--superpixels", "s"]
    words += ["--image_size", "64,128", "--teacher_weights=t.pth"]
    presets = {"pretrain": PRESETS}
    code = run({"pretrain": command}, prog="csc", description="", presets=presets, argv=words)
    assert code == 0, capsys.readouterr().err
    assert (seen[0].data.root, seen[0].superpixels) == (Path("w"), Path("s"))
    assert (seen[0].contrast, seen[0].lr) == (preset.contrast, preset.lr)
    assert seen[0].image_size == (64, 128)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"temperature": 0}, "temperature must be positive, got 0"),
        ({"prototype_temperature": -1.0}, "prototype_temperature must be positive, got -1"),
        ({"prototype_epochs": 0}, "prototype_epochs must be positive, got 0"),
        ({"image_size": (224, 0)}, r"image_size must be positive, got \(224, 0\)"),
        ({"dim": 0}, "dim must be positive, got 0"),
        ({"num_pairs": 0}, "num_pairs must be positive, got 0"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"voxel_size": -0.1}, "voxel_size must be 0 or more, got -0.1"),
        ({"min_depth": -1.0}, "min_depth must be 0 or more, got -1"),
        ({"momentum": -0.9}, "momentum must be 0 or more, got -0.9"),
        ({"dampening": -0.1}, "dampening must be 0 or more, got -0.1"),
        ({"weight_decay": -1e-4}, "weight_decay must be 0 or more, got -0.0001"),
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"more_superpixels": [Path("s")]}, r"must be as many as more_data \(0\), got 1"),
        ({"contrast": "pixel"}, "prototypes blend are of superpixels, .*pass prototypes none"),
    ],
)
def test_limits(changes, match):
    with pytest.raises(ValueError, match=match):
        Config(data=DataConfig(root=Path("x")), **changes)


def test_configuration_needs_no_torch():
    script = "import sys, csc.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env=os.environ).returncode == 0
