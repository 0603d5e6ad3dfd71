"""Pre-training as a user runs it: real keyframe, modalities and switches."""

import numpy as np
import pytest
from crossmodal.cli import main
from pc_backbones import read_card
from pc_train.callbacks import read_columns, read_curve
from pc_train.cli import main as pc_train

from tests.real_data import REAL_DATA, needs_real_data

CPU = ["--hardware.num_workers=0", "--hardware.accelerator=cpu"]
FAST = ["--preset=small", *CPU, "--image_size=[64,128]", "--num_units=48", "--num_negatives=16"]


def _pretrain(world, out, *more):
    words = ["pretrain", f"--data.root={world}", *FAST, "--batch_size=1", "--max_steps=2"]
    return [*words, f"--out={out}", *more]


@needs_real_data
def test_real_keyframe(tmp_path):
    out = tmp_path / "run"
    data = [f"--data.root={REAL_DATA / 'nuscenes'}", "--data.version=v1.0-mini"]
    words = ["pretrain", "--preset=small", *CPU, *data, "--batch_size=1", "--max_steps=20"]
    assert main([*words, f"--out={out}"]) == 0
    losses = [loss for _, loss, _ in read_curve(out / "metrics.csv")]
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    card = read_card(out / "backbone.safetensors")["card"]
    assert card["modality"] == "cross"
    assert card["features"] == ["x", "y", "z", "intensity"]
    assert (out / "report.html").read_text().count("data:image/png") >= 3
    assert {"accuracy", "alignment"} <= set(read_columns(out / "metrics.csv"))


@pytest.mark.parametrize(
    "flags",
    [
        ["--modality=single", "--instances=false"],
        ["--modality=multi"],
        ["--context=pillar", "--sampling=random", "--num_negatives=0"],
        ["--random_teacher=true", "--levels=[1]"],
        ["--backbone=minkunet14_small", "--features=[intensity]"],
    ],
    ids=["single", "multi", "table IX", "tables X and XI", "MinkUNet"],
)
def test_presets_and_switches(street_world, tmp_path, flags):
    out = tmp_path / "run"
    assert main(_pretrain(street_world, out, *flags)) == 0
    assert np.isfinite([loss for _, loss, _ in read_curve(out / "metrics.csv")]).all()


def test_probe_takes_what_was_pretrained(street_world, tmp_path):
    out = tmp_path / "run"
    assert main(_pretrain(street_world, out)) == 0
    words = ["probe", f"--backbone={out}", f"--data.root={street_world}", "--batch_size=1", *CPU]
    more = ["--max_steps=2", "--augmentation=cloud", "--max_points=500"]
    assert pc_train([*words, *more, f"--out={tmp_path / 'probe'}"]) == 0


def test_a_finished_run_is_left_alone(street_world, tmp_path, monkeypatch):
    """Not even the image network's file is needed any more."""
    out = tmp_path / "run"
    assert main(_pretrain(street_world, out)) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setattr("crossmodal.pretrain.create_teacher", None)
    assert main(_pretrain(street_world, out)) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--teacher=moco_v3_resnet50"], "moco_v3_resnet50 needs the file of its authors"),
        (["--levels=[9]"], "levels must be different ones"),
        (["--image_size=[60,128]"], "multiples of 16, got 60x128; resize to 64x128"),
        (["--features=[x,y,colour]"], "colour"),
        (["--min_depth=1000000"], "no point off the ground is seen by a camera"),
    ],
)
def test_bad_settings(street_world, tmp_path, capsys, flags, match):
    assert main(_pretrain(street_world, tmp_path / "run", *flags)) in (2, 3)
    error = capsys.readouterr().err
    assert match in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
